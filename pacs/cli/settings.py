"""``pacs config``."""

from __future__ import annotations

import click

from pacs.cli.options import ALL_SETTINGS, with_settings
from pacs.cli.output import print_json, print_table
from pacs.config import Settings


@click.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ALL_SETTINGS)
def config_show(settings: Settings, as_json: bool) -> int:
    """Show every setting, its value and where it comes from; secrets are masked."""
    values, sources = settings.describe(), settings.sources()
    if as_json:
        print_json({name: {"value": values[name], "source": sources[name]} for name in values})
    else:
        rows = [(name, values[name], sources[name]) for name in values]
        print_table("", ("setting", "value", "from"), rows)
    return 0
