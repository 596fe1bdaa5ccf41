"""Every way an association can end: rejections by result, source and reason, aborts, and what has no PDU at all.

PS3.8 Table 9-21 (A-ASSOCIATE-RJ) and Table 9-26 (A-ABORT), with what is behind each here and what to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pacs.explain.explanation import Advice, Explanation, Site, registration
from pacs.model.associations import AssociationEnding, AssociationRecord

Rule = Callable[[AssociationRecord, Site], Iterator[Advice]]

_REJECTION_CLAUSE = "PS3.8 9.3.4"
_ABORT_CLAUSE = "PS3.8 9.3.8"


@dataclass(frozen=True, slots=True)
class Row:
    """What an ending means and what to do about it."""

    name: str
    why: str
    rule: Rule


def says(text: str, *command: str) -> Rule:
    """Advice that is the same everywhere."""

    def rule(_record: AssociationRecord, _site: Site) -> Iterator[Advice]:
        yield Advice(text, command)

    return rule


def _let_in(record: AssociationRecord, site: Site) -> Iterator[Advice]:
    title, host = record.calling_ae, record.calling_host
    remote = site.remotes.get(title)
    if remote is None:
        nearest = site.nearest(title)
        if nearest is not None:
            yield Advice(
                f"{title} looks like {nearest}, which is registered (titles are compared to the letter): if that is "
                f"meant, have the peer call itself {nearest}."
            )
        yield Advice(
            f"Registered are: {site.titles()}. To let this one in:", registration(title, host=host)
        )
        return
    if remote.tls and not record.tls:
        yield Advice(
            f"{title} is registered with --tls but called without TLS. Have it use TLS, or register it without:",
            registration(title, remote, tls=False),
        )
    yield Advice(
        f"{title} is registered for host {remote.host}, but called from {host}. If that is where it is:",
        registration(title, remote, host=host),
    )
    yield Advice("If its address changes all the time: set verify_calling_host = false.")


def _called_ae(record: AssociationRecord, site: Site) -> Iterator[Advice]:
    yield Advice(
        f"Have the peer call {site.ae_title} (not {record.called_ae}), to the letter; the archive's title is:",
        ("pacs", "config", "show"),
    )
    yield Advice("Or have any called title taken: set require_called_ae_title = false.")


def _congestion(record: AssociationRecord, site: Site) -> Iterator[Advice]:
    limit = site.settings.get("maximum_associations", "100")
    yield Advice(
        f"At most maximum_associations = {limit} are served at a time, and a part of them for one AE or host. Does "
        f"the peer release those that it does not need? If they are needed, raise that setting, or "
        f"maximum_associations_per_ae or maximum_associations_per_host; the log says which one it was:",
        ("pacs", "config", "show"),
    )
    title = record.calling_ae
    if title and title not in site.remotes:
        yield Advice(
            "A registered AE that calls from its own host has no share of that host, and may have the last tenth:",
            registration(title, host=record.calling_host),
        )


_PEERS_FAULT = says("This is to be mended in the peer.")
_UNKNOWN_WHY = says("The log of the AE that rejected says more.")

#: Result is permanent (1) or transient (2) and decided by the reason here; by source and reason.
REJECTIONS: dict[tuple[int, ...], Row] = {
    (1, 1): Row("no reason given", "The AE does not say why.", _UNKNOWN_WHY),
    (1, 2): Row(
        "application context name not supported",
        "The peer asked for another application context than DICOM's (PS3.7 A.2.1).",
        _PEERS_FAULT,
    ),
    (1, 3): Row(
        "calling AE title not recognised",
        "Peers on other hosts have to be registered, and to call from the address they are registered with.",
        _let_in,
    ),
    (1, 7): Row(
        "called AE title not recognised",
        "The peer called another AE title than the archive's.",
        _called_ae,
    ),
    (2, 1): Row("no reason given by the ACSE provider", "The AE does not say why.", _UNKNOWN_WHY),
    (2, 2): Row(
        "protocol version not supported",
        "The peer asked for another version of the Upper Layer protocol than 1.",
        _PEERS_FAULT,
    ),
    (3, 1): Row("temporary congestion", "The AE is busy for now.", _congestion),
    (3, 2): Row(
        "local limit exceeded", "As many associations as are allowed were open.", _congestion
    ),
}

#: By source and reason.
ABORTS: dict[tuple[int, ...], Row] = {
    (0, 0): Row(
        "by its application",
        "The application ended the association; the PDU has no room for a reason.",
        says("The log of the AE that aborted says why, at that time."),
    ),
    (2, 0): Row(
        "by its upper layer, reason not specified",
        "The protocol was broken, or the AE did not want to go on.",
        says("The log of the AE that aborted says why, at that time."),
    ),
    (2, 1): Row("unrecognized PDU", "A PDU of an unknown type came.", _PEERS_FAULT),
    (2, 2): Row("unexpected PDU", "A PDU came when it was not due.", _PEERS_FAULT),
    (2, 4): Row(
        "unrecognized PDU parameter", "A PDU has a parameter that is unknown.", _PEERS_FAULT
    ),
    (2, 5): Row("unexpected PDU parameter", "A PDU has a parameter out of place.", _PEERS_FAULT),
    (2, 6): Row("invalid PDU parameter value", "A PDU has a value that is none.", _PEERS_FAULT),
}

OTHERS: dict[AssociationEnding, Row] = {
    AssociationEnding.RELEASED: Row("released", "", says("Nothing has to be changed.")),
    AssociationEnding.CONNECTION_LOST: Row(
        "connection lost",
        "The TCP connection was closed or reset without a release or an abort: the peer ended or crashed, or a "
        "firewall or load balancer in between dropped it.",
        says(
            "If it happens after idle times, shorten those, or have the firewall keep connections longer."
        ),
    ),
    AssociationEnding.TIMED_OUT: Row(
        "timed out",
        "The peer was silent, or did not take what it was sent, for too long.",
        says(
            "If the peer needs longer: raise network_timeout_seconds. If it just idles, it loses nothing by "
            "associating again.",
            "pacs",
            "config",
            "show",
        ),
    ),
    AssociationEnding.STOPPED: Row(
        "ended as the archive was stopped",
        "The archive was stopped or started again.",
        says("Have the peer try again."),
    ),
}
_RESERVED = Row("a reserved reason", "The Standard gives this reason no meaning.", _UNKNOWN_WHY)


def row_of(record: AssociationRecord) -> Row:
    """What the way an association ended means."""
    ending = record.ending
    if ending is AssociationEnding.REJECTED:
        return REJECTIONS.get(record.codes[-2:], _RESERVED)
    if ending in (AssociationEnding.ABORTED, AssociationEnding.ABORTED_BY_PEER):
        return ABORTS.get(record.codes[-2:], _RESERVED)
    return OTHERS[ending]


def explain_ending(record: AssociationRecord, site: Site) -> Explanation:
    """Why an association ended as it did."""
    row = row_of(record)
    caller = f"{record.calling_ae or '(no title)'}@{record.calling_host}"
    clause = ""
    match record.ending:
        case AssociationEnding.REJECTED:
            clause = _REJECTION_CLAUSE
            permanence = "for now" if record.codes[:1] == (2,) else "permanently"
            what = f"Rejected {permanence}: {row.name}: {caller} called {record.called_ae}"
        case AssociationEnding.ABORTED_BY_PEER:
            clause = _ABORT_CLAUSE
            what = f"{caller} aborted the association ({row.name})"
        case AssociationEnding.ABORTED:
            return _our_abort(record, caller)
        case _:
            what = f"The association of {caller}: {row.name}"
    why = f"{row.why} ({record.detail})" if record.detail else row.why
    return Explanation(what, (why,) if why else (), tuple(row.rule(record, site)), clause)


def _our_abort(record: AssociationRecord, caller: str) -> Explanation:
    what = f"The archive aborted the association of {caller}"
    why = record.detail or "The archive's log says why."
    change = [Advice("The peer broke the protocol; this is to be mended there.")]
    if "was not accepted" in record.detail:
        refused = [one.abstract_syntax for one in record.contexts if one.result]
        why = f"It used a presentation context that was refused: {record.detail}"
        if refused:
            why += f"; refused were those for {', '.join(dict.fromkeys(refused))}"
        change = [
            Advice(
                "Have the peer look at the answer to its proposal, and use accepted contexts only."
            )
        ]
    elif record.codes[:1] == (0,):
        change = [Advice("The archive's log says what it was, at that time.")]
    return Explanation(what, (why,), tuple(change), _ABORT_CLAUSE)
