"""Each check of storage and C-FIND fails for the fault that it is there for, and for no other fault here."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs.conformance.judgement import Verdict
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import Bench, Offer, offer_of, run_checks, selected
from pacs.conformance.scp.sample import Sample
from pacs.conformance.wire.message import CommandField, Message
from pacs.dicom.information_model import InformationModel, Operation
from pacs.server import Server
from tests.conformance.faulty_peer import FaultyPeer, unchanged, with_command, with_data
from tests.serving import settings

#: Seen nowhere here: our encoder cuts a long Error Comment; what is not found is noted when the sample is stored.
_WITHOUT_FAULT = {"find.error-comment", "storage.found"}
_PENDING = (0xFF00, 0xFF01)
Change = Callable[[Dataset], None]


@dataclass(frozen=True)
class Fault:
    """What is spoiled, and the checks that see it. ``is_broad``: so do others, which need what it spoils."""

    name: str
    seen_by: frozenset[str]
    is_broad: bool = False
    request: Callable[[Message, str], Iterable[Message]] = unchanged
    response: Callable[[Message, str], Iterable[Message]] = unchanged
    service: str = "find"


def asked(change: Change) -> Callable[[Message, str], Iterable[Message]]:
    """Change the Identifier of each C-FIND request."""

    def spoil(message: Message, syntax: str) -> Iterable[Message]:
        is_query = message.command["CommandField"] == CommandField.C_FIND_RQ
        yield with_data(message, syntax, change) if is_query else message

    return spoil


def matched(change: Change) -> Callable[[Message, str], Iterable[Message]]:
    """Change the Identifier of each match."""

    def spoil(message: Message, syntax: str) -> Iterable[Message]:
        yield with_data(message, syntax, change) if message.status in _PENDING else message

    return spoil


def answered(
    status: int | None = None, to_status: Callable[[int], bool] = lambda _: True, **elements: object
) -> Callable[[Message, str], Iterable[Message]]:
    """Change the command set of each response whose status fits."""
    if status is not None:
        elements["Status"] = status

    def spoil(message: Message, _syntax: str) -> Iterable[Message]:
        is_meant = message.status is not None and to_status(message.status)
        yield with_command(message, **elements) if is_meant else message

    return spoil


def without(*keywords: str, at: str = "") -> Change:
    """Take Attributes out, at one level only if it is given."""

    def change(data_set: Dataset) -> None:
        for keyword in keywords:
            if keyword in data_set and at in ("", data_set.QueryRetrieveLevel):
                delattr(data_set, keyword)

    return change


def with_value(keyword: str, value: object, *, where_present: bool = False) -> Change:
    """Set an Attribute."""

    def change(data_set: Dataset) -> None:
        if keyword in data_set or not where_present:
            setattr(data_set, keyword, value)

    return change


def rewritten(keyword: str, rewrite: Callable[[str], str]) -> Change:
    """Change the text of an Attribute."""

    def change(data_set: Dataset) -> None:
        value = data_set.get(keyword)
        if value and data_set[keyword].VM == 1:
            setattr(data_set, keyword, rewrite(str(value)))

    return change


def first_of(keyword: str) -> Change:
    """A text loses what is behind a backslash."""

    def change(data_set: Dataset) -> None:
        if keyword in data_set and data_set[keyword].VM > 1:
            setattr(data_set, keyword, data_set[keyword].value[0])

    return change


def first_uid_alone(data_set: Dataset) -> None:
    """A list of UIDs loses all but one."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if keyword in data_set and data_set[keyword].VM > 1:
            setattr(data_set, keyword, data_set[keyword].value[0])


def item_with_more(data_set: Dataset) -> None:
    """Items hold what was not asked for."""
    for item in data_set.get("RequestAttributesSequence", ()):
        item.ScheduledProcedureStepID = "X"


def twice(message: Message, _syntax: str) -> Iterable[Message]:
    """Each match comes two times."""
    return (message, message) if message.status in _PENDING else (message,)


def as_study(data_set: Dataset) -> None:
    """Whatever is no level is one of studies."""
    if data_set.get("QueryRetrieveLevel") not in ("PATIENT", "STUDY", "SERIES", "IMAGE"):
        data_set.QueryRetrieveLevel = "STUDY"


def final_with_identifier(message: Message, syntax: str) -> Iterable[Message]:
    """The end of a query has an Identifier, too."""
    if message.status in _PENDING or message.command["CommandField"] != CommandField.C_FIND_RSP:
        return (message,)
    filled = with_data(message, syntax, with_value("QueryRetrieveLevel", "STUDY"))
    return (with_command(filled, CommandDataSetType=1),)


def no_identifier(message: Message, _syntax: str) -> Iterable[Message]:
    """A match without Identifier."""
    if message.status not in _PENDING:
        return (message,)
    return (replace(with_command(message, CommandDataSetType=0x0101), data=None),)


def mislabelled(message: Message, _syntax: str) -> Iterable[Message]:
    """Cyrillic, whatever it is."""
    if not message.data:
        return (message,)
    return (replace(message, data=re.sub(rb"ISO_IR 1\d\d", b"ISO_IR 144", message.data)),)


def unsaid(message: Message, syntax: str) -> Iterable[Message]:
    """A key is not returned, and no warning says so."""
    if message.status in _PENDING:
        message = with_data(message, syntax, without("StudyPriorityID"))
        return (with_command(message, Status=0xFF00),)
    return (message,)


class AlwaysAMatch:
    """Where nothing matches, or (``before_failures``) before a failure, what was asked for is returned."""

    def __init__(self, *, before_failures: bool = False) -> None:
        self._before_failures = before_failures
        self._asked: Message | None = None
        self._has_matched = False

    def request(self, message: Message, _syntax: str) -> Iterable[Message]:
        self._asked, self._has_matched = message, False
        return (message,)

    def response(self, message: Message, _syntax: str) -> Iterable[Message]:
        if message.status in _PENDING:
            self._has_matched = True
        elif self._asked is not None and self._is_to_be_spoiled(message.status or 0):
            invented = with_command(message, Status=0xFF00, CommandDataSetType=1)
            yield replace(invented, data=self._asked.data)
        yield message

    def _is_to_be_spoiled(self, status: int) -> bool:
        return _is_failure(status) if self._before_failures else not (status or self._has_matched)


def cancel_unknown(message: Message, _syntax: str) -> Iterable[Message]:
    """C-CANCEL is a command that the SCP does not know."""
    if message.command["CommandField"] == CommandField.C_CANCEL_RQ:
        return (with_command(message, CommandField=0x0FFE, MessageID=77),)
    return (message,)


def _fault(name: str, seen_by: str, **spoiled: object) -> Fault:
    return Fault(name, frozenset(seen_by.split()), **spoiled)  # type: ignore[arg-type]  # as the caller names them


def _is_failure(status: int) -> bool:
    return (0x0100 <= status <= 0x02FF or status >= 0xA000) and status not in (*_PENDING, 0xFE00)


_ALWAYS, _LENIENT = AlwaysAMatch(), AlwaysAMatch(before_failures=True)
_STORE_FAULTS = (
    _fault(
        "refuses all",
        "success twice fragmented large-in-small-pdus contexts-in-turn empty-type-2 "
        "private-attributes accepted-contexts command-and-data-in-a-pdu many-fragments-in-a-pdu",
        is_broad=True,
        service="storage",
        response=answered(0xA700),
    ),
    _fault(
        "stores all",
        "sop-class-mismatch sop-instance-mismatch sop-instance-uid-missing context-of-another-class "
        "truncated-data-set",
        service="storage",
        response=answered(0x0000, _is_failure),
    ),
    _fault(
        "wrong Message ID",
        "response-command",
        service="storage",
        response=answered(MessageIDBeingRespondedTo=3),
    ),
    _fault(
        "wrong SOP Instance",
        "response-command",
        service="storage",
        response=answered(AffectedSOPInstanceUID="1.2"),
    ),
    _fault(
        "C-FIND-RSP to C-STORE",
        "response-command",
        service="storage",
        response=answered(CommandField=0x8020),
    ),
)
_FIND_FAULTS = (
    _fault("no level", "level-returned", response=matched(without("QueryRetrieveLevel"))),
    _fault(
        "another Attribute",
        "only-what-was-asked",
        response=matched(with_value("PatientComments", "X")),
    ),
    _fault(
        "no Retrieve AE Title", "retrieve-location", response=matched(without("RetrieveAETitle"))
    ),
    _fault(
        "empty Retrieve AE Title",
        "retrieve-location",
        response=matched(with_value("RetrieveAETitle", "")),
    ),
    _fault(
        "availability SOON",
        "instance-availability",
        response=matched(with_value("InstanceAvailability", "SOON")),
    ),
    _fault(
        "no unique key above",
        "unique-keys-above",
        response=matched(without("StudyInstanceUID", at="IMAGE")),
    ),
    _fault(
        "no Series Number",
        "required-key-values required-keys sequence",
        response=matched(without("SeriesNumber")),
    ),
    _fault(
        "Study Time without value",
        "required-key-values",
        response=matched(with_value("StudyTime", "", where_present=True)),
    ),
    _fault("Message ID 1", "response-command", response=answered(MessageIDBeingRespondedTo=1)),
    _fault("C-MOVE-RSP", "response-command", response=answered(CommandField=0x8021)),
    _fault("another SOP Class", "response-command", response=answered(AffectedSOPClassUID="1.2.3")),
    _fault(
        "Identifier at the end",
        "cancel identifier-present level-missing level-of-another-model level-unknown",
        response=final_with_identifier,
    ),
    _fault(
        "match without Identifier",
        "identifier-present unique-keys relational",
        is_broad=True,
        response=no_identifier,
    ),
    _fault(
        "Success for failures",
        "level-missing level-of-another-model level-unknown",
        response=answered(0x0000, _is_failure),
    ),
    _fault("any level is STUDY", "level-missing level-unknown", request=asked(as_study)),
    _fault("each match twice", "complete", response=twice),
    _fault(
        "status 0xFF02",
        "pending-status two-in-turn",
        is_broad=True,
        response=answered(0xFF02, lambda status: status == 0xFF00),
    ),
    _fault(
        "ends with 0xB000",
        "pending-status two-in-turn no-match",
        is_broad=True,
        response=answered(0xB000, lambda status: status == 0),
    ),
    _fault(
        "% and _ are wild cards",
        "single-value-percent single-value-underscore wild-card-percent",
        request=asked(
            rewritten("AccessionNumber", lambda text: text.replace("%", "*").replace("_", "?"))
        ),
    ),
    _fault(
        "any case",
        "single-value-case wild-card-case",
        request=asked(rewritten("AccessionNumber", str.upper)),
    ),
    _fault(
        "? is *",
        "wild-card-question-mark",
        request=asked(rewritten("AccessionNumber", lambda t: t.replace("?", "*"))),
    ),
    _fault(
        "no *",
        "keys-together wild-card-percent wild-card-star",
        request=asked(rewritten("AccessionNumber", lambda t: t.replace("*", ""))),
    ),
    _fault(
        "no end of ranges",
        "combined-date-time range-of-dates range-of-dates-across-centuries range-of-dates-until",
        request=asked(rewritten("StudyDate", lambda t: t[: t.find("-") + 1] or t)),
    ),
    _fault(
        "no open ranges of dates",
        "range-of-dates-from range-of-dates-until",
        request=asked(rewritten("StudyDate", lambda t: t.strip("-"))),
    ),
    _fault(
        "no times",
        "range-of-times range-of-times-at-midnight range-of-times-from range-of-times-until ranges-apart",
        request=asked(with_value("StudyTime", "", where_present=True)),
    ),
    _fault(
        "parts of values",
        "single-value",
        request=asked(rewritten("AccessionNumber", lambda t: f"{t}*")),
    ),
    _fault("one UID of a list", "list-of-uids list-of-uids-below", request=asked(first_uid_alone)),
    _fault(
        "names in lower case are none",
        "character-set-of-request patient-name",
        request=asked(rewritten("PatientName", lambda t: t.partition("^")[0])),
    ),
    _fault(
        "* needs a character",
        "wild-card-alone",
        request=asked(rewritten("AccessionNumber", lambda t: "?*" if t == "*" else t)),
    ),
    _fault(
        "wild cards in dates",
        "wild-card-in-date",
        request=asked(rewritten("StudyDate", lambda t: "" if "*" in t else t)),
    ),
    _fault(
        "wild cards in UIDs",
        "wild-card-in-uid",
        request=asked(rewritten("StudyInstanceUID", lambda t: "" if "*" in t else t)),
    ),
    _fault(
        "a match, then failure",
        "level-unknown level-missing level-of-another-model unique-key-above-missing",
        is_broad=True,
        request=_LENIENT.request,
        response=_LENIENT.response,
    ),
    _fault("wrong character set", "character-set-declared character-sets", response=mislabelled),
    _fault(
        "letters lost",
        "character-sets",
        response=matched(rewritten("PatientName", lambda t: t.encode("ascii", "replace").decode())),
    ),
    _fault("unsupported key unsaid", "unsupported-key", response=unsaid),
    _fault(
        "wrong count",
        "related-counts",
        response=matched(with_value("NumberOfStudyRelatedSeries", 99, where_present=True)),
    ),
    _fault(
        "one Modality",
        "modalities-in-study multiple-values",
        response=matched(with_value("ModalitiesInStudy", "MR", where_present=True)),
    ),
    _fault("more in Items", "sequence", response=matched(item_with_more)),
    _fault(
        "no Items are matched",
        "sequence",
        request=asked(with_value("RequestAttributesSequence", [Dataset()], where_present=True)),
    ),
    _fault(
        "text ends at a backslash", "backslash-identity", response=matched(first_of("PatientID"))
    ),
    _fault("C-CANCEL unknown", "cancel cancel-too-late", request=cancel_unknown),
    _fault(
        "always a match",
        "no-match other-parent",
        is_broad=True,
        request=_ALWAYS.request,
        response=_ALWAYS.response,
    ),
)


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Offer, Sample]]:
    """An archive without faults, and the sample in it."""
    server = Server(settings(Path(tmp_path_factory.mktemp("archive"))))
    server.start()
    try:
        peer = PeerUnderTest("127.0.0.1", server.port, "PACS", "TESTER", 5.0)
        offer = offer_of(peer)
        yield server, offer, prepared(peer, offer.services, read_only=False)
    finally:
        server.stop()


def seen(archive: tuple[Server, Offer, Sample], fault: Fault) -> set[str]:
    """The checks that fail or warn for a fault, in Study Root."""
    server, offer, sample = archive
    model = frozenset({(InformationModel.STUDY_ROOT, Operation.FIND)})
    with FaultyPeer(server.port, fault.request, fault.response) as faulty:
        peer = PeerUnderTest("127.0.0.1", faulty.port, "PACS", "TESTER", 5.0)
        bench = Bench(peer, Offer(model, offer.implementation_class_uid, ""), sample)
        checks = selected((f"{fault.service}.*",), (), read_only=False)
        results = run_checks(bench, checks).results
    doubtful = (Verdict.FAIL, Verdict.WARNING)
    return {
        one.name.partition(".")[2].partition("[")[0] for one in results if one.verdict in doubtful
    }


@pytest.mark.parametrize(
    "fault", [*_FIND_FAULTS, *_STORE_FAULTS], ids=lambda fault: f"{fault.service}: {fault.name}"
)
def test_fault_is_seen_by_its_checks(archive: tuple[Server, Offer, Sample], fault: Fault) -> None:
    found = seen(archive, fault)

    assert fault.seen_by <= found
    assert fault.is_broad or found == fault.seen_by


def test_archive_that_waits_for_a_peer_that_does_not_read_is_seen(
    archive: tuple[Server, Offer, Sample],
) -> None:
    server, offer, sample = archive
    is_waiting = threading.Event()

    def spoil(message: Message, _syntax: str) -> Iterable[Message]:
        if message.command["CommandField"] == CommandField.C_FIND_RQ:
            is_waiting.set()
        elif is_waiting.is_set():
            return  # whoever asks now is not served
        yield message

    with FaultyPeer(server.port, on_request=spoil) as faulty:
        peer = PeerUnderTest("127.0.0.1", faulty.port, "PACS", "TESTER", 1.0)
        checks = selected(("robustness.stalled-reader",), (), read_only=False)
        (result,) = run_checks(Bench(peer, offer, sample), checks).results

    assert result.verdict is Verdict.WARNING
    assert "no answer in the time allowed" in result.received


def test_each_check_has_a_fault_that_it_sees() -> None:
    names = {
        one.name for one in selected(("find.*", "storage.*"), (), read_only=False)
    } - _WITHOUT_FAULT

    seen_ones = {
        f"{fault.service}.{name}"
        for fault in (*_FIND_FAULTS, *_STORE_FAULTS)
        for name in fault.seen_by
    }
    assert seen_ones == names
