"""Groups of commands that import a command when it is called.

The archive's libraries take two seconds of CPU to import, and no command needs all of them; ``--help`` needs none.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, and the first sentence of its help, for the list of commands."""

    module: str
    attribute: str
    summary: str

    def load(self) -> click.Command:
        """Import it."""
        command = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(command, click.Command)
        return command


@dataclass(frozen=True, slots=True)
class Group:
    """A group of commands, all of them lazy."""

    summary: str
    members: Mapping[str, Lazy]

    def load(self) -> click.Command:
        """Make the group; imports none of its commands."""
        return LazyGroup(members=self.members, help=self.summary)


class LazyGroup(click.Group):
    """A group whose commands are listed from a table and imported one by one."""

    def __init__(self, *, members: Mapping[str, Lazy | Group], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._members = members

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self._members)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, unless it was before."""
        if cmd_name not in self._members:
            return None
        if cmd_name not in self.commands:
            command = self._members[cmd_name].load()
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.summary) for name, one in self._members.items()])

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that does not exist is answered with what may have been meant."""
        if args and args[0] not in self._members and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], list(self._members))}")
        return super().resolve_command(ctx, args)


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """What may have been meant, as a sentence with a space before it; empty if nothing comes near."""
    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(given.casefold(), folded, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(folded[one] for one in near)}?" if near else ""
