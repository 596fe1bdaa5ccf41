"""``pacs health``: for Docker, systemd and monitoring; imports nothing that takes long."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from pacs.config_sources import DATA_DIR, Sources
from pacs.errors import DestinationUnreachable, InvalidSetting
from pacs.foreign_text import visible
from pacs.health import NoAnswer, ask

#: More than a server takes over its answer (``pacs.archive.examination``), less than Docker waits.
_TIMEOUT_SECONDS = 8.0


@click.command("health")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"The data directory of the server.  [{DATA_DIR}]",
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="PATH", help="The settings file."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUT_SECONDS,
    metavar="SECONDS",
    show_default=True,
    help="How long to wait for the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
def health_command(
    data_dir: Path | None, config: Path | None, timeout: float, as_json: bool
) -> int:
    """Ask the server of this machine, or container, whether it can find and store.

    It tries both when it is asked. Exit code 0: it can. 1: it cannot, and says why. 3: no server answers.
    """
    try:
        answer = ask(_data_dir(data_dir, config), timeout)
    except NoAnswer as error:
        raise DestinationUnreachable(str(error)) from error
    is_well = answer.get("ok") is True
    if as_json:
        click.echo(json.dumps(answer))
    elif is_well:
        click.echo("find and store work")
    else:
        for problem in answer.get("problems") or ["the server does not say what is wrong"]:
            click.echo(visible(problem))
    return 0 if is_well else 1


def _data_dir(flag: Path | None, config: Path | None) -> Path:
    """As the server finds it, without a look at the other settings."""
    sources = Sources(("data_dir",), Path.cwd())
    given = sources.read({"data_dir": flag}, config, os.environ).get("data_dir")
    try:
        return Path.cwd() / Path(DATA_DIR if given is None else given.text).expanduser()
    except RuntimeError as error:
        raise InvalidSetting("data_dir: ~ needs a user with a home directory") from error
