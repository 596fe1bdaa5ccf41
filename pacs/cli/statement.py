"""``pacs conformance statement``: the DICOM Conformance Statement of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pacs.cli.options import ALL_SETTINGS, with_settings
from pacs.config import Settings
from pacs.statement.blocks import as_html, as_markdown
from pacs.statement.sections import statement

_WRITERS = {"markdown": as_markdown, "html": as_html}


@click.command("statement")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_WRITERS)),
    default="markdown",
    show_default=True,
    help="Form of the document.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; without it, standard output.",
)
@with_settings(*ALL_SETTINGS, default_log_level="warning")
def statement_command(settings: Settings, form: str, output: Path | None) -> int:
    """Write the DICOM Conformance Statement from the settings in force and the tables in the code."""
    text = _WRITERS[form](statement(settings))
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from error
    return 0
