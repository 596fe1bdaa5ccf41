"""``pacs find`` and ``pacs move``: requests to any remote AE."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import contextmanager

import click
from pydicom.dataset import Dataset
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pacs.cli.options import with_settings
from pacs.cli.output import INTERRUPTED, console, errors, print_json, print_table
from pacs.cli.peers import PEER_SETTINGS, peer_argument, peer_named, tls_option
from pacs.config import Settings
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.query_options import QueryOptions
from pacs.dicom.query.response import join_whole_texts
from pacs.dicom.uids import shown_uid
from pacs.dimse import query_scu
from pacs.dimse.cancellation import Cancellation
from pacs.scp import options_of

_MODELS = {
    "study": InformationModel.STUDY_ROOT,
    "patient": InformationModel.PATIENT_ROOT,
    "patient-study": InformationModel.PATIENT_STUDY_ONLY,
}
#: Only for retrieval.
_COMPOSITE = "composite"
#: What a listing shows when the user names no return key, by level.
_SHOWN = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        "PatientID",
        "PatientName",
        "StudyDate",
        "StudyDescription",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
        "StudyInstanceUID",
    ),
    Level.SERIES: (
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
        "SeriesInstanceUID",
    ),
    Level.IMAGE: ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}

#: By what the entities below one parent are sorted: SCPs send them in any order.
_NUMBERED = {
    Level.SERIES: ("StudyInstanceUID", "SeriesNumber"),
    Level.IMAGE: ("SeriesInstanceUID", "InstanceNumber"),
}

# click takes a paragraph behind a backspace as it stands; elsewhere it breaks lines, and nobody could copy these.
_FIND_EXAMPLE = "\b\nExample: pacs find PACS@localhost:11112 PatientName='DOE*' StudyDate=20240101-"
_MOVE_EXAMPLE = "\b\nExample: pacs move PACS@localhost:11112 --to RESEARCH StudyInstanceUID=1.2.3"

_keys = click.argument("keys", nargs=-1, metavar="[KEY[=VALUE]]...")
_level = click.option(
    "-L",
    "--level",
    type=click.Choice([level.name for level in Level], case_sensitive=False),
    default="STUDY",
    show_default=True,
    help="Query/Retrieve Level.",
)
_model = click.option(
    "-M",
    "--model",
    type=click.Choice(list(_MODELS)),
    default="study",
    show_default=True,
    help="Information model; PATIENT level needs patient.",
)
_FRAME = "FRAME"
_retrieve_level = click.option(
    "-L",
    "--level",
    type=click.Choice([*(level.name for level in Level), _FRAME], case_sensitive=False),
    default="STUDY",
    show_default=True,
    help="Query/Retrieve Level; FRAME takes frames out of one instance.",
)
_retrieve_model = click.option(
    "-M",
    "--model",
    type=click.Choice([*_MODELS, _COMPOSITE]),
    default="study",
    show_default=True,
    help="Information model; PATIENT level needs patient, FRAME level composite.",
)
_relational = click.option(
    "--relational", is_flag=True, help="Negotiate to leave out the UIDs of the levels above."
)
_combined_datetime = click.option(
    "--combined-datetime",
    is_flag=True,
    help="Negotiate that ranges on a date and its time are one range.",
)
_fuzzy = click.option(
    "--fuzzy",
    is_flag=True,
    help="Negotiate that names match by sound, in any order of their words.",
)
_empty_values = click.option(
    "--empty-values",
    is_flag=True,
    help='Negotiate that a value of two quotation marks ("") finds what has no value.',
)
_multiple_values = click.option(
    "--multiple-values",
    is_flag=True,
    help="Negotiate that of several values, separated by a backslash, all have to match.",
)
_timezone = click.option(
    "--timezone",
    metavar="&ZZXX",
    help="Negotiate that times are in the zone of this offset from UTC, such as +0100.",
)


@click.command("find", epilog=_FIND_EXAMPLE)
@peer_argument
@_keys
@_level
@_model
@tls_option
@_relational
@_combined_datetime
@_fuzzy
@_empty_values
@_multiple_values
@_timezone
@click.option("--json", "as_json", is_flag=True, help="Print the matches as DICOM JSON.")
@with_settings(*PEER_SETTINGS, default_log_level="warning")
def find_command(
    settings: Settings,
    peer: str,
    keys: tuple[str, ...],
    level: str,
    model: str,
    with_tls: bool | None,
    relational: bool,
    combined_datetime: bool,
    fuzzy: bool,
    empty_values: bool,
    multiple_values: bool,
    timezone: str | None,
    as_json: bool,
) -> int:
    """Send a C-FIND and list the matches.

    KEY=VALUE restricts the matches, KEY alone asks for the value. Keys are keywords (PatientName) or tags
    (0010,0010), private ones with their Private Creator (0009,0010=GEMS_IDEN_01 0009,1001); values follow DICOM: *
    and ? are wild cards, 20240101-20241231 is a range. Below STUDY level the UIDs of the levels above have to be
    given, unless --relational is negotiated.
    """
    query_level = Level[level.upper()]
    asked = _parse_keys(keys)
    shown = _columns(query_level, asked)
    identifier = query_scu.identifier(query_level.name, dict.fromkeys(shown, "") | asked)
    if timezone is not None:
        query_scu.set_timezone(identifier, timezone)
    found = query_scu.find(
        options_of(settings),
        peer_named(settings, peer, with_tls=with_tls),
        _model_for(query_level, model),
        identifier,
        QueryOptions(
            relational=relational,
            combined_datetime=combined_datetime,
            fuzzy=fuzzy,
            empty_values=empty_values,
            multiple_values=multiple_values,
            timezone=timezone is not None,
        ),
    )
    listed = _in_order(query_level, found)
    if as_json:
        print_json([match.to_json_dict() for match in listed])
        return 0
    count = print_table("", shown, _rows(listed, shown))
    errors.print(f"{count} match{'' if count == 1 else 'es'}")
    return 0


def _in_order(level: Level, found: Iterator[Dataset]) -> Iterable[Dataset]:
    """The matches, series and instances by their numbers; parents, and what has none, as they come."""
    listed = []
    for match in found:
        join_whole_texts(match)
        listed.append(match)
    if level not in _NUMBERED:
        return listed
    parent, keyword = _NUMBERED[level]
    parents = {uid: n for n, uid in enumerate(dict.fromkeys(str(m.get(parent)) for m in listed))}
    return sorted(listed, key=lambda one: (parents[str(one.get(parent))], *_number(one, keyword)))


def _number(match: Dataset, keyword: str) -> tuple[bool, float]:
    """A number to sort by; what is none comes last."""
    try:
        return False, float(match.get(keyword))
    except (TypeError, ValueError):
        return True, 0.0


def _rows(found: Iterable[Dataset], shown: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    for match in found:
        elements = (match.get(query_scu.tag_of(keyword)) for keyword in shown)
        yield tuple(_text(None if one is None else one.value) for one in elements)


def _text(value: object) -> str:
    if value is None:
        return ""
    # Several values are a list; a person name can be iterated too, letter by letter.
    return ", ".join(map(str, value)) if isinstance(value, MutableSequence) else str(value)


def _columns(level: Level, asked: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*asked, *_SHOWN[level])))


def _parse_keys(keys: tuple[str, ...]) -> dict[str, str]:
    """The values by keyword: a tag must not stand beside its keyword, whose empty value would win."""
    asked = {}
    for key in keys:
        name, _, value = key.partition("=")
        asked[query_scu.keyword_of(name)] = value
    return asked


def _model_for(level: Level, model: str) -> InformationModel:
    if level is Level.PATIENT and model == "study":
        return InformationModel.PATIENT_ROOT
    return _MODELS[model]


def _retrieve_model_for(level: str, model: str) -> InformationModel:
    if level == _FRAME or model == _COMPOSITE:
        return InformationModel.COMPOSITE_INSTANCE_ROOT
    return _model_for(Level[level], model)


@click.command("move", epilog=_MOVE_EXAMPLE)
@peer_argument
@_keys
@_retrieve_level
@_retrieve_model
@tls_option
@_relational
@click.option("--to", "destination", required=True, metavar="TITLE", help="Move Destination.")
@click.option("--json", "as_json", is_flag=True, help="Print the final response as JSON.")
@with_settings(*PEER_SETTINGS, default_log_level="warning")
def move_command(
    settings: Settings,
    peer: str,
    keys: tuple[str, ...],
    level: str,
    model: str,
    with_tls: bool | None,
    relational: bool,
    destination: str,
    as_json: bool,
) -> int:
    r"""Send a C-MOVE: have the remote AE send instances to a third one that it knows.

    Ends with 1 if not everything has arrived, and if nothing matched.

    KEY=VALUE names the unique keys, several UIDs separated by a backslash. Ctrl-C asks the remote AE to stop
    (C-CANCEL) and waits for its answer; a second one ends the association at once.

    At level FRAME, SOPInstanceUID names one instance and SimpleFrameList='1\3', CalculatedFrameList='1\9\2' (first,
    last, step) or TimeRange='0\1.5' (seconds) its frames; the remote AE makes a new instance of them.
    """
    identifier = query_scu.identifier(level.upper(), _parse_keys(keys))
    cancellation = Cancellation()
    responses = query_scu.move(
        options_of(settings),
        peer_named(settings, peer, with_tls=with_tls),
        _retrieve_model_for(level.upper(), model),
        identifier,
        destination,
        QueryOptions(relational=relational),
        cancellation,
    )
    with _cancelled_by_ctrl_c(cancellation):
        final = _follow(responses)
    if as_json:
        print_json({name: getattr(final, name) for name in final.__dataclass_fields__})
    else:
        _report(final, destination)
    if cancellation.was_sent:
        return INTERRUPTED
    return 0 if final.status == 0x0000 and final.matched is not False else 1


@contextmanager
def _cancelled_by_ctrl_c(cancellation: Cancellation) -> Iterator[None]:
    def cancel(_number: int, _frame: object) -> None:
        if not cancellation.send():
            raise KeyboardInterrupt
        errors.print("cancelling; press Ctrl-C again to end the association at once")

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(responses: Iterator[query_scu.Progress]) -> query_scu.Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    final = None
    with Progress(*columns, console=errors.rich, disable=not errors.is_terminal) as progress:
        task = progress.add_task("moving", total=None)
        for final in responses:
            done = final.completed + final.failed + final.warning
            total = None if final.remaining is None else done + final.remaining
            progress.update(task, completed=done, total=total or done)
    assert final is not None
    return final


def _report(final: query_scu.Progress, destination: str) -> None:
    console.print(
        f"status 0x{final.status:04X}: {final.completed} completed, {final.failed} failed, "
        f"{final.warning} warning, to {destination}",
    )
    if final.status == 0x0000 and final.matched is False:
        console.print("nothing matched, so nothing was sent")
    if final.comment:
        console.print(final.comment)
    for uid in final.failed_uids:
        console.print(f"failed: {shown_uid(uid)}")
