"""What an explanation consists of, and the facts it is made from."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pacs.model.remote_ae import RemoteAE, Service


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to change, and the command that does it if there is one."""

    text: str
    #: As arguments: ``("pacs", "ae", "list")``.
    command: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The command as it is typed; empty without one."""
        return shlex.join(self.command)


@dataclass(frozen=True, slots=True)
class Failure:
    """Sub-operations that ended alike."""

    #: The status of the C-STORE response; None if there was none.
    status: int | None
    comment: str
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer that is to be explained; what is not known is empty."""

    service: str
    status: int
    calling_ae: str = ""
    level: str = ""
    sop_class_uid: str = ""
    destination: str = ""
    error_comment: str = ""
    #: Tags of Offending Element.
    offending: tuple[int, ...] = ()
    matches: int = 0
    #: Sub-operations completed, failed, warned and remaining.
    counts: tuple[int | None, ...] = ()
    times: int = 1
    #: The number of its record, for ``pacs retrieve``.
    retrieve: int | None = None
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The facts of the installation that advice depends on."""

    ae_title: str = "PACS"
    remotes: Mapping[str, RemoteAE] = field(default_factory=dict)
    #: Settings by name, as text.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Says how a remote AE answers now; None if nothing is to be sent.
    probe: Callable[[RemoteAE], str] | None = None

    def nearest(self, title: str) -> str | None:
        """The registered title that a mistyped one was probably meant to be."""
        folded = {known.casefold(): known for known in self.remotes}
        found = difflib.get_close_matches(title.strip().casefold(), folded, n=1, cutoff=0.75)
        return folded[found[0]] if found else None

    def titles(self) -> str:
        """The registered titles, for a sentence."""
        return ", ".join(sorted(self.remotes)) or "none"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, why, and what to change."""

    what: str
    why: tuple[str, ...] = ()
    change: tuple[Advice, ...] = ()
    #: Where the Standard says so.
    clause: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON values."""
        change = [asdict(one) | {"command": one.command_line} for one in self.change]
        return {"what": self.what, "why": self.why, "change": change, "clause": self.clause}


def registration(
    title: str, remote: RemoteAE | None = None, host: str = "HOST", **changes: Any
) -> tuple[str, ...]:
    """The command that registers an AE, or changes what is registered: it keeps what it does not name."""
    if remote is None:
        return ("pacs", "ae", "add", title or "TITLE", host or "HOST", "PORT")
    command = ["pacs", "ae", "add", remote.title, changes.get("host", remote.host)]
    command.append(str(remote.port))
    for service in Service:
        command += ["--allow", service.value] if service in changes.get("services", ()) else []
    for destination in sorted(changes.get("destinations", ())):
        command += ["--destination", destination]
    if "tls" in changes or remote.tls:  # an AE of the settings is not in the index yet
        command.append("--tls" if changes.get("tls", remote.tls) else "--no-tls")
    return tuple(command)
