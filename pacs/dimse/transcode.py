"""Convert a stored instance when a destination does not accept its transfer syntax.

Between uncompressed syntaxes the data set is encoded anew; compressed Pixel Data are decompressed by pydicom
with whatever decoders are installed. Nothing is ever compressed, and nothing stored is changed.
"""

from __future__ import annotations

from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: What is proposed beside the stored transfer syntax, in order of preference.
FALLBACK_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
#: Bytes of one unit of the VRs that pydicom keeps as raw bytes, for the change of byte order (PS3.5 6.2).
_UNIT_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


class NotTranscodable(Exception):
    """The instance cannot be converted to the accepted transfer syntax."""


def transcode(stream: BinaryIO, transfer_syntax: str) -> bytes:
    """Decode the Part 10 file in ``stream`` and encode its data set in ``transfer_syntax``.

    Needs memory for the whole instance.

    Raises:
        NotTranscodable: it cannot be decoded, decompressed or encoded.
    """
    target = UID(transfer_syntax)
    source = "its transfer syntax"
    try:
        dataset = dcmread(stream)
        stored = dataset.file_meta.TransferSyntaxUID
        source = stored.name
        if stored.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)
        elif not stored.is_little_endian:
            dataset.walk(_swap_bytes)
        encoded = encode(
            dataset, target.is_implicit_VR, target.is_little_endian, target.is_deflated
        )
    except Exception as error:
        raise NotTranscodable(f"Cannot convert from {source} to {target.name}: {error}") from error
    if encoded is None:
        raise NotTranscodable(f"Cannot convert from {source} to {target.name}")
    return encoded


def _swap_bytes(_: Dataset, element: DataElement) -> None:
    unit = _UNIT_BYTES.get(element.VR)
    value = element.value
    if unit is None or not isinstance(value, bytes) or len(value) % unit:
        return
    swapped = bytearray(len(value))
    for position in range(unit):
        swapped[position::unit] = value[unit - 1 - position :: unit]
    element.value = bytes(swapped)
