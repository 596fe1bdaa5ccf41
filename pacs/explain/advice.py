"""Advice that depends on the installation: the rules that the tables of statuses and endings refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pacs.dicom.error_comment import attribute_name
from pacs.explain.explanation import Advice, Case, Site, registration
from pacs.model.remote_ae import RemoteAE, Service

Rule = Callable[[Case, Site], Iterator[Advice]]

#: The services of the archive, as PS3.7 calls them, and the right that each needs.
SERVICES = {
    "C-ECHO": Service.ECHO,
    "C-STORE": Service.STORE,
    "C-FIND": Service.FIND,
    "C-MOVE": Service.MOVE,
    "C-GET": Service.GET,
    "N-ACTION": Service.COMMIT,
}


def says(text: str, *command: str) -> Rule:
    """Advice that is the same everywhere."""

    def rule(_case: Case, _site: Site) -> Iterator[Advice]:
        yield Advice(text, command)

    return rule


def unknown_destination(case: Case, site: Site) -> Iterator[Advice]:
    """A Move Destination that is not registered."""
    title = case.destination or "TITLE"
    nearest = site.nearest(case.destination) if case.destination else None
    if nearest is not None:
        yield Advice(
            f"{title} looks like {nearest}, which is registered (titles are compared to the letter): "
            f"if that is meant, have the requester name {nearest}."
        )
    known = f"Known destinations are: {site.titles()}."
    yield Advice(f"{known} To add this one:", registration(title))


def register_right(case: Case, site: Site) -> Iterator[Advice]:
    """A calling AE that may not do what it asked for."""
    remote = site.remotes.get(case.calling_ae)
    service = SERVICES.get(case.service)
    if remote is None or service is None:
        title = case.calling_ae or "TITLE"
        yield Advice(
            "Register the calling AE with what it may do; without --allow it may do everything:",
            registration(title),
        )
    elif service not in remote.services:
        allowed = remote.services | {service}
        yield Advice(
            f"{remote.title} is registered without {service.value}. To allow it:",
            registration(remote.title, remote, services=allowed),
        )
    elif remote.destinations is not None and case.destination not in remote.destinations:
        named = remote.destinations | {case.destination or "DESTINATION"}
        yield Advice(
            f"{remote.title} may move to {', '.join(sorted(remote.destinations))} only. "
            f"To allow {case.destination or 'another'}:",
            registration(remote.title, remote, destinations=named),
        )
    else:
        yield Advice(f"{remote.title} may do this now; it was registered otherwise at the time.")


def destination_reachable(case: Case, site: Site) -> Iterator[Advice]:
    """A Move Destination that could not be reached, or took nothing."""
    remote = site.remotes.get(case.destination)
    if remote is not None:
        yield from _look_at(remote, site)
    elif case.destination:
        yield Advice(
            f"{case.destination} is not registered any more:", registration(case.destination)
        )
    if "storage" in case.error_comment.casefold():
        yield Advice("Are the archive's own files there and readable?", ("pacs", "check"))
    yield from sub_operations(case, site)


def _look_at(remote: RemoteAE, site: Site) -> Iterator[Advice]:
    if site.probe is not None:
        yield Advice(f"Just now: {site.probe(remote)}")
    yield Advice(
        f"{remote.title} is registered at {remote.host} port {remote.port}"
        f"{' with TLS' if remote.tls else ''}. Is it running there, does it listen on that port, does it know "
        f"{site.ae_title} as calling AE, is there a firewall between? To try:",
        ("pacs", "ae", "echo", remote.title),
    )


def sub_operations(case: Case, _site: Site) -> Iterator[Advice]:
    """Sub-operations that failed."""
    if case.retrieve is None:
        yield Advice("What became of each instance is recorded:", ("pacs", "retrieve", "list"))
        return
    number = str(case.retrieve)
    yield Advice("Each failed instance and why:", ("pacs", "retrieve", "show", number, "--failed"))
    if case.service == "C-MOVE":
        yield Advice(
            "To send again what failed, once the cause is gone:",
            ("pacs", "retrieve", "retry", number),
        )


def offending_keys(case: Case, _site: Site) -> Iterator[Advice]:
    """An Identifier that breaks a rule."""
    if case.offending:
        names = ", ".join(attribute_name(tag) for tag in case.offending)
        yield Advice(f"Have the requester mend or leave out {names}.")
    comment = case.error_comment
    if " above level " in comment or " below level " in comment:
        yield Advice(
            "Below PATIENT or STUDY a request has one value of each unique key above its level and no other key of "
            "those levels, unless relational queries were negotiated (PS3.4 C.4.1.2)."
        )
    elif "missing" in comment or "needs" in comment:
        yield Advice(
            "Give each unique key above the level one value: Patient ID, Study, Series Instance UID."
        )


def limit(setting: str, too_much: str) -> Rule:
    """A limit that a setting sets, or a database or disk in trouble."""

    def rule(case: Case, site: Site) -> Iterator[Advice]:
        value = site.settings.get(setting, "0")
        if "imit" in case.error_comment or (not case.error_comment and value != "0"):
            yield Advice(
                f"{too_much}: ask for less at a time, or raise the setting {setting} (now {value}, 0 is "
                f"no limit) and start the archive again:",
                ("pacs", "config", "show"),
            )
            return
        yield from trouble(case, site)

    return rule


def trouble(_case: Case, _site: Site) -> Iterator[Advice]:
    """The archive could not use its index or its storage."""
    yield Advice("Can the index be reached?", ("pacs", "db", "current"))
    yield Advice(
        "Is there space where the archive stores? data_dir, database_url and storage_url say where that is; the "
        "archive's log says what failed.",
        ("pacs", "config", "show"),
    )
