"""What a choice of frames makes of a multi-frame instance (PS3.4 Y.3.3), read by pydicom and checked by dciodvfy."""

from __future__ import annotations

import random
import shutil
import subprocess
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from pacs.dicom.encoding.part10 import file_meta, read_file_meta
from pacs.dicom.encoding.pieces import Literal, open_pieces
from pacs.dicom.frames.frame_extraction import extract_frames
from pacs.dicom.frames.frame_selection import FrameSelection
from pacs.errors import FramesNotExtractable, InstanceNotCreatable, PacsError
from tests.factories import part10
from tests.multiframe import (
    big_endian_file,
    encapsulated_frame,
    make_encapsulated,
    make_multiframe,
    native_frames,
    wanted,
    with_functional_groups,
)

DCIODVFY = shutil.which("dciodvfy")
_DISTURBANCES = 300


def extract(file: bytes, *frames: int) -> Dataset:
    """The new instance, decoded."""
    return dcmread(BytesIO(extract_file(BytesIO(file), *frames)))


def extract_file(stream: BinaryIO, *frames: int) -> bytes:
    """The DICOM file of the new instance."""
    meta = read_file_meta(stream)
    syntax = meta.transfer_syntax_uid
    extraction = extract_frames(
        stream,
        syntax,
        meta.data_set_offset,
        meta.sop_instance_uid,
        FrameSelection("SimpleFrameList", frames),
    )
    head = file_meta(meta.sop_class_uid, extraction.sop_instance_uid, syntax, source_ae="")
    with open_pieces(stream, [Literal(head), *extraction.pieces]) as made:
        data = made.read()
    assert len(data) == len(head) + extraction.size
    return data


# Attributes


def test_all_that_does_not_depend_on_the_frames_stays() -> None:
    source = make_multiframe(4)
    source.add_new(0x00091001, "LO", "private")
    source.ConcatenationUID = "1.2.3"
    source.InConcatenationNumber = 1
    source.SmallestImagePixelValue = 0
    source.EffectiveDuration = 1.0
    source.InstanceCreatorUID = "1.2"
    source.InstanceCreationDate = "19990101"

    new = extract(part10(source), 1, 2)

    changed = {
        "SOPInstanceUID",
        "NumberOfFrames",
        "PixelData",
        "InstanceCreationDate",
        "ConcatenationUID",
        "InConcatenationNumber",
        "SmallestImagePixelValue",
        "EffectiveDuration",
        "InstanceCreatorUID",
    }
    for element in source:
        if element.keyword not in changed and not element.tag.is_private:
            assert new[element.tag] == element
    added = {new[tag].keyword for tag in new.keys() - source.keys()}
    assert added == {
        "InstanceCreationTime",
        "FrameExtractionSequence",
        "ContributingEquipmentSequence",
    }
    gone = {source[tag].keyword for tag in source.keys() - new.keys()}
    assert gone == changed - {
        "SOPInstanceUID",
        "NumberOfFrames",
        "PixelData",
        "InstanceCreationDate",
    } | {""}
    assert new.InstanceCreationDate != "19990101"
    assert list(new.keys()) == sorted(new.keys())


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([1, 2, 3], {"FrameTime": 40, "CineRate": 25}),
        ([3, 4], {"FrameTime": 40, "FrameDelay": 80, "CineRate": 25}),
        ([2, 4, 6], {"FrameTime": 80, "FrameDelay": 40}),
        ([5], {"FrameTime": 40, "FrameDelay": 160, "CineRate": 25}),
        ([1, 2, 5], {"FrameTimeVector": [0, 40, 120], "FrameIncrementPointer": 0x00181065}),
    ],
    ids=["consecutive", "later", "evenly spaced", "one", "uneven"],
)
def test_frame_time_is_that_of_the_frames_left(
    frames: list[int], expected: dict[str, object]
) -> None:
    new = extract(part10(make_multiframe(6, CineRate=25)), *frames)

    keywords = {"FrameTime", "FrameTimeVector", "FrameDelay", "CineRate"}
    found = {keyword: new[keyword].value for keyword in keywords if keyword in new}
    pointer = expected.pop("FrameIncrementPointer", 0x00181063)
    assert found == expected
    assert new.FrameIncrementPointer == pointer


def test_frame_time_vector_keeps_the_distances() -> None:
    source = make_multiframe(
        4, FrameTime=None, FrameTimeVector=["0", "10", "20", "30"], FrameIncrementPointer=0x00181065
    )

    new = extract(part10(source), 2, 4)

    assert new.FrameTimeVector == [0, 50]
    assert new.FrameDelay == 10


def test_vectors_follow_their_frames() -> None:
    source = make_multiframe(
        3,
        SliceLocationVector=["1.50", "2.50", "3.50"],
        DetectorVector=[1, 2, 3],
        PositionerPrimaryAngleIncrement=["0", "5", "10"],
        TableVerticalIncrement=["7"],
    )

    new = extract(part10(source), 1, 3)

    assert [str(value) for value in new.SliceLocationVector] == ["1.50", "3.50"]
    assert new.DetectorVector == [1, 3]
    assert new.PositionerPrimaryAngleIncrement == [0, 10]
    assert new.TableVerticalIncrement == 7


def test_frames_named_by_number_are_renumbered_or_go() -> None:
    source = make_multiframe(
        6,
        RepresentativeFrameNumber=4,
        StartTrim=2,
        StopTrim=5,
        FrameNumbersOfInterest=[2, 3, 6],
        FrameOfInterestType=["HIGHMI", "RWAVE", "TRIGGER"],
    )

    kept = extract(part10(source), 1, 4, 6)
    gone = extract(part10(source), 1)

    assert kept.RepresentativeFrameNumber == 2
    assert (kept.StartTrim, kept.StopTrim) == (2, 2)
    assert kept.FrameNumbersOfInterest == 3
    assert kept.FrameOfInterestType == "TRIGGER"
    assert not {
        "RepresentativeFrameNumber",
        "StartTrim",
        "StopTrim",
        "FrameNumbersOfInterest",
        "FrameOfInterestType",
    } & {element.keyword for element in gone}


def test_masks_follow_their_frames() -> None:
    def mask(operation: str, **keywords: list[int]) -> Dataset:
        item = Dataset()
        item.MaskOperation = operation
        for keyword, value in keywords.items():
            setattr(item, keyword, value)
        return item

    source = make_multiframe(6, RecommendedViewingMode="SUB")
    source.MaskSubtractionSequence = [
        mask("AVG_SUB", MaskFrameNumbers=[2, 3], ApplicableFrameRange=[1, 2, 4, 6]),
        mask("AVG_SUB", MaskFrameNumbers=[1, 2]),
        mask("TID", ApplicableFrameRange=[1, 1]),
    ]

    kept = extract(part10(source), 2, 3, 5, 6)
    gone = extract(part10(source), 4)

    [item] = kept.MaskSubtractionSequence
    assert item.MaskFrameNumbers == [1, 2]
    assert item.ApplicableFrameRange == [1, 1, 3, 4]
    assert kept.RecommendedViewingMode == "SUB"
    assert "MaskSubtractionSequence" not in gone
    assert gone.RecommendedViewingMode == "NAT"


@pytest.mark.parametrize(
    ("operation", "masks", "kept"),
    [
        ("AVG_SUB", [0], 0),
        ("AVG_SUB", [7], 7),
        ("NONE", [0], 0),
        ("NONE", [3], None),
        ("NONE", [4], 1),
        ("NONE", None, None),
        ("TID", None, None),
    ],
)
def test_mask_item_without_a_real_mask_frame_stays(
    operation: str, masks: list[int] | None, kept: int | None
) -> None:
    item = Dataset()
    item.MaskOperation = operation
    if masks is not None:
        item.MaskFrameNumbers = masks
    source = make_multiframe(6, RecommendedViewingMode="SUB")
    source.MaskSubtractionSequence = [item]

    extracted = extract(part10(source), 4, 5)

    [found] = extracted.MaskSubtractionSequence
    assert found.MaskOperation == operation
    assert found.get("MaskFrameNumbers") == kept
    assert extracted.RecommendedViewingMode == "SUB"


def test_mask_item_with_a_real_mask_frame_that_is_left_out_goes() -> None:
    item = Dataset()
    item.MaskOperation = "AVG_SUB"
    item.MaskFrameNumbers = [0, 3]
    source = make_multiframe(6)
    source.MaskSubtractionSequence = [item]

    assert "MaskSubtractionSequence" not in extract(part10(source), 4, 5)


@pytest.mark.parametrize(
    "keywords",
    [
        {"DimensionOrganizationType": "TILED_FULL"},
        {"GridFrameOffsetVector": ["0", "1", "2"]},
        {0x60000015: 3},
        {0x5000200C: b"12"},
    ],
    ids=["tiled", "dose without its first frame", "overlay", "audio"],
)
def test_what_cannot_be_reduced_is_refused(keywords: dict[int | str, object]) -> None:
    source = make_multiframe(3)
    for key, value in keywords.items():
        if isinstance(key, str):
            setattr(source, key, value)
        else:
            source.add_new(key, "IS" if key == 0x60000015 else "OW", value)

    with pytest.raises(InstanceNotCreatable):
        extract(part10(source), 2, 3)


def test_groups_that_are_not_those_of_the_frames_are_refused() -> None:
    source = with_functional_groups(make_multiframe(3))
    del source.PerFrameFunctionalGroupsSequence[0]

    with pytest.raises(FramesNotExtractable, match="2 functional groups for 3 frames"):
        extract(part10(source), 2)


def test_a_vector_that_became_too_long_for_its_vr_is_refused() -> None:
    count = 12_000
    source = make_multiframe(count, Rows=1, Columns=1, FrameTime="40.123456")
    frames = [number for number in range(1, count + 1) if number % 3]

    with pytest.raises(InstanceNotCreatable, match="too long"):
        extract(part10(source), *frames)
    assert extract(part10(source, ImplicitVRLittleEndian), *frames).NumberOfFrames == 8_000


@pytest.mark.parametrize("frame_time", [b"1e308 ", b"-1e308"])
@pytest.mark.parametrize("keyword", ["FrameTime", "FrameTimeVector"])
def test_times_that_add_up_to_more_than_a_number_are_refused(
    keyword: str, frame_time: bytes
) -> None:
    source = make_multiframe(6)
    del source.FrameTime
    value = b"\\".join([frame_time] * (6 if keyword.endswith("Vector") else 1))
    # As UN, which is written as it is: pydicom would make other texts of these numbers.
    source[keyword] = DataElement(keyword, "UN", value)

    with pytest.raises(FramesNotExtractable, match="beyond all numbers"):
        extract(part10(source), 3, 5, 6)


# Pixel Data


@pytest.mark.parametrize("size", [8, 7], ids=["even", "odd"])
@pytest.mark.parametrize("encode", [part10, big_endian_file], ids=["little", "big"])
def test_native_frames_of_bytes(size: int, encode: type) -> None:
    source = make_multiframe(5, Rows=size, Columns=size)

    new = extract(encode(source), 2, 3, 5)

    assert native_frames(new, size * size) == [
        native_frames(source, size * size)[number] for number in (1, 2, 4)
    ]
    assert len(new.PixelData) % 2 == 0


def test_words_whose_frames_end_within_one_are_refused_in_big_endian() -> None:
    source = make_multiframe(5, Rows=3, Columns=3)
    source[Tag("PixelData")] = DataElement(Tag("PixelData"), "OW", source.PixelData)

    with pytest.raises(FramesNotExtractable, match="word"):
        extract(big_endian_file(source), 2)


def test_bits_are_packed_anew() -> None:
    source = make_multiframe(5, Rows=3, Columns=7, BitsAllocated=1, BitsStored=1, HighBit=0)
    packed = random.Random(3).getrandbits(5 * 21)
    source[Tag("PixelData")] = DataElement(Tag("PixelData"), "OB", packed.to_bytes(14, "little"))

    new = extract(part10(source), 2, 5)

    mask = (1 << 21) - 1
    expected = packed >> 21 & mask | (packed >> 84 & mask) << 21
    assert int.from_bytes(new.PixelData, "little") == expected
    assert len(new.PixelData) == 6


@pytest.mark.parametrize(
    ("keyword", "vr", "size"), [("FloatPixelData", "OF", 4), ("DoubleFloatPixelData", "OD", 8)]
)
def test_float_pixels(keyword: str, vr: str, size: int) -> None:
    source = make_multiframe(3, Rows=2, Columns=2)
    del source.PixelData
    pixels = bytes(range(3 * 4 * size))
    source.add_new(Tag(keyword), vr, pixels)

    new = extract(part10(source), 1, 3)

    assert new[keyword].value == pixels[: 4 * size] + pixels[8 * size :]


def test_chrominance_of_half_the_samples() -> None:
    source = make_multiframe(3, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    pixels = bytes(number for number in range(3) for _ in range(128))
    source[Tag("PixelData")] = DataElement(Tag("PixelData"), "OB", pixels)

    assert extract(part10(source), 2).PixelData == b"\1" * 128


@pytest.mark.parametrize(("tables", "fragments"), [("basic", 1), ("basic", 3), ("none", 1)])
def test_fragments_of_frames(tables: str, fragments: int) -> None:
    new = extract(make_encapsulated(5, tables, fragments), 1, 4, 5)

    found = list(generate_frames(new.PixelData, number_of_frames=3))
    assert found == [encapsulated_frame(number) for number in (1, 4, 5)]


def test_fragments_without_a_table_are_told_apart_by_the_end_of_a_jpeg_stream() -> None:
    source = make_multiframe(3)
    frames = [bytes([number]) * 33 + b"\xff\xd9" for number in range(3)]
    element = DataElement(Tag("PixelData"), "OB", encapsulate(frames, 2, has_bot=False))
    element.is_undefined_length = True
    source[element.tag] = element
    source.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file = BytesIO()
    source.save_as(file, enforce_file_format=True)

    new = extract(file.getvalue(), 3)

    assert next(generate_frames(new.PixelData, number_of_frames=1)).rstrip(b"\0") == frames[2]


@pytest.mark.parametrize("tables", ["basic", "extended", "none"])
def test_frames_are_found_where_the_last_delimiter_is_missing(tables: str) -> None:
    whole = make_encapsulated(5, tables)
    data = whole.removesuffix(b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert len(data) == len(whole) - 8

    new = extract(data, 1, 4, 5)

    found = list(generate_frames(new.PixelData, number_of_frames=3))
    assert [one.rstrip(b"\0") for one in found] == [encapsulated_frame(n) for n in (1, 4, 5)]
    with pytest.raises(FramesNotExtractable, match="cut off or damaged"):
        extract(data[:-1], 5)


def test_stray_delimiter_is_not_in_the_new_instance() -> None:
    file = make_encapsulated(5, "basic")
    at = file.index(b"\xe0\x7f\x10\x00OB")
    stray = b"\xfe\xff\xdd\xe0\0\0\0\0"

    expected = extract_file(BytesIO(file), 2)

    new = extract_file(BytesIO(file[:at] + stray + file[at:]), 2)

    assert new.count(stray) == expected.count(stray)
    assert dcmread(BytesIO(new)).NumberOfFrames == 1


def test_fragments_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(FramesNotExtractable, match="no offset table"):
        extract(make_encapsulated(5, "none", 3), 1)


@pytest.mark.parametrize("tables", ["basic", "extended"])
def test_tables_that_point_elsewhere_are_refused(tables: str) -> None:
    file = make_encapsulated(5, tables)
    dataset = dcmread(BytesIO(file))
    if tables == "basic":
        at = file.index(b"\xe0\x7f\x10\x00OB") + 12 + 8
        data = file[: at + 4] + b"\x05\0\0\0" + file[at + 8 :]
    else:
        data = file.replace(dataset.ExtendedOffsetTable, b"\xff" * 40)

    with pytest.raises(FramesNotExtractable):
        extract(data, 2)


def test_frames_that_share_their_bytes_are_refused() -> None:
    file = make_encapsulated(5, "extended")
    data = file.replace(dcmread(BytesIO(file)).ExtendedOffsetTable, bytes(40))

    with pytest.raises(FramesNotExtractable, match="does not point"):
        extract(data, 1, 2)


# Hostile and large


def test_fragments_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.dicom.frames.pixel_frames._MAX_FRAGMENTS", 100)
    file = make_encapsulated(5, "basic")
    delimiter = file[-8:]

    few, many = (file[:-8] + b"\xfe\xff\x00\xe0\0\0\0\0" * count + delimiter for count in (10, 101))

    assert extract(few, 1, 5).NumberOfFrames == 2
    with pytest.raises(FramesNotExtractable, match="too many fragments"):
        extract(many, 1, 5)


def test_disturbed_files_give_an_instance_or_an_error_of_the_domain() -> None:
    sources = [
        part10(with_functional_groups(make_multiframe(4, RepresentativeFrameNumber=1))),
        make_encapsulated(4, "basic", 2),
        make_encapsulated(4, "extended"),
    ]
    generator = random.Random(11)
    for number in range(_DISTURBANCES):
        file = bytearray(sources[number % len(sources)])
        begin = dcm_begin(bytes(file))
        for _ in range(generator.randint(1, 4)):
            file[generator.randrange(begin, len(file))] = generator.choice((0, 1, 0x7F, 0xFF, 0xFE))
        del file[generator.choice((len(file), generator.randrange(begin, len(file)))) :]
        try:
            extract_file(BytesIO(bytes(file)), 1, 3)
        except PacsError:
            continue


def dcm_begin(file: bytes) -> int:
    """Where the data set begins."""
    return 144 + int.from_bytes(file[140:144], "little")


def test_memory_does_not_grow_with_the_size_of_the_frames(tmp_path: Path) -> None:
    source = make_multiframe(2)
    source.Rows = source.Columns = 30_000
    path = tmp_path / "large.dcm"
    source[Tag("PixelData")] = DataElement(Tag("PixelData"), "OB", b"")
    file = part10(source)
    size = 2 * 30_000 * 30_000
    with path.open("wb") as stream:
        stream.write(file[:-4] + size.to_bytes(4, "little"))
        stream.truncate(len(file) + size)  # a file with holes
    with path.open("rb") as stream:
        meta = read_file_meta(stream)
        tracemalloc.start()
        extraction = extract_frames(
            stream,
            meta.transfer_syntax_uid,
            meta.data_set_offset,
            "1.2",
            FrameSelection("SimpleFrameList", (2,)),
        )
        with open_pieces(stream, extraction.pieces) as made:
            made.seek(extraction.size - 1024)
            assert made.read(1024) == bytes(1024)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert extraction.size > size // 2
    assert peak < 1_000_000


# An independent validator


def errors_of(path: Path) -> set[str]:
    """What dciodvfy has against an instance, without the values it names."""
    assert DCIODVFY is not None
    done = subprocess.run(
        [DCIODVFY, "-new", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}


def enhanced_ct() -> bytes:
    """Functional groups as dciodvfy knows them; whatever else it misses is missed in the source as well."""
    return part10(with_functional_groups(make_multiframe(4, SOPClassUID=EnhancedCTImageStorage)))


def sample(name: str) -> bytes:
    """One of the files that come with pydicom."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(path).read_bytes()


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("examples_ybr_color.dcm", (1, 2, 3)),
        ("rtdose.dcm", (1, 3, 15)),
        ("rtdose_rle.dcm", (1, 2)),
        ("rtdose_expb.dcm", (1, 2)),
        ("SC_rgb_rle_2frame.dcm", (2,)),
        ("secondary capture", (2, 3)),
        ("enhanced", (1, 4)),
    ],
)
def test_new_instances_have_no_error_that_their_source_does_not_have(
    tmp_path: Path, name: str, frames: tuple[int, ...]
) -> None:
    made = {"secondary capture": lambda: part10(make_multiframe(4)), "enhanced": enhanced_ct}
    source = made[name]() if name in made else sample(name)
    before, after = tmp_path / "source.dcm", tmp_path / "new.dcm"
    before.write_bytes(source)
    after.write_bytes(extract_file(BytesIO(source), *frames))

    assert errors_of(after) - errors_of(before) == set()


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("rtdose.dcm", (1, 3, 15)),
        ("rtdose_expb.dcm", (1, 3, 15)),
        ("rtdose_rle.dcm", (1, 3, 15)),
        ("SC_rgb_rle_16bit_2frame.dcm", (2,)),
    ],
)
def test_pixels_of_the_new_instance_are_those_of_the_source(
    name: str, frames: tuple[int, ...]
) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy decodes pixels")
    source = dcmread(BytesIO(sample(name)))

    new = extract(sample(name), *frames)

    expected = source.pixel_array[[number - 1 for number in frames]]
    assert numpy.array_equal(new.pixel_array.reshape(expected.shape), expected)


def test_encapsulated_frames_of_the_new_instance_are_those_of_the_source() -> None:
    source = dcmread(BytesIO(sample("examples_ybr_color.dcm")))

    new = extract(sample("examples_ybr_color.dcm"), 2, 5, 30)

    frames = list(generate_frames(source.PixelData, number_of_frames=source.NumberOfFrames))
    assert list(generate_frames(new.PixelData, number_of_frames=3)) == [
        frames[number - 1] for number in (2, 5, 30)
    ]


def test_wanted_is_what_the_factory_makes() -> None:
    assert native_frames(make_multiframe(3)) == wanted([1, 2, 3])
