"""An instance that is replaced between its turn and the opening of its file."""

from __future__ import annotations

from array import array

import pytest

from pacs.archive.archive import Archive
from pacs.archive.retrieve import OutgoingInstance, outgoing
from pacs.errors import StorageUnavailable
from pacs.model.retrieves import RetrievePlan
from tests.archive.holdings import keep, make_slice

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


def first_outgoing(archive: Archive) -> OutgoingInstance:
    stored = archive.index.find_by_uid("1.2.3.1.1")
    assert stored is not None
    return next(outgoing(archive, RetrievePlan(keys=array("q", [stored.key]), contexts={})))


def test_instance_replaced_in_the_same_class_is_opened_as_it_is_now(archive: Archive) -> None:
    keep(archive, make_slice(SOPClassUID=CT_IMAGE))
    instance = first_outgoing(archive)
    keep(archive, make_slice(SOPClassUID=CT_IMAGE, InstanceNumber=77))
    now = archive.index.find_by_uid("1.2.3.1.1")
    assert now is not None

    with instance.open_file() as stream:
        assert stream.read() == archive.storage.path(now.location).read_bytes()
    assert instance.stored == now


def test_instance_replaced_in_another_class_is_not_opened(archive: Archive) -> None:
    keep(archive, make_slice(SOPClassUID=CT_IMAGE))
    instance = first_outgoing(archive)
    keep(archive, make_slice(SOPClassUID=MR_IMAGE))

    with pytest.raises(StorageUnavailable, match=r"^Replaced in another class or syntax just now$"):
        instance.open_file()
