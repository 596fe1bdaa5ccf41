"""C-FIND: what responses and their Identifiers hold (PS3.4 C.4.1.1.3.2, C.4.1.3.1; PS3.7 9.3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import Run
from pacs.conformance.scp.operations import PENDING_STATUSES, find, identifier, responses, start
from pacs.conformance.scp.queries import (
    NO_PATIENT,
    NO_UID,
    answers,
    ask,
    entities,
    entity,
    expect_success,
    expect_values,
    find_check,
    hexadecimal,
    keys_of,
    lowest_level,
    text,
    unique_keys,
)
from pacs.conformance.wire.message import CommandField, cancel
from pacs.dicom.attributes import KeyType
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level

_sample_check = partial(find_check, needs_sample=True)
_WITH_IMAGES = (InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT)
_NO_STUDY = {"PatientID": NO_PATIENT, "StudyInstanceUID": NO_UID}
#: What may be in a response without having been asked for (PS3.4 C.4.1.1.3.2).
_UNASKED = {
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "QueryRetrieveLevel",
    "StorageMediaFileSetID",
    "StorageMediaFileSetUID",
    "RetrieveAETitle",
    "InstanceAvailability",
}
_AVAILABILITIES = ("ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE")
#: Computed keys, the level whose entities they count, and the level at which they are asked for.
_COUNTS = (
    ("NumberOfPatientRelatedStudies", Level.STUDY, Level.PATIENT),
    ("NumberOfPatientRelatedSeries", Level.SERIES, Level.PATIENT),
    ("NumberOfPatientRelatedInstances", Level.IMAGE, Level.PATIENT),
    ("NumberOfStudyRelatedSeries", Level.SERIES, Level.STUDY),
    ("NumberOfStudyRelatedInstances", Level.IMAGE, Level.STUDY),
    ("NumberOfSeriesRelatedInstances", Level.IMAGE, Level.SERIES),
)


@find_check("no-match", "PS3.4 C.4.1.3.1", "answers a query without matches with Success alone")
def no_match(run: Run) -> None:
    """No pending response."""
    received, _found = answers(run, Level.STUDY, _NO_STUDY)
    statuses = [hexadecimal(message.status) for message in received]
    run.expect(statuses == ["0x0000"], "one response, status 0x0000", f"statuses {statuses}")


@find_check(
    "identifier-present", "PS3.4 C.4.1.3.1", "sends an Identifier with each match and no other"
)
def identifier_present(run: Run) -> None:
    """Pending responses have one, the final response has none."""
    received, _found = answers(run, Level.STUDY, unique_keys(run, Level.STUDY, entity(run)))
    expect_success(run, received)
    run.expect(len(received) > 1, "a match of a study that is there", "no match")
    run.expect(
        all(message.data for message in received[:-1]),
        "an Identifier in each pending response",
        "a pending response without one",
    )
    run.expect(
        received[-1].data is None, "no Identifier in the final response", "an Identifier in it"
    )


@find_check("response-command", "PS3.7 9.3.2.2", "says to which request a response belongs")
def response_command(run: Run) -> None:
    """Message ID 65535, which is easily taken for -1."""
    asked = identifier(Level.STUDY, unique_keys(run, Level.STUDY, entity(run)))
    run.sent("C-FIND-RQ with Message ID 65535 for a study that is there")
    with run.query() as (association, context):
        start(association, context, Operation.FIND, asked, MessageID=0xFFFF)
        received = responses(association)
    for message in received:
        run.expect(
            (message.command.get("CommandField"), message.responds_to)
            == (CommandField.C_FIND_RSP, 0xFFFF),
            "C-FIND-RSP, Message ID Being Responded To 65535",
            f"{message.name}, Message ID Being Responded To {message.responds_to}",
        )
        sop_class = message.command.get("AffectedSOPClassUID", run.sop_class)
        run.expect(
            sop_class == run.sop_class,
            f"Affected SOP Class UID {run.sop_class}, where there is one",
            f"Affected SOP Class UID {sop_class}",
        )


@find_check("two-in-turn", "PS3.7 9.1.2", "answers a second query on the same association")
def two_in_turn(run: Run) -> None:
    """One after the other, which needs no negotiation."""
    with run.query() as pair:
        for keys in (unique_keys(run, Level.STUDY, entity(run)), _NO_STUDY):
            received, _found = answers(run, Level.STUDY, keys, on=pair)
            expect_success(run, received)


@find_check("level-returned", "PS3.4 C.4.1.1.3.2", "returns the Query/Retrieve Level of the query")
def level_returned(run: Run) -> None:
    """At each level of the model."""
    known = entity(run)
    for level in run.model.levels:
        for found in _matches(run, level, known):
            came = text(found, "QueryRetrieveLevel")
            run.expect(came == level.name, f"Query/Retrieve Level {level.name}", came or "none")


def _matches(run: Run, level: Level, known: Dataset, *more: str) -> list[Dataset]:
    """The matches of one known entity, of which there is at least one."""
    found = ask(run, level, unique_keys(run, level, known) | dict.fromkeys(more))
    run.expect(bool(found), "a match of an entity that is there", "no match")
    return found


@find_check("unique-keys", "PS3.4 C.2.2.1.1", "finds each entity by its unique key, and it alone")
def by_unique_key(run: Run) -> None:
    """At each level of the model."""
    known = entity(run)
    for level in run.model.levels:
        wanted = str(known[level.unique_key].value)
        found = ask(run, level, unique_keys(run, level, known))
        expect_values(run, found, level.unique_key, [wanted])


@find_check("unique-keys-above", "PS3.4 C.4.1.3.1.1", "returns the unique keys of the levels above")
def unique_keys_above(run: Run) -> None:
    """At the lowest level, where there are most of them."""
    known, level = entity(run), lowest_level(run)
    for found in _matches(run, level, known):
        for keyword, wanted in unique_keys(run, level, known).items():
            came = text(found, keyword)
            run.expect(came == str(wanted), f"{keyword} {wanted}", f"{keyword} {came or 'missing'}")


@find_check(
    "only-what-was-asked",
    "PS3.4 C.4.1.1.3.2",
    "returns no Attribute that was neither asked for nor is specified for responses",
)
def only_what_was_asked(run: Run) -> None:
    """At each level of the model."""
    known = entity(run)
    for level in run.model.levels:
        keys = unique_keys(run, level, known)
        for found in _matches(run, level, known):
            # Group lengths are retired, and yet no Attributes of anything.
            came = {keyword_for_tag(tag) or str(tag) for tag in list(found.keys()) if tag.element}
            more = sorted(came - set(keys) - _UNASKED)
            run.expect(not more, "no other Attribute", f"also {', '.join(more)}")


@find_check(
    "required-keys",
    "PS3.4 C.2.2.1.2",
    "returns each Required and Unique Key that was asked for, with or without a value",
)
def required_keys(run: Run) -> None:
    """At each level of the model (PS3.4 Tables C.6-1 to C.6-5)."""
    known = entity(run)
    for level in run.model.levels:
        wanted = keys_of(run, level, KeyType.REQUIRED, KeyType.UNIQUE)
        for found in _matches(run, level, known, *_unasked(run, level, wanted)):
            missing = [keyword for keyword in wanted if keyword not in found]
            run.expect(not missing, f"{level.name}: {', '.join(wanted)}", f"without {missing}")


def _unasked(run: Run, level: Level, keywords: list[str]) -> list[str]:
    """The keys that have no value in the query for one entity."""
    unique = {one.unique_key for one in (*run.model.levels_above(level), level)}
    return [keyword for keyword in keywords if keyword not in unique]


@_sample_check(
    "required-key-values",
    "PS3.4 C.2.2.2.3",
    "returns the values of Required Keys that were asked for without a value",
)
def required_key_values(run: Run) -> None:
    """Of an instance whose values are all in the default repertoire; numbers by their value."""
    known = entity(run, AccessionNumber="MANY1")
    for level in run.model.levels:
        keywords = keys_of(run, level, KeyType.REQUIRED)
        for found in _matches(run, level, known, *_unasked(run, level, keywords)):
            expected = {keyword: text(known, keyword) for keyword in keywords}
            came = {keyword: text(found, keyword) for keyword in keywords}
            run.expect(came == expected, f"{level.name}: {expected}", f"{came}")


@_sample_check("complete", "PS3.4 C.4.1.3.1", "returns each match once, at each level")
def complete(run: Run) -> None:
    """Patient ID holds for each of them: at the top level it is what keeps other patients out."""
    known = entity(run, AccessionNumber="MANY1")
    for level in run.model.levels:
        keys = unique_keys(run, level, known, own=False)
        if level is run.model.levels[0]:
            keys["PatientID"] = str(known.PatientID)
        having = {keyword: str(value) for keyword, value in keys.items() if value is not None}
        wanted = [str(one[level.unique_key].value) for one in entities(run, level, **having)]
        expect_values(run, ask(run, level, keys), level.unique_key, wanted, once=True)


@find_check(
    "retrieve-location",
    "PS3.4 C.4.1.1.3.2",
    "says where the instances are: Retrieve AE Title, or Storage Media File-Set ID and UID",
)
def retrieve_location(run: Run) -> None:
    """At the lowest level it has a value."""
    known = entity(run)
    for level in run.model.levels:
        for found in _matches(run, level, known):
            online = "RetrieveAETitle" in found
            on_media = "StorageMediaFileSetID" in found and "StorageMediaFileSetUID" in found
            run.expect(
                online or on_media,
                f"{level.name}: Retrieve AE Title, or Storage Media File-Set ID and UID",
                "neither",
            )
            location = text(found, "RetrieveAETitle") + text(found, "StorageMediaFileSetID")
            if level is run.model.levels[-1]:
                run.expect(bool(location), f"{level.name}: a value", "zero length")


@find_check(
    "instance-availability",
    "PS3.4 C.4.1.1.3.2",
    "gives Instance Availability one of its defined values, if it returns it",
)
def instance_availability(run: Run) -> None:
    """Nobody asks for it: it shall not be in the request."""
    for found in _matches(run, lowest_level(run), entity(run)):
        if "InstanceAvailability" not in found:
            run.not_applicable("Instance Availability is not returned")
        came = text(found, "InstanceAvailability")
        run.expect(came in _AVAILABILITIES, f"one of {', '.join(_AVAILABILITIES)}", repr(came))


@_sample_check(
    "related-counts", "PS3.4 C.3.4", "counts related entities rightly, where it supports that"
)
def related_counts(run: Run) -> None:
    """Numbers of studies, series and instances are Optional Keys."""
    known, supported = entity(run, AccessionNumber="MANY1"), False
    for keyword, counted, level in _COUNTS:
        # In Study Root, what belongs to patients is a key of studies, but no count of a patient's is one of a study.
        if level not in run.model.levels:
            continue
        found = _matches(run, level, known, keyword)[0]
        if not text(found, keyword):
            continue
        supported = True
        parent = {level.unique_key: str(known[level.unique_key].value)}
        wanted = str(len(entities(run, counted, **parent)))
        came = text(found, keyword)
        run.expect(came == wanted, f"{keyword} {wanted}", f"{keyword} {came}")
    if not supported:
        run.not_applicable("no number of related entities is supported")


@_sample_check(
    "modalities-in-study", "PS3.4 C.3.4", "returns each Modality of a study, if it supports that"
)
def modalities_in_study(run: Run) -> None:
    """Each distinct value once."""
    known = entity(run, AccessionNumber="MANY1")
    found = _matches(run, Level.STUDY, known, "ModalitiesInStudy")[0]
    if not text(found, "ModalitiesInStudy"):
        run.not_applicable("Modalities in Study is not supported")
    series = entities(run, Level.SERIES, StudyInstanceUID=str(known.StudyInstanceUID))
    wanted = sorted({str(one.Modality) for one in series})
    came = sorted(text(found, "ModalitiesInStudy").split("\\"))
    run.expect(came == wanted, f"Modalities in Study {wanted}", f"{came}")


@find_check(
    "unsupported-key",
    "PS3.4 C.4.1.1.4",
    "warns with 0xFF01 of an Optional Key that it does not return",
    Requirement.SHOULD,
)
def unsupported_key(run: Run) -> None:
    """0xFF00 says that every Optional Key was supported; one that is not is not returned (PS3.4 C.2.2.1.3)."""
    keys = unique_keys(run, Level.STUDY, entity(run)) | {"StudyPriorityID": None}
    received, found = answers(run, Level.STUDY, keys)
    expect_success(run, received)
    statuses = {message.status for message in received[:-1]}
    if any("StudyPriorityID" not in one for one in found):
        run.expect(
            statuses == {0xFF01},
            "status 0xFF01: Study Priority ID is not returned",
            f"statuses {', '.join(map(hexadecimal, statuses))}",
        )


@_sample_check(
    "character-sets",
    "PS3.4 C.4.1.1.3.2",
    "returns names in any character set",
    Requirement.SHOULD,
)
def character_sets(run: Run) -> None:
    """Which sets an SCP supports is its own choice; it may leave out or replace letters of others (PS3.4 C.2.2.2)."""
    for known, found in _named(run):
        wanted, came = str(known.PatientName), text(found, "PatientName")
        run.expect(
            came.rstrip("=^ ") == wanted.rstrip("=^ "),
            f"{wanted}, stored in {text(known, 'SpecificCharacterSet')}",
            f"{came!r} in Specific Character Set {text(found, 'SpecificCharacterSet')!r}",
        )


@_sample_check(
    "character-set-declared",
    "PS3.4 C.4.1.1.3.2",
    "says in which character set a name is encoded",
)
def character_set_declared(run: Run) -> None:
    """Whatever letters come, decoded with Specific Character Set they are letters of the name."""
    for known, found in _named(run):
        wanted, came = str(known.PatientName), text(found, "PatientName")
        strange = {letter for letter in came if not letter.isascii()} - set(wanted)
        run.expect(
            not strange,
            f"letters of {wanted}",
            f"{came!r} in Specific Character Set {text(found, 'SpecificCharacterSet')!r}",
        )


def _named(run: Run) -> Iterator[tuple[Dataset, Dataset]]:
    """Each patient of the sample, and what C-FIND says of the name."""
    level = run.model.levels[0]
    for known in entities(run, Level.PATIENT):
        for found in _matches(run, level, known, "PatientName"):
            yield known, found


@_sample_check(
    "character-set-of-request",
    "PS3.4 C.2.2.2",
    "finds a name in other letters when the request says in which character set it is",
    Requirement.SHOULD,
)
def character_set_of_request(run: Run) -> None:
    """Support of a character set is the SCP's choice; ISO_IR 192 and the set of the instance are tried."""
    known = next(one for one in entities(run, Level.PATIENT) if "Jörg" in str(one.PatientName))
    level = run.model.levels[0]
    for character_set in ("ISO_IR 100", "ISO_IR 192"):
        keys = {
            "SpecificCharacterSet": character_set,
            "PatientName": str(known.PatientName),
            level.unique_key: None,
        }
        found = ask(run, level, keys)
        expect_values(run, found, level.unique_key, [str(known[level.unique_key].value)])


@find_check("cancel", "PS3.4 C.4.1.3.1", "ends a query that is cancelled")
def cancelled(run: Run) -> None:
    """Success when all matches had been sent before the C-CANCEL came."""
    keys = {"StudyInstanceUID": None, "PatientID": str(entity(run).PatientID)}
    run.sent("C-FIND-RQ for the studies of a patient, and C-CANCEL at once")
    with run.query() as (association, context):
        message_id = start(association, context, Operation.FIND, identifier(Level.STUDY, keys))
        association.send(cancel(context.context_id, message_id))
        final = responses(association)[-1]
        run.expect(
            final.status in (0xFE00, 0x0000),
            "final status 0xFE00, Cancel, or 0x0000 when all had been sent",
            f"final status {hexadecimal(final.status)}",
        )
        if final.data is not None:
            run.warn("no Identifier with it", f"an Identifier with {hexadecimal(final.status)}")
        after = find(association, context, Level.STUDY, _NO_STUDY)
        run.expect(
            after[-1].status == 0x0000,
            "the next query is answered",
            f"status {hexadecimal(after[-1].status)}",
        )


@find_check(
    "cancel-too-late",
    "PS3.7 9.3.2.3",
    "takes no notice of a C-CANCEL for a query that has ended",
    Requirement.SHOULD,
)
def cancelled_too_late(run: Run) -> None:
    """It may cross the final response, so each SCP gets some."""
    run.sent("a C-FIND, a C-CANCEL with its Message ID after the final response, and a C-FIND")
    with run.query() as (association, context):
        first = find(association, context, Level.STUDY, _NO_STUDY)
        association.send(cancel(context.context_id, first[-1].responds_to or 0))
        after = find(association, context, Level.STUDY, _NO_STUDY)
        run.expect(
            [message.status for message in after] == [0x0000],
            "the next query is answered as if nothing had been",
            f"statuses {[hexadecimal(message.status) for message in after]}",
        )


@find_check("pending-status", "PS3.4 C.4.1.1.4", "uses the statuses of C-FIND and no other")
def pending_status(run: Run) -> None:
    """0xFF00, 0xFF01 and at the end 0x0000."""
    received, _found = answers(run, Level.STUDY, unique_keys(run, Level.STUDY, entity(run)))
    statuses = [message.status for message in received]
    run.expect(
        statuses[-1] == 0 and all(status in PENDING_STATUSES for status in statuses[:-1]),
        "0xFF00 or 0xFF01 for matches, 0x0000 at the end",
        f"{', '.join(map(hexadecimal, statuses))}",
    )
