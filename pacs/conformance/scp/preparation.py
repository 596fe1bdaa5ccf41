"""What the checks work on: the generated sample stored in the peer, or what the peer has, found by C-FIND."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from pydicom.dataset import Dataset

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import UNCOMPRESSED, PeerUnderTest, Run
from pacs.conformance.scp.generation import generate
from pacs.conformance.scp.operations import matches, some_matches, store
from pacs.conformance.scp.queries import hexadecimal
from pacs.conformance.scp.sample import Sample, SampleInstance
from pacs.conformance.wire.association import Association, AssociationEnded, NegotiatedContext
from pacs.conformance.wire.message import MalformedMessage
from pacs.dicom.information_model import InformationModel, Operation, sop_class_uid
from pacs.dicom.levels import Level

#: Coercion, data set that does not fit the SOP Class, elements discarded (PS3.4 Table B.2-1): it is stored.
STORED_STATUSES = (0x0000, 0xB000, 0xB006, 0xB007)
#: An archive may show what it stored a while later.
_INDEXING_SECONDS = 30.0
_POLL_SECONDS = 0.25
#: How much of a stranger's archive is looked at.
_MOST_STUDIES, _MOST_SERIES, _MOST_INSTANCES = 5, 3, 5
#: Some of them may have no Patient ID.
_MOST_PATIENTS = 50
_FOUND_KEYS = {
    Level.STUDY: (
        "PatientID PatientName PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime "
        "AccessionNumber StudyID ModalitiesInStudy"
    ),
    Level.SERIES: "SeriesInstanceUID Modality SeriesNumber",
    Level.IMAGE: "SOPInstanceUID SOPClassUID InstanceNumber",
}
Services = Collection[tuple[InformationModel, Operation]]
_Found = tuple[Association, NegotiatedContext, InformationModel]


def prepared(
    peer: PeerUnderTest,
    services: Services,
    *,
    read_only: bool,
    on_generated: Callable[[Sample], None] = lambda _: None,
) -> Sample:
    """A sample for a run: found in the peer, or generated, told to ``on_generated`` and stored.

    Raises:
        AssociationEnded: the peer accepts no association.
    """
    if read_only:
        return find_sample(peer, services)
    sample = generate()
    on_generated(sample)
    return store_sample(peer, sample, services)


def store_sample(peer: PeerUnderTest, sample: Sample, services: Services) -> Sample:
    """Store the sample; what the peer then has of it, with a note of what it refused or does not show.

    Raises:
        AssociationEnded: the peer accepts no association.
    """
    refused: dict[str, str] = {}
    left = list(sample.instances)
    while left:
        left = _store_some(peer, left, refused)
    held = [one for one in sample.instances if one.sop_instance_uid not in refused]
    notes = [
        f"not stored: {sop_class}, {why}"
        for sop_class, why in dict.fromkeys(
            (f"{one.sop_class_uid} in {one.transfer_syntax}", refused[one.sop_instance_uid])
            for one in sample.instances
            if one.sop_instance_uid in refused
        )
    ]
    hidden = _await(peer, held, services)
    notes += [f"stored, but not found: {uid}" for uid in sorted(hidden)]
    shown = tuple(one for one in held if one.sop_instance_uid not in hidden)
    return replace(sample, instances=shown, notes=tuple(notes))


def _run(peer: PeerUnderTest) -> Run:
    return Run(peer, Requirement.SHALL, Sample())


def _store_some(
    peer: PeerUnderTest, instances: list[SampleInstance], refused: dict[str, str]
) -> list[SampleInstance]:
    """Store until the association ends; the instances that are left for another one."""
    pairs = dict.fromkeys((one.sop_class_uid, (one.transfer_syntax,)) for one in instances)
    done = 0
    with _run(peer).associate(list(pairs), title="the sample is stored") as association:
        for one in instances:
            done += 1
            try:
                why = _store(association, one)
            except AssociationEnded as error:
                refused[one.sop_instance_uid] = str(error)
                association.close()
                break
            if why:
                refused[one.sop_instance_uid] = why
    return instances[done:]


def _store(association: Association, one: SampleInstance) -> str:
    context = association.context_with(one.sop_class_uid, one.transfer_syntax)
    if context is None:
        return "the presentation context was refused"
    answer = store(association, context, one.attributes)
    if answer.status in STORED_STATUSES:
        return ""
    return f"status {hexadecimal(answer.status)} {answer.comment}".strip()


def _await(peer: PeerUnderTest, held: list[SampleInstance], services: Services) -> set[str]:
    """The SOP Instance UIDs that the peer does not show within the time."""
    deadline = time.monotonic() + _INDEXING_SECONDS
    missing = {one.sop_instance_uid for one in held}
    while missing:
        looked_for = [one for one in held if one.sop_instance_uid in missing]
        for queried in _queried(peer, services):
            missing -= set(_shown(queried, looked_for))
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return missing


def _queried(peer: PeerUnderTest, services: Services) -> Iterator[_Found]:
    """An association for C-FIND on the first model that has all levels, if there is one."""
    for model in (InformationModel.STUDY_ROOT, InformationModel.PATIENT_ROOT):
        if (model, Operation.FIND) in services:
            sop_class = sop_class_uid(model, Operation.FIND)
            with _run(peer).associate([(sop_class, UNCOMPRESSED)], title="the sample") as one:
                context = one.context_for(sop_class)
                if context is not None:
                    yield one, context, model
            return


def _shown(queried: _Found, instances: list[SampleInstance]) -> Iterator[str]:
    association, context, model = queried
    by_series: dict[str, Dataset] = {
        str(one.attributes.SeriesInstanceUID): one.attributes for one in instances
    }
    for known in by_series.values():
        keys = keys_above(model, Level.IMAGE, known) | {"SOPInstanceUID": None}
        for found in matches(association, context, Level.IMAGE, keys):
            yield str(found.get("SOPInstanceUID", ""))


def keys_above(model: InformationModel, level: Level, known: Dataset) -> dict[str, object]:
    """The unique keys of the levels above one, with the values that an entity has (PS3.4 C.4.1.2.1)."""
    return {one.unique_key: str(known[one.unique_key].value) for one in model.levels_above(level)}


def find_sample(peer: PeerUnderTest, services: Services) -> Sample:
    """A few studies, series and instances that the peer has, each with what C-FIND says of it."""
    instances: list[SampleInstance] = []
    try:
        for queried in _queried(peer, services):
            instances += [SampleInstance(found) for found in _walk(queried)]
    except (AssociationEnded, MalformedMessage) as error:
        return Sample(tuple(instances), notes=(f"the peer's own data were not read: {error}",))
    found = Sample(tuple(instances))
    # Many checks of Study Root, too, keep other patients out by Patient ID.
    with_patient = found.with_levels((Level.PATIENT,))
    left_out = len(found.instances) - len(with_patient.instances)
    if not with_patient.instances or not left_out:
        return found
    return replace(with_patient, notes=(f"left out: {left_out} instances without a Patient ID",))


def _walk(queried: _Found) -> Iterator[Dataset]:
    _association, _context, model = queried
    studies = (
        study
        for patient in (_known_patients(queried) if Level.PATIENT in model.levels else [Dataset()])
        for study in _below(queried, Level.STUDY, patient, _MOST_STUDIES)
    )
    for study in list(studies)[:_MOST_STUDIES]:
        for series in _below(queried, Level.SERIES, study, _MOST_SERIES):
            yield from _below(queried, Level.IMAGE, series, _MOST_INSTANCES)


def _known_patients(queried: _Found) -> list[Dataset]:
    # Of those who have a Patient ID: below another one nothing can be asked for.
    found = _ask(queried, Level.PATIENT, {"PatientID": None}, _MOST_PATIENTS)
    return [one for one in found if one.get("PatientID")][:_MOST_STUDIES]


def _below(queried: _Found, level: Level, above: Dataset, most: int) -> Iterator[Dataset]:
    """What is below an entity, each with the Attributes of that entity added."""
    keys: dict[str, object] = dict.fromkeys(_FOUND_KEYS[level].split())
    for found in _ask(queried, level, keys | keys_above(queried[2], level, above), most):
        if not found.get(level.unique_key):
            continue
        merged = Dataset()
        merged.update(above)
        merged.update(found)
        yield merged


def _ask(queried: _Found, level: Level, keys: Mapping[str, object], most: int) -> list[Dataset]:
    association, context, _model = queried
    return some_matches(association, context, level, keys, most)
