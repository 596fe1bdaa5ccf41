"""Instances that are sent but not stored: frames of one (PS3.4 Y.3.3), or one without its bulk data (PS3.4 Z.1.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import BinaryIO, NamedTuple

from pacs.archive.archive import Archive
from pacs.archive.retrieve import OutgoingInstance, outgoing, plan
from pacs.dicom.bulk_data import without_bulk_data
from pacs.dicom.frame_extraction import extract_frames
from pacs.dicom.frame_selection import FrameSelection
from pacs.dicom.identifier import Query
from pacs.dicom.information_model import InformationModel
from pacs.dicom.layout import inflated
from pacs.dicom.part10 import file_meta
from pacs.dicom.pieces import Literal, Piece, open_pieces, total_size
from pacs.dicom.sop_classes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs.errors import PacsError
from pacs.index.records import RetrievePlan, StoredInstance

_UNCOMPRESSED = frozenset(
    {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}
)


@dataclass(frozen=True, slots=True)
class _Derived:
    """Makes the file of pieces whenever the instance is opened."""

    open_source: Callable[[], BinaryIO]
    pieces: list[Piece]

    def open(self, location: str) -> BinaryIO:  # noqa: ARG002 - there is one file
        return open_pieces(self.open_source(), self.pieces)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """An instance that cannot be derived: its sub-operation fails when it is opened."""

    error: PacsError

    def open(self, location: str) -> BinaryIO:  # noqa: ARG002 - there is no file
        raise self.error


class Prepared(NamedTuple):
    """What a retrieve sends."""

    plan: RetrievePlan
    instances: Iterator[OutgoingInstance]


def prepare(archive: Archive, query: Query, limit: int = 0) -> Prepared:
    """Find the instances that ``query`` asks for, and derive from them what its model and level want.

    Raises:
        IndexUnavailable, LimitExceeded: as for ``plan``.
        FramesNotFound, InstanceNotCreatable, FramesNotExtractable, NotTimeBased, InvalidFrameRequest,
            StorageUnavailable: frames are asked for; with the UID of the source in ``failed_uids``.
    """
    retrieve_plan = plan(archive, query, limit)
    instances = outgoing(archive, retrieve_plan)
    if query.frames is not None:
        derived = [_extract(one, query.frames) for one in instances]
        contexts = {(one.sop_class_uid, one.transfer_syntax_uid): 1 for one in derived}
        return Prepared(replace(retrieve_plan, contexts=contexts), iter(derived))
    if query.model is InformationModel.WITHOUT_BULK_DATA:
        return Prepared(_stripped_contexts(retrieve_plan), _stripped(instances))
    return Prepared(retrieve_plan, instances)


def _extract(source: OutgoingInstance, selection: FrameSelection) -> OutgoingInstance:
    uid = source.sop_instance_uid
    try:
        open_source, syntax, offset = _readable(source)
        with open_source() as stream:
            extraction = extract_frames(stream, syntax, offset, uid, selection)
    except PacsError as error:
        error.failed_uids = (uid,)
        raise
    return _derived(source, open_source, syntax, extraction.sop_instance_uid, extraction.pieces)


def _stripped(instances: Iterator[OutgoingInstance]) -> Iterator[OutgoingInstance]:
    """The instances without their bulk data; one that cannot be read fails alone, when it is sent."""
    for instance in instances:
        try:
            yield _strip(instance)
        except PacsError as error:
            yield replace(instance, storage=_Unreadable(error))


def _stripped_contexts(retrieve_plan: RetrievePlan) -> RetrievePlan:
    """The plan with the transfer syntaxes that ``_stripped`` leaves."""
    contexts: dict[tuple[str, str], int] = {}
    for (sop_class, syntax), count in retrieve_plan.contexts.items():
        pair = sop_class, _without_pixels(syntax)
        contexts[pair] = contexts.get(pair, 0) + count
    return replace(retrieve_plan, contexts=contexts)


def _strip(source: OutgoingInstance) -> OutgoingInstance:
    open_source, syntax, offset = _readable(source)
    with open_source() as stream:
        pieces = without_bulk_data(stream, syntax, offset)
    return _derived(source, open_source, _without_pixels(syntax), source.sop_instance_uid, pieces)


def _without_pixels(transfer_syntax_uid: str) -> str:
    # What is left of any other is Explicit VR Little Endian (PS3.5 A.4, 10.1), which every receiver knows,
    # whatever codecs it has.
    return (
        transfer_syntax_uid if transfer_syntax_uid in _UNCOMPRESSED else EXPLICIT_VR_LITTLE_ENDIAN
    )


def _readable(source: OutgoingInstance) -> tuple[Callable[[], BinaryIO], str, int]:
    """How to open the source at any position, its transfer syntax then, and where its data set begins."""
    with source.open_file() as stream:
        offset = source.stored.data_set_offset
        readable, syntax, begin = inflated(stream, source.transfer_syntax_uid, offset)
        if readable is stream:
            return source.open_file, syntax, begin
        data = readable.read()
    return partial(BytesIO, data), syntax, begin


def _derived(
    source: OutgoingInstance,
    open_source: Callable[[], BinaryIO],
    transfer_syntax_uid: str,
    sop_instance_uid: str,
    pieces: list[Piece],
) -> OutgoingInstance:
    meta = file_meta(source.sop_class_uid, sop_instance_uid, transfer_syntax_uid, source_ae="")
    stored: StoredInstance = replace(
        source.stored,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        data_set_offset=len(meta),
        data_set_size=total_size(pieces),
    )
    return OutgoingInstance(stored, _Derived(open_source, [Literal(meta), *pieces]))
