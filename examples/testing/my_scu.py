"""The code under test: a small SCU on pynetdicom."""

from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)


@dataclass
class Outcome:
    """How a C-MOVE ended."""

    status: int
    completed: int
    failed: int


def an_instance(patient_id, study_uid=None):
    """A Secondary Capture instance without an image."""
    instance = Dataset()
    instance.SOPClassUID = SecondaryCaptureImageStorage
    instance.SOPInstanceUID = generate_uid()
    instance.StudyInstanceUID = study_uid or generate_uid()
    instance.SeriesInstanceUID = generate_uid()
    instance.PatientID = patient_id
    instance.PatientName = "Doe^Jane"
    instance.Modality = "OT"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return instance


def send(peer, instance):
    """C-STORE."""
    association = _associate(peer, SecondaryCaptureImageStorage)
    status = association.send_c_store(instance)
    association.release()
    assert status.Status == 0, status


def find_studies(peer, patient_id):
    """C-FIND at STUDY level."""
    association = _associate(peer, StudyRootQueryRetrieveInformationModelFind)
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientID = patient_id
    identifier.StudyInstanceUID = ""
    responses = association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind)
    found = [match for _, match in responses if match is not None]
    association.release()
    return found


def move_study(peer, study_uid, destination):
    """C-MOVE of a study."""
    association = _associate(peer, StudyRootQueryRetrieveInformationModelMove)
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    sop_class = StudyRootQueryRetrieveInformationModelMove
    final, _ = list(association.send_c_move(identifier, destination, sop_class))[-1]
    association.release()
    return Outcome(
        final.Status,
        final.get("NumberOfCompletedSuboperations", 0),
        final.get("NumberOfFailedSuboperations", 0),
    )


def _associate(peer, sop_class):
    ae = AE("MY_SCU")
    ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    host, port, ae_title = peer
    association = ae.associate(host, port, ae_title=ae_title)
    assert association.is_established
    return association
