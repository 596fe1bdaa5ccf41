"""DICOM files (PS3.10): write the File Meta Information, read it, read the indexed Attributes.

Nothing here reads Pixel Data, and nothing keeps a data set: what comes out are short texts.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from struct import Struct, pack
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset

from pacs.dicom.attributes import ATTRIBUTES, BY_TAG
from pacs.dicom.encoding.actual_syntax import HEAD_BYTES, is_data_set
from pacs.dicom.encoding.byte_source import ByteSource, StreamBytes
from pacs.dicom.encoding.completeness import read_whole
from pacs.dicom.encoding.data_set_reader import data_set_reader
from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_LITTLE,
    UNDEFINED_LENGTH,
    VRS,
    declared_encoding,
)
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.encoding.plain_elements import (
    Elements,
    PlainElement,
    as_element,
    is_plain,
    value_of,
)
from pacs.dicom.encoding.plain_values import SPECIFIC_CHARACTER_SET, texts_of
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.sop_classes import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs.dicom.text.character_sets import DEFAULT_CODECS, codecs_of, defined_terms
from pacs.dicom.text.values import index_value
from pacs.dicom.uids import command_uid, is_regular_uid, is_uid, uid_text
from pacs.errors import InstanceMismatch, InvalidInstance, NotDicom, StorageUnavailable

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E

_PREAMBLE_AND_PREFIX = bytes(128) + b"DICM"
_META_GROUP = b"\x02\x00"
_META_VERSION = b"\x00\x01"
_GROUP_LENGTH = Struct("<HH2sHL")
# A File Meta Information has a dozen elements; private ones of any number end the search.
_MAX_META_ELEMENTS = 1000

_WANTED = frozenset(
    [SPECIFIC_CHARACTER_SET, *(attribute.tag for attribute in ATTRIBUTES if attribute.is_stored)]
)
_LAST_WANTED = max(_WANTED)
_KEYWORDS = {attribute.tag: attribute.keyword for attribute in ATTRIBUTES}
#: Bounds the memory that remembered values take.
_REMEMBERED_BYTES = 128
_IDENTITY = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID})
_META_SOP_CLASS = 0x00020002
_META_SOP_INSTANCE = 0x00020003
TRANSFER_SYNTAX_UID = 0x00020010
_META_UIDS = frozenset({_META_SOP_CLASS, _META_SOP_INSTANCE, TRANSFER_SYNTAX_UID})
#: Transfer syntaxes that encode elements otherwise than the File Meta Information is.
_UNLIKE_META = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}) | DEFLATED
_SOURCE_AE = 0x00020016
_META_TEXTS = _META_UIDS | {_SOURCE_AE}


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a file says of itself before its data set."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    #: Bytes before the data set; 0 if the file is a bare data set.
    data_set_offset: int
    #: Whether those bytes are a preamble, prefix and File Meta Information that others can rely on.
    #: If not, the data set needs a new ``file_meta`` to become a DICOM file.
    is_part10: bool
    #: Source Application Entity Title (0002,0016); empty where the file has none.
    source_ae: str = ""


def file_meta(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae: str,
) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 7.1).

    Raises:
        InvalidInstance: one of the UIDs is not a UID.
    """
    before, after = _common_meta(sop_class_uid, transfer_syntax_uid, source_ae)
    elements = before + _meta_element(0x0003, b"UI", _padded_uid(sop_instance_uid)) + after
    group_length = _GROUP_LENGTH.pack(0x0002, 0x0000, b"UL", 4, len(elements))
    return _PREAMBLE_AND_PREFIX + group_length + elements


@lru_cache(maxsize=256)
def _common_meta(
    sop_class_uid: str, transfer_syntax_uid: str, source_ae: str
) -> tuple[bytes, bytes]:
    """What the instances of a series have in common: the elements before and after the instance's UID."""
    before = (
        pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, len(_META_VERSION)) + _META_VERSION,
        _meta_element(0x0002, b"UI", _padded_uid(sop_class_uid)),
    )
    after = (
        _meta_element(0x0010, b"UI", _padded_uid(transfer_syntax_uid)),
        _meta_element(0x0012, b"UI", _padded_uid(IMPLEMENTATION_CLASS_UID)),
        _meta_element(0x0013, b"SH", _padded_text(IMPLEMENTATION_VERSION_NAME)),
        _meta_element(0x0016, b"AE", _padded_text(source_ae)),
    )
    return b"".join(before), b"".join(after)


def read_file_meta(stream: BinaryIO, *, is_ours: bool = False) -> FileMeta:
    """Read what comes before the data set of a file, also of one that is not quite a DICOM file.

    Accepted: no preamble, a wrong or missing group length, missing elements, no File Meta
    Information at all. What is missing is taken from the data set, which must begin like one.
    ``is_ours`` says that ``file_meta`` wrote it: the group length is right, whatever follows.

    Raises:
        NotDicom: this is neither a DICOM file nor a bare data set.
        InvalidInstance: the File Meta Information cannot be read, or a UID is missing or is none.
        StorageUnavailable: the file cannot be read.
    """
    with _readable():
        source = StreamBytes(stream, 0)
        has_preamble = source.read_at(128, 4) == b"DICM"
        try:
            return _file_meta_of(stream, source, 132 if has_preamble else 0, is_ours=is_ours)
        except InvalidInstance as error:
            is_dicom = has_preamble or source.read_at(0, 2) == _META_GROUP
            if is_dicom or is_data_set(source.read_at(0, HEAD_BYTES)):
                raise
            raise NotDicom("This is neither a DICOM file nor a bare data set") from error


def _file_meta_of(stream: BinaryIO, source: ByteSource, start: int, *, is_ours: bool) -> FileMeta:
    group = _read_meta_group(source, start, is_ours=is_ours)
    meta, offset = group.texts, group.end
    transfer_syntax = meta.get(TRANSFER_SYNTAX_UID) or _guess_transfer_syntax(source, offset)
    # Nothing can be made of a transfer syntax that is none, and no peer could be offered it.
    if not is_regular_uid(transfer_syntax):
        raise InvalidInstance(f"TransferSyntaxUID is not a UID, {transfer_syntax[:64]!a}")
    sop_class, sop_instance = meta.get(_META_SOP_CLASS, ""), meta.get(_META_SOP_INSTANCE, "")
    if not (is_uid(sop_class) and is_uid(sop_instance)):
        found = read_identity(stream, transfer_syntax, offset)
        sop_class, sop_instance = found[0] or sop_class, found[1] or sop_instance
        require_uid(SOP_CLASS_UID, sop_class)
        require_uid(SOP_INSTANCE_UID, sop_instance)
    is_complete = meta.keys() >= _META_UIDS
    return FileMeta(
        transfer_syntax,
        sop_class,
        sop_instance,
        data_set_offset=offset,
        is_part10=start > 0 and is_complete and group.ends_as_it_says,
        source_ae=_ae_title(meta.get(_SOURCE_AE, "")),
    )


def read_identity(
    stream: BinaryIO, transfer_syntax_uid: str, data_set_offset: int
) -> tuple[str, str]:
    """The SOP Class and SOP Instance UID that a data set begins with; empty where it has none.

    They are not checked; ``read_header`` does that. The data set may be cut off after them.

    Raises:
        InvalidInstance: the bytes before them are not those of a data set.
        StorageUnavailable: the file cannot be read.
    """
    with _readable():
        elements = _read_elements(
            stream, transfer_syntax_uid, data_set_offset, _IDENTITY, SOP_INSTANCE_UID
        )
    return _uid_of(elements, SOP_CLASS_UID), _uid_of(elements, SOP_INSTANCE_UID)


def read_header(
    stream: BinaryIO, transfer_syntax_uid: str, data_set_offset: int, *, may_be_cut: bool = False
) -> InstanceHeader:
    """Read the identity of an instance and the values of its indexed Attributes, wherever they are.

    Memory and time are bounded, whatever the bytes are. No warning is issued, and any number of
    threads may read at once. With ``may_be_cut``, what is wrong behind the last indexed Attribute, and behind
    the beginning of encapsulated Pixel Data, does not matter.

    Raises:
        InstanceMismatch: SOP Class UID or SOP Instance UID is missing.
        IncompleteInstance: the data set ends too early (``pacs.dicom.encoding.completeness``).
        InvalidInstance: the data set cannot be read, or lacks the Study or Series Instance UID, or one of
            the four is not a UID.
        StorageUnavailable: the file cannot be read.
    """
    lacking: str | None = None
    if may_be_cut:
        with _readable():
            reader, encoding = data_set_reader(stream, transfer_syntax_uid, data_set_offset)
            elements = reader.gathered(encoding, _WANTED, _LAST_WANTED)
    else:
        elements, lacking = read_whole(stream, transfer_syntax_uid, data_set_offset, _WANTED)
    stated = elements.get(SPECIFIC_CHARACTER_SET)
    codecs: tuple[str, ...] = DEFAULT_CODECS
    if stated:
        terms = defined_terms(texts_of(as_element(SPECIFIC_CHARACTER_SET, stated)))
        codecs = codecs_of(terms)
    values: dict[str, str] = {}
    for tag, element in elements.items():
        if tag not in _KEYWORDS:
            continue
        if is_plain(element) and len(element[1]) <= _REMEMBERED_BYTES:
            text = _remembered_text(tag, element, codecs)
        else:
            text = index_value(as_element(tag, element), codecs)
        if text:
            values[_KEYWORDS[tag]] = text
    return InstanceHeader(
        sop_class_uid=_identifying(elements, SOP_CLASS_UID),
        sop_instance_uid=_identifying(elements, SOP_INSTANCE_UID),
        series_instance_uid=_identifying(elements, SERIES_INSTANCE_UID),
        study_instance_uid=_identifying(elements, STUDY_INSTANCE_UID),
        transfer_syntax_uid=transfer_syntax_uid,
        values=values,
        lacking=lacking,
    )


def read_elements(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    data_set_offset: int,
    tags: Container[int],
    last: int,
) -> tuple[Elements, frozenset[int]]:
    """The elements of a data set with one of these tags, none above ``last``, and the tags of those left out.

    They may be out of order, but not behind more than a few fragments: each could be a read of the disk.

    Left out is what is no use in memory: bulk data in fragments, sequences larger than any code sequence.

    Raises:
        InvalidInstance: the data set cannot be read so far.
        StorageUnavailable: the file cannot be read.
    """
    with _readable():
        reader, encoding = data_set_reader(stream, transfer_syntax_uid, data_set_offset)
        elements = reader.gathered(encoding, tags, last)
    return elements, frozenset(reader.left_out)


def read_identifier(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    """Read an encoded Identifier that is not deflated, all of it; text stays in bytes until its character set is known.

    Raises:
        InvalidInstance: the bytes are no data set.
    """
    reader = ElementReader(StreamBytes(BytesIO(encoded), 0), maximum_value_bytes=len(encoded))
    return reader.every(reader.encoding_at(0, declared_encoding(transfer_syntax_uid)))


def check_identity(header: InstanceHeader, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Check that a data set is the SOP Instance that its C-STORE request names (PS3.4 B.2.3).

    The request may name a longer UID than the Standard allows by its first 64 characters.

    Raises:
        InstanceMismatch: it is not; ``offending`` has the tags that differ.
    """
    offending: tuple[int, ...] = ()
    if header.sop_class_uid != sop_class_uid:
        offending += (SOP_CLASS_UID,)
    if sop_instance_uid not in {header.sop_instance_uid, command_uid(header.sop_instance_uid)}:
        offending += (SOP_INSTANCE_UID,)
    if offending:
        raise InstanceMismatch(offending=offending)


@lru_cache(maxsize=4096)
def _remembered_text(tag: int, element: PlainElement, codecs: tuple[str, ...]) -> str | None:
    # The instances of a series have most of their values in common.
    return index_value(as_element(tag, element), codecs)


def _meta_element(number: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", 0x0002, number, vr, len(value)) + value if value else b""


def _padded_uid(uid: str) -> bytes:
    if not is_uid(uid):
        raise InvalidInstance(f"{uid[:64]!r} is not a UID")
    encoded = uid.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)


def _padded_text(text: str) -> bytes:
    encoded = _ae_title(text).encode("ascii")
    return encoded + b" " * (len(encoded) % 2)


def _ae_title(text: str) -> str:
    # At most 16 characters of the default repertoire without backslash (PS3.5 6.2), whatever came.
    return re.sub(r"[^ -\[\]-~]", "?", text.strip())[:16].rstrip()


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"The file cannot be read: {error.strerror}") from error


class _MetaGroup(NamedTuple):
    texts: dict[int, str]
    #: The position after the group.
    end: int
    #: Whether its group length agrees.
    ends_as_it_says: bool


def _read_meta_group(source: ByteSource, start: int, *, is_ours: bool) -> _MetaGroup:
    # The group ends where its length says. Without one, or with one that leads nowhere, it ends where its tags stop
    # ascending: a data set may have elements of this group too (they have no business there, but are to be kept).
    length, first = _group_length(source, start)
    if length is not None:
        texts, end = _read_meta_elements(source, first, first + length)
        if end == first + length and (is_ours or not _goes_on(source, texts, end)):
            return _MetaGroup(texts, end, ends_as_it_says=True)
    texts, end = _read_meta_elements(source, first, None)
    return _MetaGroup(texts, end, length is not None and end == first + length)


def _group_length(source: ByteSource, start: int) -> tuple[int | None, int]:
    # What the group says of its length, and the position of the first element that this counts.
    head = source.read_at(start, _GROUP_LENGTH.size)
    if len(head) == _GROUP_LENGTH.size:
        *element, length = _GROUP_LENGTH.unpack(head)
        if element == [0x0002, 0x0000, b"UL", 4]:
            return length, start + len(head)
    return None, start


def _goes_on(source: ByteSource, texts: dict[int, str], end: int) -> bool:
    # Tools add elements without counting them. So the group does not end before it names its instance, nor where
    # the next element is encoded as the group is and the data set is not.
    head = source.read_at(end, 6)
    if head[:2] != _META_GROUP:
        return False
    if not texts.keys() >= _META_UIDS:
        return True
    return texts[TRANSFER_SYNTAX_UID] in _UNLIKE_META and head[4:6] in VRS


def _read_meta_elements(
    source: ByteSource, start: int, end: int | None
) -> tuple[dict[int, str], int]:
    reader = ElementReader(source)
    texts: dict[int, str] = {}
    position, previous = start, 0
    for _ in range(_MAX_META_ELEMENTS):
        if source.read_at(position, 2) != _META_GROUP or (end is not None and position >= end):
            return texts, position
        header = reader.header(position, EXPLICIT_LITTLE)
        if end is None and header.tag <= previous:
            return texts, position
        if header.length == UNDEFINED_LENGTH:
            break
        value = reader.value(header)
        if header.tag in _META_TEXTS and value:
            texts[header.tag] = uid_text(value)
        position, previous = header.value_at + header.length, header.tag
    raise InvalidInstance("The File Meta Information cannot be read")


def _guess_transfer_syntax(source: ByteSource, offset: int) -> str:
    # The first group of a data set is 0008, so its other byte tells the byte order.
    if source.read_at(offset, 2)[:1] == b"\0":
        return EXPLICIT_VR_BIG_ENDIAN
    encoding = ElementReader(source).encoding_at(offset, EXPLICIT_LITTLE)
    return IMPLICIT_VR_LITTLE_ENDIAN if encoding.is_implicit else EXPLICIT_VR_LITTLE_ENDIAN


def _read_elements(
    stream: BinaryIO, transfer_syntax_uid: str, offset: int, tags: frozenset[int], last: int
) -> Elements:
    reader, encoding = data_set_reader(stream, transfer_syntax_uid, offset)
    return reader.wanted(encoding, tags, last)


def require_uid(tag: int, uid: str) -> None:
    """Check the value of an Attribute that names the instance or one of its parents.

    Raises:
        InstanceMismatch: the SOP Class or SOP Instance UID is empty.
        InvalidInstance: another one is empty, or this is no UID.
    """
    if is_uid(uid):
        return
    if uid:
        raise InvalidInstance(f"{BY_TAG[tag].keyword} is not a UID, {uid[:64]!a}")
    message = f"The data set has no {BY_TAG[tag].keyword}"
    if tag in _IDENTITY:
        raise InstanceMismatch(message, offending=(tag,))
    raise InvalidInstance(message)


def _identifying(elements: Elements, tag: int) -> str:
    # From the bytes themselves: a UID that an index value would show cleaned names something else.
    uid = _uid_of(elements, tag)
    require_uid(tag, uid)
    return uid


def _uid_of(elements: Elements, tag: int) -> str:
    element = elements.get(tag)
    value = value_of(element) if element else None
    return uid_text(value) if isinstance(value, bytes) else ""
