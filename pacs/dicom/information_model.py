"""The Query/Retrieve information models and their SOP Classes (PS3.4 C.3, C.6, Y.3, Y.6, Z.3, Z.6)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from pacs.dicom.levels import Level
from pacs.errors import InvalidIdentifier

if TYPE_CHECKING:  # it needs pydicom, for which each command that reads the settings would wait
    from pacs.dicom.attributes import Attribute


class InformationModel(Enum):
    """One of the hierarchies that Identifiers are written against."""

    PATIENT_ROOT = "Patient Root"
    STUDY_ROOT = "Study Root"
    PATIENT_STUDY_ONLY = "Patient/Study Only"
    COMPOSITE_INSTANCE_ROOT = "Composite Instance Root"
    WITHOUT_BULK_DATA = "Composite Instance Retrieve Without Bulk Data"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The Query/Retrieve Levels of this model, root first."""
        return _LEVELS[self]

    def levels_above(self, level: Level) -> tuple[Level, ...]:
        """The levels of this model above the given one, root first."""
        return tuple(one for one in self.levels if one < level)

    def key_level(self, attribute: Attribute) -> Level:
        """The level at which an Attribute is a key; it may lie below the model's last level.

        Study Root has no PATIENT level: its Attributes are keys of STUDY (PS3.4 C.3.2). Where IMAGE is the
        only level, the unique keys of others narrow it: peers send them along.
        """
        return max(attribute.level, self.levels[0])


_LEVELS = {
    InformationModel.PATIENT_ROOT: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    InformationModel.STUDY_ROOT: (Level.STUDY, Level.SERIES, Level.IMAGE),
    InformationModel.PATIENT_STUDY_ONLY: (Level.PATIENT, Level.STUDY),
    # Level FRAME selects parts of one instance: pacs.dicom.query.instance_retrieve reads it.
    InformationModel.COMPOSITE_INSTANCE_ROOT: (Level.IMAGE,),
    InformationModel.WITHOUT_BULK_DATA: (Level.IMAGE,),
}


class Operation(Enum):
    """The DIMSE operation of a Query/Retrieve SOP Class (PS3.4 C.4)."""

    FIND = "FIND"
    MOVE = "MOVE"
    GET = "GET"


_ROOTS = {
    InformationModel.PATIENT_ROOT: "1.2.840.10008.5.1.4.1.2.1.",
    InformationModel.STUDY_ROOT: "1.2.840.10008.5.1.4.1.2.2.",
    InformationModel.PATIENT_STUDY_ONLY: "1.2.840.10008.5.1.4.1.2.3.",
    InformationModel.COMPOSITE_INSTANCE_ROOT: "1.2.840.10008.5.1.4.1.2.4.",
    InformationModel.WITHOUT_BULK_DATA: "1.2.840.10008.5.1.4.1.2.5.",
}
#: Models without all three operations (PS3.4 Y.6.1.2, Z.6.1.2).
_RETRIEVE_ONLY = {
    InformationModel.COMPOSITE_INSTANCE_ROOT: (Operation.MOVE, Operation.GET),
    InformationModel.WITHOUT_BULK_DATA: (Operation.GET,),
}

#: SOP Class UID to its model and operation (PS3.4 C.6.1.3, C.6.2.3, Y.6.1.2, Z.6.1.2; Patient/Study Only is retired).
QUERY_RETRIEVE_SOP_CLASSES: dict[str, tuple[InformationModel, Operation]] = {
    f"{root}{number}": (model, operation)
    for model, root in _ROOTS.items()
    for number, operation in enumerate(Operation, start=1)
    if operation in _RETRIEVE_ONLY.get(model, Operation)
}


def model_of(sop_class_uid: str) -> InformationModel:
    """The information model of a Query/Retrieve SOP Class.

    Raises:
        InvalidIdentifier: it is another SOP Class, so an Identifier has no meaning.
    """
    try:
        return QUERY_RETRIEVE_SOP_CLASSES[sop_class_uid][0]
    except KeyError as error:
        raise InvalidIdentifier("The SOP Class is not one of Query/Retrieve") from error


def sop_class_uid(model: InformationModel, operation: Operation) -> str:
    """The SOP Class UID of an operation on an information model."""
    wanted = (model, operation)
    return next(uid for uid, found in QUERY_RETRIEVE_SOP_CLASSES.items() if found == wanted)
