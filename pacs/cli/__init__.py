"""The command line: one command, ``pacs``, with a module for each group of subcommands.

This module and ``commands`` import none of them: see ``lazy``.

Exit codes: 0 done; 1 done, but something failed or was refused; 2 bad arguments or settings; 3 the index, the
storage or the peer cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings

import click

from pacs import __version__
from pacs.cli.commands import COMMANDS
from pacs.cli.lazy import LazyGroup
from pacs.cli.output import INTERRUPTED
from pacs.errors import (
    DestinationUnreachable,
    IndexUnavailable,
    InvalidIdentifier,
    InvalidSetting,
    NoArchive,
    PacsError,
    StorageFull,
    StorageUnavailable,
)
from pacs.foreign_text import visible
from pacs.last_resort import end_out_of_memory

_EXIT_CODES: dict[type[PacsError], int] = {
    InvalidSetting: 2,
    NoArchive: 2,
    InvalidIdentifier: 2,
    IndexUnavailable: 3,
    StorageUnavailable: 3,
    StorageFull: 3,
    DestinationUnreachable: 3,
}

#: For the archive's user, and to read for a group that an operator may give to a backup.
_NOT_FOR_OTHERS = 0o027


@click.group(
    cls=LazyGroup,
    members=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every setting can also be given in the environment as PACS_NAME or in pacs.toml.",
)
@click.version_option(__version__, prog_name="pacs")
@click.option("--debug", is_flag=True, help="Show tracebacks instead of one-line errors.")
def app(debug: bool) -> None:
    """A database-backed DICOM archive: C-STORE, C-FIND, C-MOVE and C-GET over a SQL index."""


def main() -> None:
    """Run the command line and exit."""
    # Index, stored files, reports and traces hold patient data, wherever a user has them made.
    os.umask(os.umask(_NOT_FOR_OTHERS) | _NOT_FOR_OTHERS)
    if not sys.warnoptions:
        # What pydicom has to say of a peer's data is in our log lines, in our words.
        warnings.simplefilter("ignore")
    try:
        code = app.main(prog_name="pacs", standalone_mode=False)
    except MemoryError:
        end_out_of_memory()
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv[1:] and not isinstance(error, _WITHOUT_TRACEBACK):
            raise
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


_WITHOUT_TRACEBACK = (click.ClickException, click.Abort, KeyboardInterrupt, BrokenPipeError)


def _report(error: BaseException) -> int:
    """Say what went wrong, one line for each thing, and return the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.ClickException():
            _complain(_in_one_line(error))
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            _complain("interrupted")
            return INTERRUPTED
        case BrokenPipeError():
            return 1
        case InvalidSetting():
            for line in error.message.splitlines():
                _complain(line)
            return _EXIT_CODES[InvalidSetting]
        case PacsError():
            _complain(error.message)
            return _EXIT_CODES.get(type(error), 1)
        case _:
            # Nobody foresaw it, so there is no advice to give but how to report it.
            _complain(f"unexpected {type(error).__name__}: {error}; 'pacs --debug ...' shows where")
            return 1


def _complain(line: str) -> None:
    click.echo(f"pacs: {visible(line)}", err=True)


def _in_one_line(error: click.ClickException) -> str:
    """The message without the usage that click prints around it, and where to read that."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    stop = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{stop} See: {context.command_path} --help"
