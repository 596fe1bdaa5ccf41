"""Every domain error has a status in every service (PS3.7 C, PS3.4 B.2.3, C.4)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs import errors
from pacs.dimse.status import STATUS_OF, DimseService, Status, error_comment, status_of


def _leaves(error: type[errors.PacsError]) -> Iterator[type[errors.PacsError]]:
    yield error
    for one in error.__subclasses__():
        yield from _leaves(one)


ERRORS = [one for one in _leaves(errors.PacsError) if one.__module__ == "pacs.errors"]


@pytest.mark.parametrize("service", DimseService)
@pytest.mark.parametrize("error", ERRORS)
def test_error_has_a_failure_status_and_a_comment(
    error: type[errors.PacsError], service: DimseService
) -> None:
    status = status_of(error(), service)

    assert status.Status not in (Status.SUCCESS, Status.PENDING, Status.WARNING_SUB_OPERATIONS)
    assert 0 < len(status.ErrorComment) <= 64


@pytest.mark.parametrize(
    ("error", "service", "expected"),
    [
        (errors.StorageFull(), DimseService.STORE, 0xA700),
        (errors.IndexUnavailable(), DimseService.STORE, 0xA700),
        (errors.IndexUnavailable(), DimseService.FIND, 0xA700),
        (errors.IndexUnavailable(), DimseService.MOVE, 0xA701),
        (errors.StorageUnavailable(), DimseService.GET, 0xA702),
        (errors.DestinationUnreachable(), DimseService.MOVE, 0xA702),
        (errors.InvalidIdentifier(), DimseService.FIND, 0xA900),
        (errors.InstanceMismatch(), DimseService.STORE, 0xA900),
        (errors.NotAuthorised(), DimseService.GET, 0x0124),
        (errors.PacsError(), DimseService.MOVE, 0xC000),
    ],
)
def test_error_has_the_status_of_the_standard(
    error: errors.PacsError, service: DimseService, expected: int
) -> None:
    assert status_of(error, service).Status == expected


def test_offending_elements_are_told() -> None:
    error = errors.InvalidIdentifier("no", offending=(0x00100010, 0x00100020))

    assert list(status_of(error, DimseService.FIND).OffendingElement) == [0x00100010, 0x00100020]


def test_no_table_knows_an_error_that_is_gone() -> None:
    for table in STATUS_OF.values():
        assert set(table) == set(ERRORS)


@given(st.text(max_size=200))
def test_comment_fits_its_vr_whatever_the_text(text: str) -> None:
    comment = error_comment(text)

    assert len(comment) <= 64
    assert comment.isascii()
    assert "\\" not in comment


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("short enough: as it is", "short enough: as it is"),
        (
            "Cannot convert from JPEG Baseline (Process 1) to Implicit VR Little Endian: a frame: no",
            "a frame: no",
        ),
        (
            "CT Image Storage in Explicit VR Little Endian: DEST accepts no presentation context",
            "DEST accepts no presentation context",
        ),
        ("a" * 70, "a" * 61 + "..."),
        ("This is no UID: " + "1" * 70, "This is no UID: " + "1" * 45 + "..."),
        ("x" * 70 + ": No frame: " + "b" * 70, "No frame: " + "b" * 51 + "..."),
        ("two\r\nlines", "two/x0d/x0alines"),
        ("Gr\u00f6\u00dfe \\ 1", "Gr??e / 1"),
    ],
)
def test_comment_that_is_too_long_keeps_the_reason(text: str, comment: str) -> None:
    assert error_comment(text) == comment
