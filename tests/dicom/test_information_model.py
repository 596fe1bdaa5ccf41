from __future__ import annotations

import pytest
from pydicom.uid import UID_dictionary

from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.information_model import (
    QUERY_RETRIEVE_SOP_CLASSES,
    InformationModel,
    Operation,
    model_of,
    sop_class_uid,
)
from pacs.dicom.levels import Level
from pacs.errors import InvalidIdentifier

_PATIENT, _STUDY = InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT
_ONLY = InformationModel.PATIENT_STUDY_ONLY


def test_sop_classes_are_those_of_the_uid_dictionary() -> None:
    prefix = {
        _PATIENT: "Patient Root",
        _STUDY: "Study Root",
        _ONLY: "Patient/Study Only",
        InformationModel.COMPOSITE_INSTANCE_ROOT: "Composite Instance Root Retrieve",
        InformationModel.WITHOUT_BULK_DATA: "Composite Instance Retrieve Without Bulk Data",
    }

    assert len(QUERY_RETRIEVE_SOP_CLASSES) == 12
    for uid, (model, operation) in QUERY_RETRIEVE_SOP_CLASSES.items():
        name = UID_dictionary[uid][0]
        assert name.startswith(prefix[model])
        assert name.replace(" (Retired)", "").endswith(operation.value)


def test_model_of_each_sop_class_and_back() -> None:
    for uid, (model, operation) in QUERY_RETRIEVE_SOP_CLASSES.items():
        assert model_of(uid) is model
        assert sop_class_uid(model, operation) == uid
    assert sop_class_uid(_STUDY, Operation.MOVE) == "1.2.840.10008.5.1.4.1.2.2.2"


def test_model_of_another_sop_class_is_refused() -> None:
    with pytest.raises(InvalidIdentifier):
        model_of("1.2.840.10008.1.1")


@pytest.mark.parametrize(
    ("model", "keyword", "level"),
    [
        (_PATIENT, "PatientName", Level.PATIENT),
        (_STUDY, "PatientName", Level.STUDY),
        (_ONLY, "PatientName", Level.PATIENT),
        (_STUDY, "StudyDate", Level.STUDY),
        (_STUDY, "Modality", Level.SERIES),
        (_ONLY, "Modality", Level.SERIES),
    ],
)
def test_key_level_folds_patient_attributes_into_study_root(
    model: InformationModel, keyword: str, level: Level
) -> None:
    assert model.key_level(BY_KEYWORD[keyword]) is level


def test_levels_above_stay_in_the_model() -> None:
    assert _STUDY.levels_above(Level.SERIES) == (Level.STUDY,)
    assert _PATIENT.levels_above(Level.SERIES) == (Level.PATIENT, Level.STUDY)
    assert _STUDY.levels_above(Level.STUDY) == ()
