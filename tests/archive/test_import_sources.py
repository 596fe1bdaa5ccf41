from __future__ import annotations

import inspect
import os
import sys
import zipfile
from collections.abc import Iterable
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs.archive import import_sources
from pacs.archive.import_sources import SOURCE_ERRORS, Candidate, Found, Reason, Refusal, scan
from tests.factories import make_instance, part10
from tests.media import make_medium


def names(found: Iterable[Found], root: Path) -> list[str]:
    return sorted(one.name.removeprefix(f"{root}/") for one in found if isinstance(one, Candidate))


def refusals(found: Iterable[Found]) -> list[tuple[Reason, bool]]:
    return [(one.reason, one.is_harmless) for one in found if isinstance(one, Refusal)]


def content(candidate: Candidate) -> bytes:
    with closing(candidate.open()) as stream:
        data = b""
        while chunk := stream.read(7):
            data += chunk
        return data


def write(path: Path, data: bytes = b"data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_scan_folder_finds_the_files_of_every_depth(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d/e"):
        write(tmp_path / name)

    found = list(scan([tmp_path]))

    assert names(found, tmp_path) == ["a", "b/c", "b/d/e"]
    assert not any(one.is_named for one in found if isinstance(one, Candidate))


def test_scan_file_is_named(tmp_path: Path) -> None:
    (found,) = scan([write(tmp_path / "a")])

    assert isinstance(found, Candidate)
    assert found.is_named
    assert content(found) == b"data"


def test_scan_empty_folder_is_nothing(tmp_path: Path) -> None:
    assert list(scan([tmp_path])) == []


def test_scan_deep_tree_needs_no_recursion(tmp_path: Path) -> None:
    write(tmp_path.joinpath(*["d"] * 300, "a"))
    limit = sys.getrecursionlimit()

    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        found = list(scan([tmp_path]))
    finally:
        sys.setrecursionlimit(limit)

    assert len(found) == 1


def test_scan_link_to_a_file_is_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(outside)

    (found,) = scan([tmp_path / "in"])

    assert isinstance(found, Candidate)
    assert content(found) == b"data"


def test_scan_links_that_loop_end_and_each_folder_is_visited_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "file")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")

    found = list(scan([tmp_path]))

    assert len([one for one in found if isinstance(one, Candidate)]) == 1
    # What leads nowhere is told: it may have been an instance.
    assert refusals(found) == [(Reason.UNREADABLE, False)]


def test_scan_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")

    assert refusals(scan([tmp_path])) == [(Reason.UNREADABLE, False)]


@pytest.mark.parametrize("named", [True, False])
def test_scan_pipe_is_never_opened(tmp_path: Path, named: bool) -> None:
    os.mkfifo(tmp_path / "pipe")

    found = list(scan([tmp_path / "pipe" if named else tmp_path]))

    assert names(found, tmp_path) == []
    assert [harmless for _, harmless in refusals(found)] == [not named]


def test_scan_folder_that_cannot_be_listed_is_refused_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    write(tmp_path / "closed" / "a")
    write(tmp_path / "open" / "b")
    monkeypatch.setattr(import_sources.os, "scandir", refuse)

    found = list(scan([tmp_path]))

    assert names(found, tmp_path) == ["open/b"]
    assert refusals(found) == [(Reason.UNREADABLE, False)]


def test_scan_excluded_folder_is_left_out_wherever_it_turns_up(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "a")
    write(tmp_path / "all" / "b")
    (tmp_path / "all" / "link").symlink_to(tmp_path / "mine")

    found = list(scan([tmp_path / "all", tmp_path / "mine"], excluded=[tmp_path / "mine"]))

    assert names(found, tmp_path) == ["all/b"]
    assert refusals(found) == [(Reason.OWN_STORAGE, False)]


def test_scan_excluded_folder_is_not_entered_from_within_but_its_files_can_be_named(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "mine" / "2024" / "a")

    found = list(scan([path.parent, path], excluded=[tmp_path / "mine"]))

    assert names(found, tmp_path) == ["mine/2024/a"]
    assert refusals(found) == [(Reason.OWN_STORAGE, False)]


def test_scan_path_that_is_gone_is_refused(tmp_path: Path) -> None:
    assert refusals(scan([tmp_path / "gone"])) == [(Reason.UNREADABLE, False)]


@pytest.mark.parametrize("name", ["study.zip", "STUDY.ZIP"])
def test_scan_zip_in_a_folder_gives_its_members(tmp_path: Path, name: str) -> None:
    make_zip(tmp_path / name, {"a": b"one", "b/": b"", "b/c": b"two"})

    found = list(scan([tmp_path]))

    assert names(found, tmp_path) == [f"{name}!a", f"{name}!b/c"]
    assert sorted(content(one) for one in found if isinstance(one, Candidate)) == [b"one", b"two"]


def test_scan_named_zip_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "study.bin", {"a": b"one"})

    assert names(scan([path]), tmp_path) == ["study.bin!a"]


def test_scan_zip_member_names_are_never_paths(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"../../evil": b"one", "/etc/evil": b"two"})

    found = [one for one in scan([path]) if isinstance(one, Candidate)]

    assert sorted(content(one) for one in found) == [b"one", b"two"]
    assert list(tmp_path.iterdir()) == [path]


def test_scan_zip_members_can_be_read_while_others_are(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {str(n): bytes([n]) * 100_000 for n in range(3)})

    streams = [one.open() for one in scan([path]) if isinstance(one, Candidate)]
    parts = [b"".join(stream.read(1000) for stream in streams) for _ in range(100)]

    assert all(len(part) == 3000 for part in parts)
    for stream in streams:
        stream.close()


def test_scan_zip_that_is_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.zip", b"no zip")

    assert refusals(scan([tmp_path])) == [(Reason.UNREADABLE, False)]


def test_scan_zip_within_a_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"inner.ZIP": b"PK", "a": b"one"})

    found = list(scan([path]))

    assert names(found, tmp_path) == ["x.zip!a"]
    assert refusals(found) == [(Reason.NESTED, False)]


def test_scan_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": b"one"})
    data = bytearray(path.read_bytes())
    for signature, position in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + position] |= 1
    path.write_bytes(bytes(data))

    assert refusals(scan([path])) == [(Reason.ENCRYPTED, False)]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_scan_member_packed_by_a_method_that_inflates_at_once_is_refused(
    tmp_path: Path, method: int
) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": bytes(1000)}, method)

    assert refusals(scan([path])) == [(Reason.COMPRESSION, False)]


def test_scan_large_member_that_is_packed_too_tightly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_sources, "_FREE_MEMBER_BYTES", 100_000)
    path = make_zip(tmp_path / "x.zip", {"bomb": bytes(200_000), "small": bytes(90_000)})

    found = list(scan([path]))

    assert names(found, tmp_path) == ["x.zip!small"]
    assert refusals(found) == [(Reason.BOMB, False)]


def test_scan_members_that_together_inflate_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_sources, "_FREE_ZIP_BYTES", 0)
    path = make_zip(tmp_path / "x.zip", {str(n): bytes(200_000) for n in range(10)})

    found = list(scan([path]))

    assert 0 < len(names(found, tmp_path)) < 10
    assert {reason for reason, _ in refusals(found)} == {Reason.BOMB}


def test_scan_member_never_gives_more_than_the_zip_declares(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": bytes(1_000_000)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(bytes(data))

    (found,) = scan([path])

    assert isinstance(found, Candidate)
    with closing(found.open()) as stream, pytest.raises(zipfile.BadZipFile):
        # A byte more than declared: the checksum is of what was declared.
        stream.read(100_000)


def test_scan_member_without_a_name_is_found_like_any_other(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": b"first", "b": b"second"})
    data = bytearray(path.read_bytes())
    # A name ends at its first zero byte.
    data[data.index(b"PK\x01\x02") + 46] = 0
    path.write_bytes(bytes(data))

    assert names(scan([path]), tmp_path) == ["x.zip!", "x.zip!b"]


_ZIP = BytesIO()
with zipfile.ZipFile(_ZIP, "w", zipfile.ZIP_DEFLATED) as _archive:
    _archive.writestr("a/b", b"content " * 40)
    _archive.writestr("c", b"stored", compress_type=zipfile.ZIP_STORED)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(st.tuples(st.integers(4, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
)
def test_scan_damaged_zip_ends_in_members_or_refusals(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(_ZIP.getvalue())
    for position, value in changes:
        data[max(4, position % len(data))] = value
    path = write(tmp_path / "x.zip", bytes(data[: max(4, len(data) - max(0, cut - 200))]))

    for found in scan([path]):
        if isinstance(found, Candidate):
            with suppress(*SOURCE_ERRORS):
                assert len(content(found)) < 100_000


def files_on(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"]


def test_scan_dicomdir_gives_the_files_it_names_and_no_others(tmp_path: Path) -> None:
    dicomdir = make_medium(tmp_path)
    expected = sorted(str(path.relative_to(tmp_path)) for path in files_on(tmp_path))
    write(tmp_path / "README.TXT")

    found = list(scan([dicomdir]))

    assert names(found, tmp_path) == expected
    assert refusals(found) == []


def test_scan_dicomdir_under_another_name_is_recognised(tmp_path: Path) -> None:
    dicomdir = make_medium(tmp_path)
    renamed = dicomdir.rename(tmp_path / "index.dcm")

    assert len(names(scan([renamed]), tmp_path)) == 3


def test_scan_dicomdir_missing_file_is_refused_and_the_others_found(tmp_path: Path) -> None:
    dicomdir = make_medium(tmp_path)
    files_on(tmp_path)[0].unlink()

    found = list(scan([dicomdir]))

    assert len(names(found, tmp_path)) == 2
    assert refusals(found) == [(Reason.MISSING, False)]


@pytest.mark.parametrize("spelling", [str.lower, lambda name: f"{name};1", lambda n: f"{n}.;1"])
def test_scan_dicomdir_of_a_copied_medium_is_found_in_spite_of_its_spelling(
    tmp_path: Path, spelling: object
) -> None:
    assert callable(spelling)
    dicomdir = make_medium(tmp_path)
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path != dicomdir:
            path.rename(path.with_name(spelling(path.name)))

    found = list(scan([dicomdir]))

    assert refusals(found) == []
    assert len({one.name for one in found}) == 3


@pytest.mark.parametrize(
    "file_id", [[".."], ["..", "secret"], ["/etc/passwd"], ["A", "", "B"], ["."], ["A/../../B"]]
)
def test_scan_dicomdir_never_leaves_its_folder(tmp_path: Path, file_id: list[str]) -> None:
    medium = tmp_path / "medium"
    make_medium(medium, 1)
    write(tmp_path / "secret")
    folder = import_sources._MediumFolder(medium)

    found = folder.find(tuple(file_id))

    assert isinstance(found, Refusal)
    assert found.reason is Reason.MISSING


@pytest.mark.parametrize(
    ("on_medium", "file_id", "expected"),
    [
        (["IM0.dcm"], "IM0", "IM0.dcm"),
        (["im0.DCM;1"], "IM0", "im0.DCM;1"),
        (["IM0"], "IM0.DCM", "IM0"),
        (["IM0.ima"], "IM0.dcm", "IM0.ima"),
        (["IM0.dcm", "IM0.txt"], "IM0", "IM0.dcm"),
        (["IM0.ima", "IM0.txt"], "IM0", None),
        (["IM0", "IM0.dcm"], "IM0", "IM0"),
        (["1.2.4"], "1.2.3", None),
    ],
)
def test_scan_dicomdir_file_with_another_extension_is_found(
    tmp_path: Path, on_medium: list[str], file_id: str, expected: str | None
) -> None:
    for name in on_medium:
        write(tmp_path / "SERIES" / name)

    found = import_sources._MediumFolder(tmp_path).find(("SERIES", file_id))

    if expected is None:
        assert isinstance(found, Refusal)
    else:
        assert isinstance(found, Candidate)
        assert found.name == str(tmp_path / "SERIES" / expected)


def test_scan_dicomdir_with_a_file_id_longer_than_any_name_refuses_that_one(
    tmp_path: Path,
) -> None:
    found = import_sources._MediumFolder(tmp_path).find(("X" * 5_000, "IM0"))

    assert isinstance(found, Refusal)
    assert found.reason is Reason.MISSING


def test_scan_dicomdir_record_of_a_folder_is_missing(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()

    found = import_sources._MediumFolder(tmp_path).find(("A",))

    assert isinstance(found, Refusal)


def test_scan_truncated_dicomdir_gives_what_can_be_read_and_says_so(tmp_path: Path) -> None:
    dicomdir = make_medium(tmp_path)
    dicomdir.write_bytes(dicomdir.read_bytes()[:-40])

    found = list(scan([dicomdir]))

    assert len(names(found, tmp_path)) == 2
    assert refusals(found) == [(Reason.INVALID, False)]


def test_scan_dicomdir_within_a_folder_is_a_candidate_like_others(tmp_path: Path) -> None:
    make_medium(tmp_path)

    found = list(scan([tmp_path]))

    assert len(names(found, tmp_path)) == 4


def test_scan_is_lazy(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / str(number % 5) / str(number))
    found = scan([tmp_path])

    assert isinstance(next(found), Candidate)
    write(tmp_path / "late" / "file", part10(make_instance()))
    assert len(list(found)) == 49
