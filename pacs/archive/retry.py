"""Which instances of a recorded C-MOVE are to be sent again: those that failed, and those never tried."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import FRAME_LEVEL, Query, parse_retrieve
from pacs.dicom.query.query_options import QueryOptions
from pacs.errors import InvalidSetting
from pacs.model.instances import StoredInstance
from pacs.model.remote_ae import Service
from pacs.model.retrieves import (
    RetrievePlan,
    RetrieveRecord,
    RetrieveRequest,
    RetrieveState,
    SubOperationOutcome,
)

#: Beside the Identifier in the record of a retry, which has no column for it: the record that it retries.
_RETRY_OF = "retryOf"
_KEYS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Retry:
    """What to send again."""

    record: RetrieveRecord
    plan: RetrievePlan
    #: SOP Instance UIDs that failed and are not stored any more.
    not_stored: tuple[str, ...]

    def request(self, calling_ae: str) -> RetrieveRequest:
        """The request to record: that of the C-MOVE, asked by this archive."""
        asked = self.record.request
        identifier = _identifier(asked) | {_RETRY_OF: self.record.key}
        return replace(
            asked,
            calling_ae=calling_ae,
            calling_host="localhost",
            identifier=json.dumps(identifier, ensure_ascii=False),
            message_id=0,
            started_at=datetime.now(UTC),
        )


def retry_of(request: RetrieveRequest) -> int | None:
    """The number of the record that a recorded retrieve retries; None if it is no retry."""
    number = _identifier(request).get(_RETRY_OF)
    return number if isinstance(number, int) else None


def plan_retry(archive: Archive, number: int) -> Retry:
    """Find what of retrieve ``number`` has not arrived.

    What failed is known by its UID. What was never tried is known only by the Identifier, as what matches it and was
    not sent, also by the retrieves that this one retries: instances stored since then are among it. What a retry
    of this one has sent since then is not sent again.

    Raises:
        InvalidSetting: there is no such record, or it cannot be retried.
        InvalidIdentifier: what was not tried cannot be found by the recorded Identifier.
        IndexUnavailable: the index cannot be read.
    """
    record = archive.index.journal.retrieve(number)
    if record is None:
        raise InvalidSetting(f"no retrieve {number} is recorded; see: pacs retrieve list")
    if record.request.service is not Service.MOVE:
        raise InvalidSetting(f"retrieve {number} is a C-GET: only its requester can ask again")
    if record.state is RetrieveState.RUNNING:
        raise InvalidSetting(f"retrieve {number} is still running")
    if _is_of_parts(record.request):
        raise InvalidSetting(f"retrieve {number} sent parts of instances: ask again")
    failed = [
        one.sop_instance_uid
        for one in archive.index.journal.sub_operations(number)
        if one.outcome is SubOperationOutcome.FAILED
    ]
    since = _arrived_since(archive, number)
    if _is_whole(record, len(failed)):
        left = dict.fromkeys(uid for uid in failed if uid not in since)
        found = {uid: archive.index.find_by_uid(uid) for uid in left}
        missing = tuple(uid for uid, stored in found.items() if stored is None)
        return Retry(record, _plan(one for one in found.values() if one is not None), missing)
    done = _arrived(archive, record) | since
    matching = _matching(archive, _query(record))
    return Retry(record, _plan(one for one in matching if one.sop_instance_uid not in done), ())


def _is_of_parts(request: RetrieveRequest) -> bool:
    # What was sent is not stored, and its source was not asked for.
    return request.level == FRAME_LEVEL or request.model == InformationModel.WITHOUT_BULK_DATA.value


def _is_whole(record: RetrieveRecord, failed: int) -> bool:
    """Whether each instance that has not arrived is recorded by its UID."""
    outcome = record.outcome
    return outcome is not None and outcome.remaining == 0 and outcome.failed == failed


def _identifier(request: RetrieveRequest) -> dict[str, object]:
    loaded = json.loads(request.identifier or "{}")
    return loaded if isinstance(loaded, dict) else {}


def _query(record: RetrieveRecord) -> Query:
    identifier = _identifier(record.request)
    identifier.pop(_RETRY_OF, None)
    try:
        model = InformationModel(record.request.model)
        asked = Dataset.from_json(json.dumps(identifier))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidSetting(
            f"retrieve {record.key} does not tell what was asked for: ask again"
        ) from error
    # Whether relational retrieval was negotiated is not recorded; without it the request was refused.
    return parse_retrieve(asked, model, QueryOptions(relational=True))


def _arrived(archive: Archive, record: RetrieveRecord | None) -> set[str]:
    arrived: set[str] = set()
    while record is not None:
        arrived.update(_sent(archive, record.key))
        earlier = retry_of(record.request)
        # A record is older than its retries: so this ends, whatever is in the index.
        is_older = earlier is not None and earlier < record.key
        record = (
            archive.index.journal.retrieve(earlier) if earlier is not None and is_older else None
        )
    return arrived


def _arrived_since(archive: Archive, number: int) -> set[str]:
    arrived: set[str] = set()
    retried = [number]
    while retried:
        earlier = retried.pop()
        for later in archive.index.journal.retrieves_ending_in(
            f'"{_RETRY_OF}": {earlier}}}', after=earlier
        ):
            if retry_of(later.request) == earlier:
                arrived.update(_sent(archive, later.key))
                retried.append(later.key)
    return arrived


def _sent(archive: Archive, number: int) -> Iterator[str]:
    for one in archive.index.journal.sub_operations(number):
        if one.outcome is not SubOperationOutcome.FAILED:
            yield one.sop_instance_uid


def _matching(archive: Archive, query: Query) -> Iterator[StoredInstance]:
    keys = archive.index.plan(query).keys
    for first in range(0, len(keys), _KEYS_AT_A_TIME):
        yield from archive.index.instances(keys[first : first + _KEYS_AT_A_TIME])


def _plan(instances: Iterator[StoredInstance]) -> RetrievePlan:
    keys = array("q")
    contexts: Counter[tuple[str, str]] = Counter()
    for one in instances:
        keys.append(one.key)
        contexts[one.sop_class_uid, one.transfer_syntax_uid] += 1
    return RetrievePlan(keys=keys, contexts=dict(contexts))
