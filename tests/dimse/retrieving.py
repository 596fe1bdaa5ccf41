"""One way to ask for a retrieve by C-MOVE and by C-GET, and to see what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.presentation import PresentationContext, build_context

from pacs.model.retrieves import RetrieveRecord, SubOperationRecord
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Answer,
    Destination,
    Received,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    register,
    response,
)

PENDING, SUCCESS, CANCELLED, WARNING = 0xFF00, 0x0000, 0xFE00, 0xB000
STUDY = "1.2.276.9"
SERIES = f"{STUDY}.1"
CT_CONTEXT = build_context(CTImageStorage, ExplicitVRLittleEndian)


def make_study(count: int, study: str = STUDY, **keywords: object) -> list[Dataset]:
    """Instances 1 to ``count`` of one series of one study."""
    return [
        make_instance(
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            SOPInstanceUID=f"{study}.1.{number}",
            FrameOfReferenceUID=f"{study}.2",
            InstanceNumber=number,
            **keywords,
        )
        for number in range(1, count + 1)
    ]


def uids_of(instances: Sequence[Dataset]) -> list[str]:
    """Their SOP Instance UIDs."""
    return [str(one.SOPInstanceUID) for one in instances]


def study_query(study: str = STUDY) -> Dataset:
    """The Identifier that asks for a whole study."""
    return identifier("STUDY", StudyInstanceUID=study)


@dataclass
class Outcome:
    """What a requester and a receiver saw of one retrieve."""

    responses: list[Response]
    received: list[Received]

    @property
    def final(self) -> Response:
        """The last response."""
        return self.responses[-1]

    @property
    def pending(self) -> list[Response]:
        """All but the last."""
        return self.responses[:-1]

    @property
    def uids(self) -> list[str]:
        """What was received, in order."""
        return [one.sop_instance_uid for one in self.received]


@dataclass
class Mover:
    """Retrieves by C-MOVE to a destination that is started for it."""

    start_destination: Callable[..., Destination]
    name = "C-MOVE"
    study_root = STUDY_ROOT_MOVE
    patient_root = PATIENT_ROOT_MOVE

    def prepare(self, running: RunningArchive) -> None:
        """Make the destination known before the first association, which has the list read."""
        self.destination = self.start_destination()
        register(running.archive, "DEST", self.destination.port)

    def retrieve(
        self,
        running: RunningArchive,
        query: Dataset,
        *,
        answers: dict[str, Answer] | None = None,
        model: str = "",
        calling: str = "TESTSCU",
        contexts: Sequence[PresentationContext] = (),
        on_pending: Callable[[Any], None] | None = None,
        message_id: int = 1,
        items: Sequence[Any] = (),
    ) -> Outcome:
        """Ask, and wait for the final response."""
        model = model or self.study_root
        self.destination.received.clear()
        self.destination.answers = answers or {}
        with association(running, model, calling=calling, items=items) as assoc:
            generator = assoc.send_c_move(query, "DEST", model, msg_id=message_id)
            found = collect(generator, lambda: on_pending and on_pending(assoc))
        return Outcome(found, list(self.destination.received))


@dataclass
class Getter:
    """Retrieves by C-GET."""

    name = "C-GET"
    study_root = STUDY_ROOT_GET
    patient_root = PATIENT_ROOT_GET
    received: list[Received] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def prepare(self, running: RunningArchive) -> None:
        """Nothing to make known."""

    def retrieve(
        self,
        running: RunningArchive,
        query: Dataset,
        *,
        answers: dict[str, Answer] | None = None,
        model: str = "",
        calling: str = "TESTSCU",
        contexts: Sequence[PresentationContext] = (CT_CONTEXT,),
        on_pending: Callable[[Any], None] | None = None,
        message_id: int = 1,
        items: Sequence[Any] = (),
    ) -> Outcome:
        """Ask, and wait for the final response."""
        model = model or self.study_root
        self.received.clear()
        self.answers = answers or {}
        bound = [(evt.EVT_C_STORE, self._on_store)]
        proposed = [build_context(model), *contexts]
        with association(
            running, *proposed, calling=calling, bound=bound, get=True, items=items
        ) as assoc:
            generator = assoc.send_c_get(query, model, msg_id=message_id)
            found = collect(generator, lambda: on_pending and on_pending(assoc))
        return Outcome(found, list(self.received))

    def _on_store(self, event: Any) -> int | Dataset:
        request = event.request
        uid = str(request.AffectedSOPInstanceUID)
        self.received.append(
            Received(
                str(request.AffectedSOPClassUID),
                uid,
                str(event.context.transfer_syntax),
                request.DataSet.getvalue(),
                None,
                None,
                "",
            )
        )
        answer = self.answers.get(uid, 0x0000)
        return answer(event) if callable(answer) else answer


Retriever = Mover | Getter


def collect(
    answers: Iterator[tuple[Dataset, Dataset | None]], on_pending: Callable[[], object]
) -> list[Response]:
    """The responses; ``on_pending`` is called at the first pending one."""
    found: list[Response] = []
    for status, payload in answers:
        found.append(response(status, payload))
        if found[-1].status == PENDING and len(found) == 1:
            on_pending()
    return found


def store_study(running: RunningArchive, count: int, **keywords: object) -> list[str]:
    """Store a study of ``count`` instances; return their SOP Instance UIDs."""
    instances = make_study(count, **keywords)
    deposit(running.archive, *instances)
    return uids_of(instances)


def recorded(running: RunningArchive) -> tuple[RetrieveRecord, list[SubOperationRecord]]:
    """The newest recorded retrieve and its sub-operations."""
    [newest] = running.archive.index.journal.retrieves(1)
    return newest, list(running.archive.index.journal.sub_operations(newest.key))
