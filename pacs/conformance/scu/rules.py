"""What a scenario's rules select and what they change."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

Service = Literal["", "association", "C-ECHO", "C-STORE", "C-FIND", "C-MOVE", "C-GET"]
Counter = Literal["remaining", "completed", "failed", "warning"]
#: Positions of a response: the final one, or each of them.
FINAL, EVERY = "final", "every"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. What is empty or None selects everything, and changes nothing.

    ``request``: only the n-th request, from 1, that the rest of the selection fits. ``response``: the n-th response
    to it, from 1, ``final`` or ``every``. Docs: docs/conformance-testing.md.
    """

    #: What a scenario says is checked against the types below, and nothing else may be in it.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    # What is selected
    calling_ae: str = ""
    called_ae: str = ""
    #: ``association`` or a service such as ``C-FIND``.
    service: Service = ""
    level: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    request: int | None = None
    response: int | Literal["final", "every"] = "final"

    # The response
    status: int | None = None
    comment: str | None = None
    offending: tuple[int, ...] = ()
    delay_seconds: float = 0.0
    drop: bool = False
    duplicate: bool = False
    #: Sent after the response that follows it.
    swap: bool = False
    message_id: int | None = None
    sop_class_uid: str | None = None
    #: Remaining, completed, failed, warning: the number to say, or -1 to leave it out.
    counters: Mapping[Counter, int] = field(default_factory=dict)
    #: Keywords of the command set to leave out.
    without: tuple[str, ...] = ()
    #: ``none``, ``extra`` (where there should be none) or ``garbage`` (bytes that are no data set).
    identifier: Literal["", "none", "extra", "garbage"] = ""
    #: Attributes to set in the Identifier, as text.
    set: Mapping[str, str] = field(default_factory=dict)
    #: Attributes to leave out of the Identifier.
    omit: tuple[str, ...] = ()
    #: Specific Character Set to claim, whatever the bytes are.
    character_set: str | None = None
    #: Send the pending responses again and again until a C-CANCEL; after 10,000 there is silence.
    endless: bool = False
    silence: bool = False
    #: ``user`` or ``provider``.
    abort: Literal["", "user", "provider"] = ""
    close: bool = False
    #: The length of the PDUs to send in bytes, whatever the peer announced.
    pdu_bytes: int | None = None

    # C-FIND
    #: Keys that do not restrict the matches.
    ignore_keys: tuple[str, ...] = ()
    #: At most so many matches.
    limit: int | None = None
    #: Errors of the Identifier are answered with Success and no match.
    unchecked: bool = False
    #: Only the first UID of a list counts.
    first_uid_only: bool = False

    # C-MOVE and C-GET, by number of the sub-operation, from 1
    #: Not sent, and counted as failed.
    fail: tuple[int, ...] = ()
    #: Not sent, and counted as completed.
    skip: tuple[int, ...] = ()
    #: Sent twice.
    repeat: tuple[int, ...] = ()
    #: What Failed SOP Instance UID List to send: ``none``, ``all`` or, as it should be, empty.
    failed_list: Literal["", "none", "all"] = ""
    #: Move Originator AE Title to name; ``none`` leaves both elements out.
    originator: str | None = None
    #: Stop after so many sub-operations though there are more.
    stop_after: int | None = None
    #: Whether C-CANCEL is not looked at.
    ignore_cancel: bool = False

    # The association
    #: Result, source and reason of an A-ASSOCIATE-RJ.
    reject: tuple[int, ...] = ()
    #: Abstract or transfer syntaxes that are not accepted; ``*`` for all.
    refuse: tuple[str, ...] = ()
    #: The result of refused presentation contexts.
    refuse_result: int = 3
    #: Accept contexts that are not supported, with the first transfer syntax proposed.
    accept_unknown: bool = False
    #: Answer with this transfer syntax, proposed or not.
    transfer_syntax: str | None = None
    #: Presentation contexts, by ID, that the A-ASSOCIATE-AC does not answer.
    unanswered: tuple[int, ...] = ()
    maximum_length: int | None = None
    application_context: str | None = None
    #: Whether the AE titles of the request are not returned.
    other_titles: bool = False
    #: Numbers of user information sub-items to leave out of the A-ASSOCIATE-AC: 0x51, 0x52 ...
    without_items: tuple[int, ...] = ()
    #: ``ignore`` or ``abort``: what becomes of A-RELEASE-RQ.
    release: Literal["", "ignore", "abort"] = ""

    def fits(
        self, calling: str, called: str, service: str, level: str, keys: Mapping[str, str]
    ) -> bool:
        """Whether a request is selected, its number apart."""
        return (
            _fits(self.calling_ae, calling)
            and _fits(self.called_ae, called)
            and _fits(self.service, service)
            and _fits(self.level, level)
            and all(_fits(wanted, keys.get(name, "")) for name, wanted in self.keys.items())
        )


def _fits(pattern: str, text: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(text.upper(), pattern.upper())


class Rules:
    """The rules in force, safe to change while associations run; counts the requests that fit each."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._lock = threading.Lock()
        self._counted: list[tuple[Rule, list[int]]] = [(rule, [0]) for rule in rules]

    def all(self) -> list[Rule]:
        """The rules, in order."""
        with self._lock:
            return [rule for rule, _ in self._counted]

    def add(self, rule: Rule) -> None:
        """Put a rule behind the others."""
        with self._lock:
            self._counted.append((rule, [0]))

    def clear(self) -> None:
        """Take all rules away: the SCP is correct again."""
        with self._lock:
            self._counted.clear()

    def selected(
        self,
        calling: str,
        called: str,
        service: str,
        level: str = "",
        keys: Mapping[str, str] | None = None,
    ) -> list[Rule]:
        """The rules for one request, which is counted."""
        found = []
        with self._lock:
            for rule, count in self._counted:
                if rule.fits(calling, called, service, level, keys or {}):
                    count[0] += 1
                    if rule.request in (None, count[0]):
                        found.append(rule)
        return found
