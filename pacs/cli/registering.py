"""``pacs ae add``, ``pacs ae set``, ``pacs ae remove``: who may call, and where C-MOVE may send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import click

from pacs.cli.lazy import did_you_mean
from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import console
from pacs.cli.remote import services_text
from pacs.config import Settings
from pacs.errors import InvalidSetting
from pacs.index.remote_ae import valid_ae_title
from pacs.model.remote_ae import MOST_PARALLEL_ASSOCIATIONS, RemoteAE, Service
from pacs.remotes import configured_remotes
from pacs.server import open_archive

_ALL = "all"
_PORT = click.IntRange(1, 65_535)


def _rights(**defaults: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options for what a remote AE may do; ``defaults`` is what the help says of those that are not given."""

    def described(option: str, text: str) -> str:
        return f"{text}  [{defaults[option]}]" if option in defaults else text

    options = (
        click.option(
            "--allow",
            "services",
            multiple=True,
            type=click.Choice([_ALL, *(service.value for service in Service)]),
            help=described("allow", "Service it may use; repeat for several."),
        ),
        click.option(
            "--destination",
            "destinations",
            multiple=True,
            metavar="TITLE",
            help=described("destination", "Move Destination it may name; repeat for several."),
        ),
        click.option("--any-destination", is_flag=True, help="It may name every Move Destination."),
        click.option(
            "--tls/--no-tls",
            "tls",
            default=None,
            help=described("tls", "Call it with TLS, and let it in with TLS only."),
        ),
        click.option(
            "--parallel-associations",
            type=click.IntRange(1, MOST_PARALLEL_ASSOCIATIONS),
            help=described(
                "parallel_associations", "Associations that one C-MOVE to it may use at a time."
            ),
        ),
        click.option("--description", help="A note for people."),
    )

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


@click.command("add")
@click.argument("title")
@click.argument("host")
@click.argument("port", type=_PORT)
@_rights(allow=_ALL, destination="any", tls="no", parallel_associations="1")
@with_settings(*ARCHIVE_SETTINGS)
def ae_add(settings: Settings, title: str, host: str, port: int, **rights: Any) -> int:
    """Register AE TITLE at HOST:PORT, or change what is registered.

    Of an AE that is registered already, whatever is not named stays as it is. A running server knows a new AE at
    once, and a change within two seconds.
    """
    title = valid_ae_title(title)
    named = _given(host=host, port=port) | _named(**rights)

    def change(before: RemoteAE | None) -> RemoteAE:
        if before is None:
            return RemoteAE(title=title, **named)
        return replace(before, **named)

    return _change(settings, title, change)


@click.command("set")
@click.argument("title")
@click.option("--host", help="Where it is called, and calls from.")
@click.option("--port", type=_PORT, help="The port it is called at.")
@_rights()
@with_settings(*ARCHIVE_SETTINGS)
def ae_set(
    settings: Settings, title: str, host: str | None, port: int | None, **rights: Any
) -> int:
    """Change what is named of the registered AE TITLE, and nothing else.

    --allow and --destination name all that it may from now on, not only what is added. A running server knows the
    change within two seconds.
    """
    title = valid_ae_title(title)
    named = _given(host=host, port=port) | _named(**rights)
    if not named:
        raise click.UsageError("say what to change")

    def change(before: RemoteAE | None) -> RemoteAE:
        if before is None:
            raise InvalidSetting(_not_registered(settings, title))
        return replace(before, **named)

    return _change(settings, title, change)


@click.command("remove")
@click.argument("title")
@with_settings(*ARCHIVE_SETTINGS)
def ae_remove(settings: Settings, title: str) -> int:
    """Forget AE TITLE."""
    with closing(open_archive(settings, make=False)) as archive:
        removed = archive.index.remote_aes.remove(title)
        near = did_you_mean(title, [remote.title for remote in archive.index.remote_aes.all()])
    if not removed:
        raise InvalidSetting(f"no remote AE {title!r} is registered.{near}")
    console.print(f"{title} is removed")
    return 0


def _named(
    *,
    services: tuple[str, ...],
    destinations: tuple[str, ...],
    any_destination: bool,
    **others: Any,
) -> dict[str, Any]:
    """The fields of a registration that the user has named."""
    if destinations and any_destination:
        raise click.UsageError("--destination and --any-destination contradict each other")
    named = _given(**others)
    if services:
        named["services"] = (
            frozenset(Service) if _ALL in services else frozenset(map(Service, services))
        )
    if destinations or any_destination:
        named["destinations"] = frozenset(destinations) or None
    return named


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _not_registered(settings: Settings, title: str) -> str:
    if any(remote.title == title for remote in configured_remotes(settings)):
        return (
            f"{title} is registered by the setting remote_aes; pacs ae add puts it into the index"
        )
    return f"no remote AE {title!r} is registered; see: pacs ae list"


def _change(settings: Settings, title: str, change: Callable[[RemoteAE | None], RemoteAE]) -> int:
    with closing(open_archive(settings, make=False)) as archive:
        before, after = archive.index.remote_aes.change(title, change)
    if before is None:
        console.print(f"{after.title} is registered at {after.host}:{after.port}")
        return 0
    changes = list(_changes(before, after))
    done = (
        "was registered, and is changed:"
        if changes
        else "is registered just so, nothing is changed"
    )
    console.print(f"{after.title} {done}")
    for line in changes:
        console.print(f"  {line}")
    return 0


def _changes(before: RemoteAE, after: RemoteAE) -> list[str]:
    old, new = _described(before), _described(after)
    return [f"{name}: {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]


def _described(remote: RemoteAE) -> Mapping[str, str]:
    """The fields of a registration in the words of ``pacs ae list``."""
    return {
        _LABELS.get(field.name, field.name): _text(field.name, getattr(remote, field.name))
        for field in fields(remote)
    }


_LABELS = {
    "services": "may",
    "destinations": "may move to",
    "tls": "TLS",
    "parallel_associations": "associations",
}


def _text(name: str, value: Any) -> str:
    match name:
        case "services":
            return services_text(value)
        case "destinations":
            return "any" if value is None else " ".join(sorted(value))
        case "tls":
            return "yes" if value else "no"
        case _:
            return str(value) or "none"
