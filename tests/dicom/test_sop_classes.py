from __future__ import annotations

import pytest
from pydicom import uid

from pacs.dicom.sop_classes import (
    DEFLATED,
    STORAGE_SOP_CLASSES,
    is_storage_sop_class,
)


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


def test_deflated_is_the_whole_data_set_not_its_frames() -> None:
    assert "1.2.840.10008.1.2.1.99" in DEFLATED
    assert "1.2.840.10008.1.2.8.1" not in DEFLATED
