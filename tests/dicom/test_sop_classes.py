from __future__ import annotations

import pytest
from pydicom import uid

from pacs.dicom.sop_classes import (
    DEFLATED,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    choose_transfer_syntax,
    is_storage_sop_class,
)

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED_EXPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG_BASELINE, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
PRIVATE, OTHER_PRIVATE = "1.2.840.113619.5.2", "2.25.1"


@pytest.mark.parametrize(
    "sop_class",
    [
        pytest.param(uid.CTImageStorage, id="CT"),
        pytest.param(uid.DigitalXRayImageStorageForPresentation, id="for presentation"),
        pytest.param("1.2.840.10008.5.1.4.1.1.5", id="retired NM"),
        pytest.param("1.2.840.10008.5.1.4.1.1.88.1", id="retired trial SR"),
        pytest.param("1.2.840.10008.5.1.1.27", id="retired stored print"),
        pytest.param("1.2.840.10008.5.1.4.38.1", id="hanging protocol"),
        pytest.param("1.2.840.10008.5.1.4.34.7", id="delivery instruction"),
        pytest.param("1.2.840.10008.5.1.4.1.1.66.7", id="label map, too new for pydicom"),
        pytest.param("1.2.840.10008.5.1.4.1.1.999.1", id="below the storage root, unknown"),
        pytest.param("1.2.840.113619.4.26", id="private"),
    ],
)
def test_storage_sop_class_is_stored(sop_class: str) -> None:
    assert is_storage_sop_class(sop_class)


@pytest.mark.parametrize(
    "sop_class",
    [
        pytest.param("1.2.840.10008.1.1", id="Verification"),
        pytest.param("1.2.840.10008.1.3.10", id="media directory"),
        pytest.param("1.2.840.10008.1.20.1", id="Storage Commitment"),
        pytest.param("1.2.840.10008.1.20.2", id="retired Storage Commitment"),
        pytest.param("1.2.840.10008.5.1.4.1.2.1.1", id="Patient Root FIND"),
        pytest.param("1.2.840.10008.5.1.4.1.1.200.4", id="FIND below the storage root"),
        pytest.param("1.2.840.10008.5.1.4.31", id="Modality Worklist"),
        pytest.param("1.2.840.10008.9.9.9", id="unknown service of the Standard"),
    ],
)
def test_other_sop_class_is_not_stored(sop_class: str) -> None:
    assert not is_storage_sop_class(sop_class)
    assert sop_class not in STORAGE_SOP_CLASSES


def test_storage_sop_classes_every_one_named_storage_is_there() -> None:
    named = {
        known
        for known, (name, kind, *_) in uid.UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name
    }
    not_instances = {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}

    assert named - not_instances <= set(STORAGE_SOP_CLASSES)
    assert len(STORAGE_SOP_CLASSES) > 180
    assert all(is_storage_sop_class(sop_class) for sop_class in STORAGE_SOP_CLASSES)


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        IMPLICIT,
        EXPLICIT,
        DEFLATED_EXPLICIT,
        BIG_ENDIAN,
        JPEG_BASELINE,
        JPEG_2000,
        "1.2.840.10008.1.2.4.52",  # retired JPEG
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.102",  # MPEG-4
        "1.2.840.10008.1.2.4.108",  # HEVC
        "1.2.840.10008.1.2.4.112",  # JPEG XL
        "1.2.840.10008.1.2.4.203",  # HTJ2K
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
        "1.2.840.10008.1.20",  # Papyrus 3
    ],
)
def test_transfer_syntaxes_has(transfer_syntax: str) -> None:
    assert transfer_syntax in TRANSFER_SYNTAXES
    assert choose_transfer_syntax([transfer_syntax]) == transfer_syntax


def test_deflated_is_the_whole_data_set_not_its_frames() -> None:
    assert set(TRANSFER_SYNTAXES) >= DEFLATED
    assert DEFLATED_EXPLICIT in DEFLATED
    assert "1.2.840.10008.1.2.8.1" not in DEFLATED


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([IMPLICIT, EXPLICIT], EXPLICIT),
        ([BIG_ENDIAN, IMPLICIT], IMPLICIT),
        ([BIG_ENDIAN, IMPLICIT, EXPLICIT], EXPLICIT),
        ([JPEG_2000, JPEG_BASELINE, EXPLICIT], JPEG_2000),
        ([JPEG_BASELINE, JPEG_2000, IMPLICIT], JPEG_BASELINE),
        ([IMPLICIT, JPEG_BASELINE], IMPLICIT),
        ([DEFLATED_EXPLICIT, EXPLICIT], DEFLATED_EXPLICIT),
        ([PRIVATE, JPEG_BASELINE], JPEG_BASELINE),
        ([PRIVATE, OTHER_PRIVATE], PRIVATE),
        (["1.2.840.10008.1.2.6.2"], None),
        ([uid.CTImageStorage], None),
        ([], None),
    ],
)
def test_choose_transfer_syntax_first_proposed_decides(
    proposed: list[str], chosen: str | None
) -> None:
    assert choose_transfer_syntax(proposed) == chosen
