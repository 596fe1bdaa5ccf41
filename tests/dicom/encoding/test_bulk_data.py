"""Data sets without their bulk data (PS3.4 Z.1.3), in every encoding, and damaged ones."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.dicom.encoding.bulk_data import without_bulk_data
from pacs.dicom.encoding.part10 import file_meta, read_file_meta
from pacs.dicom.encoding.pieces import Literal, open_pieces
from pacs.errors import PacsError
from tests.factories import make_instance, part10

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def strip(file: bytes) -> Dataset:
    """What is left, decoded."""
    stream = BytesIO(file)
    meta = read_file_meta(stream)
    pieces = without_bulk_data(stream, meta.transfer_syntax_uid, meta.data_set_offset)
    head = file_meta(
        meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, source_ae=""
    )
    with open_pieces(stream, [Literal(head), *pieces]) as made:
        return dcmread(BytesIO(made.read()))


def make_waveform(*, undefined: bool) -> Dataset:
    """Two multiplex groups, the second one without samples, and an Item that only looks like one."""
    groups = []
    for number in range(2):
        group = Dataset()
        group.NumberOfWaveformSamples = 2
        channel = Dataset()
        channel.ChannelLabel = f"label {number}"
        group.ChannelDefinitionSequence = Sequence([channel])
        if number == 0:
            group.add_new(0x54001010, "OW", b"12345678")
        group.is_undefined_length_sequence_item = undefined
        groups.append(group)
    instance = make_instance()
    instance.WaveformSequence = Sequence(groups)
    instance["WaveformSequence"].is_undefined_length = undefined
    return instance


@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=["explicit", "implicit", "big endian"])
def test_samples_go_and_all_else_stays(syntax: str, undefined: bool) -> None:
    source = make_waveform(undefined=undefined)

    new = strip(part10(source, syntax))

    del source.PixelData
    del source.WaveformSequence[0].WaveformData
    assert new == source


def test_a_data_set_without_bulk_data_is_sent_as_it_is() -> None:
    source = make_instance()
    del source.PixelData
    file = part10(source)
    stream = BytesIO(file)
    meta = read_file_meta(stream)

    pieces = without_bulk_data(stream, meta.transfer_syntax_uid, meta.data_set_offset)

    with open_pieces(stream, pieces) as made:
        assert made.read() == file[meta.data_set_offset :]


def test_group_lengths_go_for_they_are_wrong_by_now() -> None:
    file = part10(make_instance())
    begin = 144 + int.from_bytes(file[140:144], "little")
    group_length = b"\x08\0\0\0UL\4\0\x40\1\0\0"

    new = strip(file[:begin] + group_length + file[begin:])

    assert 0x00080000 not in new
    assert new.SOPClassUID == make_instance().SOPClassUID


def test_disturbed_files_give_a_data_set_or_an_error_of_the_domain() -> None:
    sources = [part10(make_waveform(undefined=one), s) for one in (False, True) for s in SYNTAXES]
    generator = random.Random(7)
    for number in range(300):
        file = bytearray(sources[number % len(sources)])
        begin = 144 + int.from_bytes(file[140:144], "little")
        for _ in range(generator.randint(1, 4)):
            file[generator.randrange(begin, len(file))] = generator.choice((0, 1, 0x7F, 0xFF, 0xFE))
        stream = BytesIO(bytes(file))
        try:
            meta = read_file_meta(stream)
            pieces = without_bulk_data(stream, meta.transfer_syntax_uid, meta.data_set_offset)
        except PacsError:
            continue
        with open_pieces(stream, pieces) as made:
            assert len(made.read()) <= len(file) + 64
