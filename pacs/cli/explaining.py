"""``pacs explain``: what went wrong, why, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from pacs.archive.archive import Archive
from pacs.cli.options import ARCHIVE_SETTINGS, SCU_SETTINGS, with_settings
from pacs.cli.output import console, print_json
from pacs.config import Settings
from pacs.dimse import query_scu
from pacs.dimse.peer import Peer
from pacs.errors import InvalidSetting, NoArchive, PacsError
from pacs.explain.advice import SERVICES
from pacs.explain.cases import explain_status
from pacs.explain.explanation import Case, Explanation, Site
from pacs.explain.problems import Problem, Problems
from pacs.explain.traces import explain_trace, read_traces
from pacs.model.remote_ae import RemoteAE
from pacs.remotes import configured_remotes
from pacs.scp import options_of
from pacs.server import open_archive

_HIGHEST_STATUS = 0xFFFF


@click.command("explain")
@click.argument("status", required=False)
@click.option("--association", type=int, metavar="N", help="Explain recorded association N.")
@click.option("--retrieve", type=int, metavar="N", help="Explain recorded retrieve N.")
@click.option("--ae", "calling_ae", metavar="TITLE", help="The latest problem of this calling AE.")
@click.option("--last", type=click.IntRange(1, 1000), default=1, help="The latest N problems.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Explain the associations in a trace file (JSON).",
)
@click.option("--service", type=click.Choice(list(SERVICES)), help="The service STATUS is of.")
@click.option("--destination", default="", help="The Move Destination that STATUS was about.")
@click.option("--probe", is_flag=True, help="Send a C-ECHO to destinations that failed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS, *SCU_SETTINGS, "remote_aes", default_log_level="warning")
def explain_command(
    settings: Settings,
    status: str | None,
    association: int | None,
    retrieve: int | None,
    calling_ae: str | None,
    last: int,
    trace: Path | None,
    service: str | None,
    destination: str,
    probe: bool,
    as_json: bool,
) -> int:
    """Say what went wrong, why, and what to change.

    Without arguments: the latest recorded problem. With STATUS, such as 0xA801: what that means. Exit code 1 means
    that something went wrong, 0 that nothing did, or that a STATUS was explained.
    """
    chosen = [one for one in (status, association, retrieve, trace) if one is not None]
    if len(chosen) > 1:
        raise click.UsageError("one of STATUS, --association, --retrieve and --trace is enough")
    if status is not None or trace is not None:
        with _archive_if_any(settings) as archive:
            site = _site(settings, archive, probe=probe)
        if trace is not None:
            found = [one for each in read_traces(trace) for one in explain_trace(each, site)]
            _print_all(found, as_json=as_json)
            return 1 if found else 0
        _print_all(
            [explain_status(_case(str(status), service, destination), site)], as_json=as_json
        )
        return 0
    with closing(open_archive(settings, make=False)) as archive:
        problems = Problems(archive.index, _site(settings, archive, probe=probe))
        shown = _chosen(problems, association, retrieve, last, calling_ae)
    return _print_problems(shown, as_json=as_json)


def _chosen(
    problems: Problems,
    association: int | None,
    retrieve: int | None,
    last: int,
    calling_ae: str | None,
) -> list[Problem]:
    if association is None and retrieve is None:
        return problems.latest(last, calling_ae)
    if association is not None:
        kind, number, found = "association", association, problems.association(association)
    else:
        assert retrieve is not None
        kind, number, found = "retrieve", retrieve, problems.retrieve(retrieve)
    if found is None:
        raise InvalidSetting(f"no {kind} {number} is recorded; see: pacs explain --last 20")
    return [found]


def _case(status: str, service: str | None, destination: str) -> Case:
    try:
        code = int(status, 16)
    except ValueError:
        code = -1
    if not 0 <= code <= _HIGHEST_STATUS:
        raise click.UsageError(f"{status!r} is not a status, such as 0xA801 or a801")
    return Case(service=service or "", status=code, destination=destination)


@contextmanager
def _archive_if_any(settings: Settings) -> Iterator[Archive | None]:
    """The archive, if there is one: a question that needs none is answered without."""
    try:
        archive = open_archive(settings, make=False)
    except NoArchive:
        yield None
        return
    with closing(archive):
        yield archive


def _site(settings: Settings, archive: Archive | None, *, probe: bool) -> Site:
    known = {remote.title: remote for remote in configured_remotes(settings)}
    if archive is not None:
        known |= {remote.title: remote for remote in archive.index.remote_aes.all()}

    def ask(remote: RemoteAE) -> str:
        peer = Peer(remote.title, remote.host, remote.port, remote.tls)
        try:
            query_scu.echo(options_of(settings), peer)
        except PacsError as error:
            return f"{remote.title} cannot be reached: {error.message}"
        return f"{remote.title} answers a C-ECHO"

    return Site(
        ae_title=settings.ae_title,
        remotes=known,
        settings={name: str(value) for name, value in settings.describe().items()},
        probe=ask if probe else None,
    )


def _print_all(explanations: list[Explanation], *, as_json: bool) -> None:
    if as_json:
        print_json([one.as_dict() for one in explanations])
    elif not explanations:
        console.print("nothing in it went wrong")
    else:
        for one in explanations:
            _print(one)


def _print_problems(problems: list[Problem], *, as_json: bool) -> int:
    if as_json:
        print_json([one.as_dict() for one in problems])
        return _exit_code(problems)
    if not problems:
        console.print("nothing that went wrong is recorded")
    for problem in problems:
        when = f"{problem.started_at:%Y-%m-%d %H:%M:%S} UTC"
        who = f"{problem.calling_ae}@{problem.calling_host}"
        _line(f"{problem.kind} {problem.number}: {who}, {when}, {problem.ended}")
        for one in problem.explanations:
            _print(one, indent="  ")
    return _exit_code(problems)


def _exit_code(problems: list[Problem]) -> int:
    return 1 if any(one.explanations for one in problems) else 0


def _print(explanation: Explanation, indent: str = "") -> None:
    clause = f" [{explanation.clause}]" if explanation.clause else ""
    _line(f"{indent}{explanation.what}{clause}")
    for reason in explanation.why:
        _line(f"{indent}  why: {reason}")
    for advice in explanation.change:
        _line(f"{indent}  to do: {advice.text}")
        if advice.command:
            _line(f"{indent}    {advice.command_line}")


def _line(text: str) -> None:
    console.print(text)
