"""What a peer writes into its texts takes no record away and reaches no table as it is."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset

from pacs.model.retrieves import RetrieveState, SubOperationOutcome
from tests.dimse.retrieving import Mover, recorded, store_study, study_query
from tests.peers import Destination, wait_until
from tests.serving import Serve, engine_only


def _refused(_event: object) -> Dataset:
    answer = Dataset()
    answer.Status = 0xA700
    answer.ErrorComment = "no\0room\x1b[2J"
    return answer


@engine_only
def test_retrieve_is_recorded_whose_destination_sends_control_characters(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    running, mover = serve(), Mover(start_destination)
    mover.prepare(running)
    uids = store_study(running, 3)

    outcome = mover.retrieve(running, study_query(), answers={uids[1]: _refused})

    wait_until(lambda: recorded(running)[0].state is RetrieveState.FINISHED)
    record, operations = recorded(running)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.completed, record.outcome.failed) == (
        outcome.final.status,
        2,
        1,
    )
    assert [(one.outcome, one.error_comment) for one in operations] == [
        (SubOperationOutcome.COMPLETED, ""),
        (SubOperationOutcome.FAILED, r"no\x00room\x1b[2J"),
        (SubOperationOutcome.COMPLETED, ""),
    ]
