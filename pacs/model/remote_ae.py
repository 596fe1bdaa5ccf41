"""Remote AEs and what they may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Service(Enum):
    """What a remote AE may ask of the archive."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    COMMIT = "commit"


#: How many associations one C-MOVE to a remote AE may use at a time.
MOST_PARALLEL_ASSOCIATIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAE:
    """A known remote AE: its address and what it may do."""

    title: str
    host: str
    port: int
    services: frozenset[Service] = frozenset(Service)
    #: AE titles it may name as Move Destination; None is any.
    destinations: frozenset[str] | None = None
    tls: bool = False
    parallel_associations: int = 1
    description: str = ""
