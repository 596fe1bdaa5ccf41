"""Instances that are sent but not stored: frames of one (PS3.4 Y.3.3), or one without its bulk data (PS3.4 Z.1.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import BinaryIO, NamedTuple

from pacs.archive.archive import Archive
from pacs.archive.retrieve import OutgoingInstance, Source, outgoing, plan
from pacs.dicom.encoding.bulk_data import without_bulk_data
from pacs.dicom.encoding.layout import inflated
from pacs.dicom.encoding.part10 import file_meta
from pacs.dicom.encoding.pieces import Literal, Piece, open_pieces, total_size
from pacs.dicom.frames.frame_extraction import extract_frames
from pacs.dicom.frames.frame_selection import FrameSelection
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import Query
from pacs.dicom.sop_classes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs.errors import PacsError, StorageUnavailable
from pacs.model.instances import StoredInstance
from pacs.model.retrieves import RetrievePlan
from pacs.storage.faults import is_missing

#: A source may be replaced between two looks at it.
_LOOKS = 5
_UNCOMPRESSED = frozenset(
    {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}
)


@dataclass(frozen=True, slots=True)
class _Derived:
    """Makes the file of pieces whenever the instance is opened; they are of one stored file and of no other."""

    source: Source
    open_source: Callable[[], BinaryIO]
    pieces: list[Piece]

    def has(self, location: str) -> bool:
        return self.source.has(location)

    def open(self, location: str) -> BinaryIO:  # noqa: ARG002 - there is one file
        return open_pieces(self.open_source(), self.pieces)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """An instance that cannot be derived: its sub-operation fails when it is opened."""

    error: PacsError

    def has(self, location: str) -> bool:  # noqa: ARG002 - there is no file
        return True

    def open(self, location: str) -> BinaryIO:  # noqa: ARG002 - there is no file
        raise self.error


class _Readable(NamedTuple):
    """How to open a source at any position, its transfer syntax then, and where its data set begins."""

    open: Callable[[], BinaryIO]
    syntax: str
    begin: int


class _Made(NamedTuple):
    """An instance made of another one: its UID, transfer syntax and data set."""

    sop_instance_uid: str
    syntax: str
    pieces: list[Piece]


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

    def frames(readable: _Readable) -> _Made:
        with readable.open() as stream:
            extraction = extract_frames(stream, readable.syntax, readable.begin, uid, selection)
        return _Made(extraction.sop_instance_uid, readable.syntax, extraction.pieces)

    try:
        return _derived(source, frames)
    except PacsError as error:
        error.failed_uids = (uid,)
        raise


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
    def without(readable: _Readable) -> _Made:
        with readable.open() as stream:
            pieces = without_bulk_data(stream, readable.syntax, readable.begin)
        return _Made(source.sop_instance_uid, _without_pixels(readable.syntax), pieces)

    return _derived(source, without)


def _without_pixels(transfer_syntax_uid: str) -> str:
    # What is left of any other is Explicit VR Little Endian (PS3.5 A.4, 10.1), which every receiver knows,
    # whatever codecs it has.
    return (
        transfer_syntax_uid if transfer_syntax_uid in _UNCOMPRESSED else EXPLICIT_VR_LITTLE_ENDIAN
    )


def _readable(source: OutgoingInstance) -> _Readable:
    with source.open_file() as stream:
        stored = source.stored
        readable, syntax, begin = inflated(
            stream, source.transfer_syntax_uid, stored.data_set_offset
        )
        if readable is stream:
            # This file and no other: ``source`` may come to be another one.
            return _Readable(partial(source.storage.open, stored.location), syntax, begin)
        data = readable.read()
    return _Readable(partial(BytesIO, data), syntax, begin)


def _derived(source: OutgoingInstance, make: Callable[[_Readable], _Made]) -> OutgoingInstance:
    """What is made of an instance as it is now, and will be made again if it is replaced before it is sent."""
    for look in range(_LOOKS):
        readable = _readable(source)
        try:
            made = make(readable)
            break
        except StorageUnavailable as error:
            # It was replaced in between; opening it again tells.
            if not is_missing(error) or look == _LOOKS - 1:
                raise
    meta = file_meta(source.sop_class_uid, made.sop_instance_uid, made.syntax, source_ae="")
    stored: StoredInstance = replace(
        source.stored,
        sop_instance_uid=made.sop_instance_uid,
        transfer_syntax_uid=made.syntax,
        data_set_offset=len(meta),
        data_set_size=total_size(made.pieces),
    )

    def look_up() -> OutgoingInstance | None:
        now = source.look_up()
        return None if now is None else _derived(now, make)

    storage = _Derived(source.storage, readable.open, [Literal(meta), *made.pieces])
    return OutgoingInstance(stored, storage, look_up)
