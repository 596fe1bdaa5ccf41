from __future__ import annotations

import errno
import os

import pytest

from pacs.errors import PacsError, StorageFull, StorageUnavailable
from pacs.storage.faults import storage_faults


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
        (errno.ENOENT, StorageUnavailable),
    ],
)
def test_storage_faults_operating_system_error_becomes_a_domain_error(
    number: int, expected: type[PacsError]
) -> None:
    cause = OSError(number, os.strerror(number))

    with (
        pytest.raises(expected, match=f"Cannot write: {os.strerror(number)}") as caught,
        storage_faults("write"),
    ):
        raise cause

    assert type(caught.value) is expected
    assert caught.value.__cause__ is cause


def test_storage_faults_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), storage_faults("write"):
        raise ZeroDivisionError
