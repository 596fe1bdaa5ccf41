"""The works by name: what each is, whom it is done to, and what the archive has to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import resources
from benchmarks import wire_work as work
from benchmarks.peers import NAGLE

_PEERS = ("Orthanc", "dcmqrscp")


@dataclass(frozen=True)
class Faster:
    """To be so many times as fast as a peer; the peer's time over ours."""

    peer: str
    wanted: float

    @property
    def text(self) -> str:
        """As in the table of targets."""
        return f"{self.wanted:g} x {self.peer}"


@dataclass(frozen=True)
class Bound:
    """A fact of our own reading that has to be above or below a limit."""

    fact: str
    text: str
    is_met: Callable[[float], bool]


@dataclass(frozen=True)
class Work:
    """One row of what is measured."""

    title: str
    measure: work.Measure
    targets: tuple[Faster | Bound, ...] = ()
    #: Names of the peers it is done to.
    peers: tuple[str, ...] = _PEERS
    #: What stands for us: the archive, or the bare engine.
    ours: str = "pacs"
    #: Once is enough for what noise does not change.
    is_once: bool = False


def _peers(ratio: float) -> tuple[Faster, ...]:
    return tuple(Faster(peer, ratio) for peer in _PEERS)


def _orthanc(ratio: float) -> tuple[Faster, ...]:
    return (Faster("Orthanc", ratio), Faster("dcmqrscp", 1.0))


WORKS: dict[str, Work] = {
    "store-ct": Work("store 1,000 CT of 525 KB, one association", work.store("ct"), _orthanc(3.0)),
    "store-small": Work("store 2,000 of 3 KB, one association", work.store("small"), _orthanc(2.5)),
    "store-studies": Work(
        "store 500 new studies of one 3 KB instance, one association",
        work.store("new-studies"),
        _orthanc(1.5),
    ),
    "radiography": Work(
        "store 500 new studies of one 3 KB instance, an association of one context each",
        work.store_each("new-studies", 1),
        _orthanc(1.5),
    ),
    "radiography-128": Work(
        "store 500 new studies of one 3 KB instance, an association of 128 contexts each",
        work.store_each("new-studies", 128),
        _orthanc(1.5),
    ),
    "store-series": Work(
        "store 2,000 of 3 KB in series of 50, one association",
        work.store("small-series"),
        _orthanc(1.8),
    ),
    "store-series-4": Work(
        "store 2,000 of 3 KB in series of 50, four associations",
        work.store("small-series", 4),
        (Faster("Orthanc", 2.0),),
    ),
    "store-ct-4": Work(
        "store 1,000 CT, four associations", work.store("ct", 4), (Faster("Orthanc", 2.0),)
    ),
    "store-small-4": Work(
        "store 2,000 of 3 KB, four associations", work.store("small", 4), (Faster("Orthanc", 2.5),)
    ),
    "store-mix": Work("store real files of many kinds, one association", work.store_mixed),
    "move-ct": Work(
        "C-MOVE 250 CT, one association",
        work.move(),
        (*_peers(1.6), Faster("qrscp", 30.0)),
        (*_PEERS, "qrscp"),
    ),
    "move-small": Work(
        "C-MOVE 2,000 of 3 KB, one association",
        work.move(name="small"),
        (Faster("Orthanc", 2.0),),
    ),
    "move-ct-2": Work("C-MOVE 250 CT, two associations (peers: one)", work.move(2), _peers(2.2)),
    "get-ct": Work("C-GET 250 CT", work.get, _peers(1.5)),
    "move-ct-nagle": Work(
        "C-MOVE 250 CT, Nagle left on everywhere but in pacs",
        work.move_nagle,
        (Faster("dcmqrscp", 20.0),),
    ),
    "store-nagle": Work(
        "receive 100 of 3 KB from a sender with Nagle left on",
        work.receive("small-few", NAGLE, NAGLE),
        (Faster("storescp", 20.0),),
        ("Orthanc", "storescp"),
    ),
    "receive-ct": Work(
        "receive 1,000 CT, keep nothing",
        work.receive("ct"),
        (Faster("storescp --ignore", 0.8),),
        ("storescp --ignore",),
        "pacs engine",
    ),
    "receive-small": Work(
        "receive 2,000 of 3 KB, keep nothing",
        work.receive("small"),
        (Faster("storescp --ignore", 0.8),),
        ("storescp --ignore",),
        "pacs engine",
    ),
    # dcmqrscp cannot be told of more than 500 studies.
    "find-studies": Work(
        "C-FIND 3,000 studies, 8 return keys",
        work.find(5),
        (Faster("Orthanc", 2.0),),
        ("Orthanc",),
    ),
    "find-day": Work(
        "C-FIND 250 of 3,000 studies by date",
        work.find(20, day="20260202"),
        (Faster("Orthanc", 2.0),),
        ("Orthanc",),
    ),
    "find-computed": Work(
        "C-FIND 3,000 studies with computed keys",
        work.find(5, *work.COMPUTED_KEYS),
        (Faster("Orthanc", 1.5),),
        ("Orthanc",),
    ),
    "find-one": Work(
        "C-FIND one study by UID",
        work.find(100, one=True),
        (Faster("Orthanc", 1.2),),
        ("Orthanc",),
    ),
    "echo": Work("associate, C-ECHO, release", work.echo, (Faster("Orthanc", 1.0),)),
    "parallel-100": Work(
        "store 2,000 of 3 KB over 100 associations; ratio to four",
        work.parallel((4, 100)),
        (Bound("ratio", "rate of 100 / rate of 4 at least 1", lambda value: value >= 1.0),),
        (),
    ),
    "memory": Work(
        "receive and C-MOVE one instance of 2 GiB",
        resources.memory,
        (Bound("peak_mib", "peak under 150 MiB per process", lambda value: value < 150),),
        (),
        is_once=True,
    ),
    "idle": Work(
        f"hold {resources.IDLE_ASSOCIATIONS} idle associations",
        resources.idle,
        (
            Bound("cpu_percent", "under 1 % of a core", lambda value: value < 1),
            Bound("mib_per_association", "under 1 MiB each", lambda value: value < 1),
        ),
        (),
        is_once=True,
    ),
}
