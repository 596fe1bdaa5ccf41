"""Settings as command-line options."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click

from pacs import config_sources
from pacs.cli.output import configure_logging
from pacs.config import Settings, is_secret, names

#: What it takes to open an archive; only ``pacs serve`` and ``pacs import`` store anything into it.
ARCHIVE_SETTINGS = ("data_dir", "database_url", "storage_url", "log_level")
#: What it takes to call a remote AE.
SCU_SETTINGS = (
    "ae_title",
    "acse_timeout_seconds",
    "dimse_timeout_seconds",
    "connect_timeout_seconds",
    "tls_certificate",
    "tls_key",
    "tls_ca",
    "tls_check_host_name",
)
ALL_SETTINGS = tuple(name for name in names() if not is_secret(name))


def with_settings(*wanted: str, default_log_level: str | None = None) -> Callable[[Any], Any]:
    """Give a command ``--config`` and an option for each named setting; it is called with ``settings=``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(**arguments: Any) -> Any:
            overrides = {name: arguments.pop(name) for name in wanted}
            config = arguments.pop("config")
            settings = Settings.load(overrides, config=None if config is None else Path(config))
            is_default = settings.sources()["log_level"] == "default"
            level = default_log_level if default_log_level and is_default else settings.log_level
            configure_logging(level, identifiers=settings.log_identifiers)
            return function(settings=settings, **arguments)

        decorated: Callable[..., Any] = wrapper
        for name in reversed(wanted):
            decorated = _option(name)(decorated)
        return click.option("--config", metavar="FILE", help="Settings file [pacs.toml].")(
            decorated
        )

    return decorate


def _option(name: str) -> Callable[[Any], Any]:
    field = Settings.model_fields[name]
    flag = "--" + name.replace("_", "-")
    default = (
        "" if field.is_required() or field.default_factory else config_sources.text(field.default)
    )
    text = (field.description or "") + (f"  [{default}]" if default else "")
    if field.annotation is bool:
        return click.option(
            f"{flag}/--no-{flag[2:]}", name, default=None, help=text, show_default=False
        )
    return click.option(flag, name, metavar=_metavar(field.annotation), help=text)


def _metavar(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return f"[{'|'.join(get_args(annotation))}]"
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = get_args(annotation)[0]
    return {int: "N", float: "SECONDS", Path: "PATH"}.get(annotation, "TEXT")  # type: ignore[call-overload,no-any-return]
