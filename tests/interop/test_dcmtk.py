"""DCMTK's command-line tools as the peer, in both roles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pacs.model.retrieves import RetrieveState
from pacs.server import Server
from tests.certificates import Authority
from tests.dimse.retrieving import STUDY, make_study, recorded, store_study, uids_of
from tests.factories import add, make_instance, part10
from tests.peers import (
    CALLED,
    RunningArchive,
    closed_port,
    data_set_bytes,
    data_set_of_file,
    deposit,
    fill_index,
    register,
    stored_bytes,
    wait_until,
)
from tests.serving import settings

TOOLS = ("echoscu", "storescu", "storescp", "findscu", "movescu", "getscu")


def _find_tool(name: str) -> str | None:
    """The DCMTK binary; pynetdicom installs scripts of the same names."""
    directories = ["/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(os.pathsep)]
    for directory in directories:
        path = shutil.which(name, path=directory)
        if path is None:
            continue
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if "$dcmtk:" in shown.stdout:
            return path
    return None


PATHS = {name: _find_tool(name) for name in TOOLS}
MISSING = [name for name, path in PATHS.items() if path is None]
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(MISSING), reason=f"DCMTK is not installed: no {', '.join(MISSING)}"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory beside those of the archive."""
    directory = tmp_path / "folder"
    directory.mkdir()
    return directory


def _run(
    name: str, *arguments: str | int | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(name, *arguments),
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=30,
        check=False,
    )


def _command(name: str, *arguments: str | int | Path) -> list[str]:
    path = PATHS[name]
    assert path is not None
    return [path, *map(str, arguments)]


def _environment() -> dict[str, str]:
    # Debian's DCMTK leaves Nagle's algorithm on, which costs 40 ms an exchange.
    return os.environ | {"TCP_NODELAY": "1"}


def _peer(server: RunningArchive, calling: str = "DCMTK") -> list[str | int]:
    return ["-aet", calling, "-aec", CALLED, "127.0.0.1", server.port]


@contextmanager
def _storescp(directory: Path, *options: str, tls: tuple[str | Path, ...] = ()) -> Iterator[int]:
    """A storescp that keeps what it receives in the directory, bit by bit."""
    port = closed_port()
    process = subprocess.Popen(
        _command("storescp", "-od", directory, "-aet", "STORESCP", *options, *tls, port),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _run("echoscu", "-to", 1, *tls, "127.0.0.1", port).returncode == 0)
        yield port
    finally:
        process.terminate()
        process.wait(5)


# C-ECHO, C-STORE


def test_echoscu_is_answered(archive_server: RunningArchive) -> None:
    shown = _run("echoscu", "--repeat", 3, *_peer(archive_server))

    assert shown.returncode == 0, shown.stderr


def test_echoscu_with_wrong_called_title_is_told_why(archive_server: RunningArchive) -> None:
    shown = _run("echoscu", "-aec", "WRONG", "127.0.0.1", archive_server.port)

    assert shown.returncode != 0
    assert "Called AE Title Not Recognized" in shown.stderr


@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xi", ImplicitVRLittleEndian),
        ("-xe", ExplicitVRLittleEndian),
        ("-xb", ExplicitVRBigEndian),
        ("-xd", DeflatedExplicitVRLittleEndian),
        ("-xs", JPEGLosslessSV1),
        ("-xy", JPEGBaseline8Bit),
        ("-xx", JPEGExtended12Bit),
        ("-xv", JPEG2000Lossless),
        ("-xr", RLELossless),
        ("-xt", JPEGLSLossless),
        ("-xu", JPEGLSNearLossless),
    ],
)
def test_storescu_in_each_transfer_syntax_is_stored_in_it(
    archive_server: RunningArchive, folder: Path, option: str, syntax: str
) -> None:
    instance = make_instance()
    file = folder / "instance.dcm"
    file.write_bytes(part10(instance, syntax))

    shown = _run("storescu", option, *_peer(archive_server), file)

    assert shown.returncode == 0, shown.stderr
    stored = archive_server.archive.index.find_by_uid(instance.SOPInstanceUID)
    assert stored is not None
    assert stored.transfer_syntax_uid == syntax
    with archive_server.archive.storage.open(stored.location) as stream:
        kept = dcmread(stream)
    assert kept.PatientName == "Doe^Jane"
    assert kept.Rows == 8


def test_storescu_of_a_folder_stores_every_instance(
    archive_server: RunningArchive, folder: Path
) -> None:
    for number, instance in enumerate(make_study(20)):
        (folder / f"{number}.dcm").write_bytes(part10(instance))

    shown = _run("storescu", "-xe", "+sd", *_peer(archive_server), folder)

    assert shown.returncode == 0, shown.stderr
    assert archive_server.archive.index.stats().instances == 20
    assert archive_server.archive.index.stats().studies == 1


# C-FIND


def _found(shown: subprocess.CompletedProcess[str], tag: str) -> list[str]:
    return sorted(re.findall(rf"\({tag}\) \w\w \[(.*?)[\s\0]*\]", shown.stdout + shown.stderr))


@pytest.mark.parametrize(
    ("model", "keys", "tag", "expected"),
    [
        ("-S", ["0008,0052=STUDY", "0020,000D"], "0020,000d", [STUDY]),
        ("-P", ["0008,0052=PATIENT", "0010,0020=P-*"], "0010,0020", ["P-1"]),
        ("-O", ["0008,0052=PATIENT", "0010,0010=doe*"], "0010,0010", ["Doe^Jane"]),
        (
            "-S",
            ["0008,0052=SERIES", f"0020,000D={STUDY}", "0020,000E"],
            "0020,000e",
            [f"{STUDY}.1"],
        ),
        (
            "-S",
            ["0008,0052=IMAGE", f"0020,000D={STUDY}", f"0020,000E={STUDY}.1", "0008,0018"],
            "0008,0018",
            [f"{STUDY}.1.1", f"{STUDY}.1.2"],
        ),
    ],
)
def test_findscu_finds_at_each_level(
    archive_server: RunningArchive, model: str, keys: list[str], tag: str, expected: list[str]
) -> None:
    store_study(archive_server, 2)
    options = [part for key in keys for part in ("-k", key)]

    shown = _run("findscu", "-v", model, *options, *_peer(archive_server))

    assert shown.returncode == 0, shown.stderr
    assert [one for one in _found(shown, tag) if "*" not in one] == expected


@pytest.mark.parametrize(
    ("stored_in", "asked_in", "name", "key"),
    [
        ("ISO_IR 100", "ISO_IR 192", "Müller^Jürgen", "müller*"),
        ("ISO_IR 192", "ISO_IR 192", "Διονυσιος", "ΔΙΟΝ*"),
        (["", "ISO 2022 IR 87"], "ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう", "*山田*"),
        (["", "ISO 2022 IR 149"], "ISO_IR 192", "Hong^Gildong=洪^吉洞=홍^길동", "홍*"),
    ],
)
def test_findscu_finds_names_and_reads_them_in_its_character_set(
    archive_server: RunningArchive,
    folder: Path,
    stored_in: str | list[str],
    asked_in: str,
    name: str,
    key: str,
) -> None:
    deposit(archive_server.archive, make_instance(SpecificCharacterSet=stored_in, PatientName=name))

    shown = _run(
        "findscu",
        "-P",
        "-X",
        *("-k", f"0008,0005={asked_in}"),
        *("-k", "0008,0052=PATIENT"),
        *("-k", f"0010,0010={key}"),
        *_peer(archive_server),
        cwd=folder,
    )

    assert shown.returncode == 0, shown.stderr
    [response] = folder.glob("rsp*.dcm")
    found = dcmread(response)
    assert found.SpecificCharacterSet == asked_in
    assert str(found.PatientName) == name


def test_findscu_against_the_hierarchy_reads_the_reason(archive_server: RunningArchive) -> None:
    shown = _run("findscu", "-d", "-S", "-k", "0008,0052=SERIES", *_peer(archive_server))

    output = shown.stdout + shown.stderr
    assert "0xa900" in output.lower()
    assert "StudyInstanceUID" in output
    assert "(0020,000d)" in output.lower()


def test_findscu_cancels_after_some_responses(archive_server: RunningArchive) -> None:
    fill_index(archive_server.archive, 1000)

    shown = _run(
        "findscu", "-v", "-S", "--cancel", 2, "-k", "0008,0052=STUDY", *_peer(archive_server)
    )

    output = shown.stdout + shown.stderr
    assert "Cancel" in output
    assert output.count("(Pending)") < 1000


# C-MOVE, C-GET


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit])
def test_movescu_to_storescp_delivers_every_byte(
    archive_server: RunningArchive, folder: Path, syntax: str
) -> None:
    instances = make_study(3)
    deposit(archive_server.archive, *instances, transfer_syntax_uid=syntax)
    with _storescp(folder, "+xa", "+B") as port:
        register(archive_server.archive, "STORESCP", port)

        shown = _run(
            "movescu", "-v", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(archive_server)
        )

    assert shown.returncode == 0, shown.stderr
    received = {dcmread(one).SOPInstanceUID: one for one in folder.iterdir()}
    assert sorted(received) == uids_of(instances)
    for instance in instances:
        file = received[instance.SOPInstanceUID].read_bytes()
        assert data_set_of_file(file) == data_set_bytes(instance, syntax)


def _study_keys() -> list[str]:
    return ["-k", "0008,0052=STUDY", "-k", f"0020,000D={STUDY}"]


@pytest.mark.parametrize(
    "uid", ["1.2.826." + "1" * 60, "1.2.840.3F.A0C", "6F9619FF-8B86-D011-B42D-00CF4FC964FF"]
)
@pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")
def test_irregular_uid_comes_from_storescu_and_goes_to_storescp_with_the_rest_of_its_study(
    archive_server: RunningArchive, folder: Path, tmp_path: Path, uid: str
) -> None:
    instances = [make_instance(StudyInstanceUID=STUDY), make_instance(StudyInstanceUID=STUDY)]
    add(instances[1], "SOPInstanceUID", uid)
    for number, instance in enumerate(instances):
        (tmp_path / f"{number}.dcm").write_bytes(part10(instance))
        sent = _run("storescu", *_peer(archive_server), tmp_path / f"{number}.dcm")
        assert sent.returncode == 0, sent.stderr
    with _storescp(folder, "+xa", "+B", "-uf") as port:
        register(archive_server.archive, "STORESCP", port)

        shown = _run("movescu", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(archive_server))

    assert shown.returncode == 0, shown.stderr
    received = {data_set_of_file(one.read_bytes()) for one in folder.iterdir()}
    assert received == {data_set_bytes(instance) for instance in instances}


def test_movescu_that_receives_itself(archive_server: RunningArchive, folder: Path) -> None:
    uids = store_study(archive_server, 3)
    port = closed_port()
    register(archive_server.archive, "DCMTK", port)

    shown = _run(
        "movescu",
        "-S",
        *_study_keys(),
        *("-aem", "DCMTK", "-od", folder, "--port", port),
        *_peer(archive_server),
    )

    assert shown.returncode == 0, shown.stderr
    assert sorted(dcmread(one).SOPInstanceUID for one in folder.iterdir()) == uids


def test_movescu_to_storescp_that_takes_implicit_only_gets_it_transcoded(
    archive_server: RunningArchive, folder: Path
) -> None:
    [instance] = make_study(1)
    deposit(archive_server.archive, instance, transfer_syntax_uid=ExplicitVRBigEndian)
    with _storescp(folder, "+xi") as port:
        register(archive_server.archive, "STORESCP", port)

        shown = _run("movescu", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(archive_server))

    assert shown.returncode == 0, shown.stderr
    [file] = folder.iterdir()
    received = dcmread(file)
    assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert received.PixelData == instance.PixelData


@pytest.mark.parametrize(
    ("prepare", "status"),
    [
        pytest.param(lambda archive: None, "0xa801", id="unknown"),
        pytest.param(
            lambda archive: register(archive, "STORESCP", closed_port()), "0xa702", id="unreachable"
        ),
    ],
)
def test_movescu_is_told_what_is_wrong_with_its_destination(
    archive_server: RunningArchive, prepare: Callable[[object], None], status: str
) -> None:
    store_study(archive_server, 2)
    prepare(archive_server.archive)

    shown = _run("movescu", "-d", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(archive_server))

    output = (shown.stdout + shown.stderr).lower()
    assert status in output
    assert "storescp" in output


def test_movescu_cancels_after_some_responses(archive_server: RunningArchive, folder: Path) -> None:
    store_study(archive_server, 150)
    with _storescp(folder, "--sleep-after", "0") as port:
        register(archive_server.archive, "STORESCP", port)

        _run(
            "movescu",
            *("-S", "--cancel", "1"),
            *_study_keys(),
            *("-aem", "STORESCP"),
            *_peer(archive_server),
        )
        wait_until(lambda: recorded(archive_server)[0].state is RetrieveState.FINISHED)

    record, operations = recorded(archive_server)
    assert record.outcome is not None
    assert record.outcome.status == 0xFE00
    assert record.outcome.remaining == 150 - len(operations) > 0


def test_getscu_receives_every_instance(archive_server: RunningArchive, folder: Path) -> None:
    instances = make_study(4)
    deposit(archive_server.archive, *instances)

    shown = _run("getscu", "-S", *_study_keys(), "-od", folder, "+B", *_peer(archive_server))

    assert shown.returncode == 0, shown.stderr
    received = {dcmread(one).SOPInstanceUID: one for one in folder.iterdir()}
    assert sorted(received) == uids_of(instances)
    for instance in instances:
        sent = data_set_of_file(received[instance.SOPInstanceUID].read_bytes())
        assert sent == stored_bytes(archive_server.archive, instance.SOPInstanceUID)


# Speed that can be told without a clock of great precision


def test_sender_with_nagles_algorithm_is_not_stalled(
    archive_server: RunningArchive, folder: Path
) -> None:
    for number, instance in enumerate(make_study(150)):
        (folder / f"{number}.dcm").write_bytes(part10(instance))
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    started = time.monotonic()

    subprocess.run(
        _command("storescu", "-xe", "+sd", *_peer(archive_server), folder),
        env=environment,
        check=True,
        capture_output=True,
        timeout=30,
    )

    # 40 ms for each delayed acknowledgement would be 6 s and more.
    assert time.monotonic() - started < 4.5


# TLS. Of DCMTK 3.6.7's tools movescu and getscu are without.


@pytest.fixture
def tls(authority: Authority) -> tuple[str | Path, ...]:
    """The options of a tool that shows a certificate and wants one (profile: Non-Downgrading BCP 195)."""
    peer = authority.issue("dcmtk")
    return ("+tls", peer.key, peer.certificate, "+cf", authority.certificate)


@pytest.fixture
def tls_server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """An archive that wants certificates of those that call with TLS, and lets the others be."""
    identity = authority.issue("archive-for-dcmtk")
    server = Server(
        settings(
            tmp_path,
            tls="optional",
            tls_certificate=identity.certificate,
            tls_key=identity.key,
            tls_ca=authority.certificate,
            tls_require_client_certificate=True,
        )
    )
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_echoscu_with_tls_is_answered(
    tls_server: Server, tls: tuple[str | Path, ...], profile: str
) -> None:
    shown = _run("echoscu", *tls, profile, *_peer(tls_server))

    assert shown.returncode == 0, shown.stderr


def test_echoscu_with_a_certificate_nobody_knows_is_refused(
    tls_server: Server, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "Strange CA").issue("stranger")

    shown = _run(
        *("echoscu", "+tls", stranger.key, stranger.certificate),
        *("+cf", authority.certificate, *_peer(tls_server)),
    )

    assert shown.returncode != 0
    wait_until(lambda: "unable to get local issuer certificate" in caplog.text)


def test_echoscu_with_old_ciphers_only_is_refused(
    tls_server: Server, tls: tuple[str | Path, ...], caplog: pytest.LogCaptureFixture
) -> None:
    shown = _run("echoscu", *tls, "+pa", *_peer(tls_server))

    assert shown.returncode != 0
    wait_until(lambda: "no cipher suite in common" in caplog.text)


def test_storescu_with_tls_sends_a_large_instance_byte_for_byte(
    tls_server: Server, tls: tuple[str | Path, ...], folder: Path
) -> None:
    (instance,) = make_study(1, PixelData=bytes(range(256)) * 20_000)
    (folder / "large.dcm").write_bytes(part10(instance))

    shown = _run("storescu", "-xe", *tls, *_peer(tls_server), folder / "large.dcm")

    assert shown.returncode == 0, shown.stderr
    assert stored_bytes(tls_server.archive, instance.SOPInstanceUID) == data_set_bytes(instance)


def test_movescu_to_storescp_with_tls_delivers_every_byte(
    tls_server: Server, tls: tuple[str | Path, ...], folder: Path
) -> None:
    instances = make_study(2, PixelData=bytes(range(256)) * 20_000)
    deposit(tls_server.archive, *instances)
    with _storescp(folder, "+xa", "+B", tls=tls) as port:
        register(tls_server.archive, "STORESCP", port, tls=True)

        shown = _run("movescu", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(tls_server))

    assert shown.returncode == 0, shown.stderr
    received = {str(dcmread(one).SOPInstanceUID): one.read_bytes() for one in folder.iterdir()}
    assert {uid: data_set_of_file(file) for uid, file in received.items()} == {
        str(one.SOPInstanceUID): data_set_bytes(one) for one in instances
    }


def test_movescu_to_storescp_whose_certificate_nobody_knows_fails(
    tls_server: Server, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = Authority(tmp_path, "Strange CA")
    stranger = strange.issue("stranger")
    deposit(tls_server.archive, *make_study(1))
    options = ("+tls", stranger.key, stranger.certificate, "+cf", strange.certificate)
    with _storescp(folder, tls=options) as port:
        register(tls_server.archive, "STORESCP", port, tls=True)

        shown = _run("movescu", "-d", "-S", *_study_keys(), "-aem", "STORESCP", *_peer(tls_server))

    assert "0xa702" in (shown.stdout + shown.stderr).lower()
    # storescp sends the certificate of its CA along.
    said = "the certificate is not valid: self-signed certificate in certificate"
    wait_until(lambda: said in caplog.text)
    assert list(folder.iterdir()) == []
