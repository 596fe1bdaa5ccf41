"""What the command line says of itself: help that holds, and complaints that read as sentences."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from pacs.cli import app

#: What ``pacs ae add`` takes for what is not named, as its help shows it.
DEFAULTS = ["[all]", "[any]", "[no]", "[1]"]


def shown_defaults(command: str) -> list[str]:
    helped = CliRunner().invoke(app, ["ae", command, "--help"])
    assert helped.exit_code == 0
    return [default for default in DEFAULTS if default in helped.output]


def test_help_of_ae_set_names_no_defaults_since_what_is_not_named_stays() -> None:
    assert shown_defaults("set") == []
    assert shown_defaults("add") == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "zzzz"], "'zzzz' is not a status, such as 0xA801 or a801. See: pacs explain"),
        (["fnd"], "No such command 'fnd'. Did you mean find? See: pacs"),
        (["ae", "set", "X"], "say what to change. See: pacs ae set"),
    ],
)
def test_a_complaint_is_a_sentence_before_it_points_to_the_help(
    arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pacs", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"pacs: {said} --help\n")
