"""Every status, rejection and abort has an explanation, and every command in one exists and parses."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from pacs.cli import app
from pacs.dimse.status import STATUS_OF, DimseService, Status
from pacs.explain import endings, statuses
from pacs.explain.advice import SERVICES
from pacs.explain.cases import explain_association, explain_status
from pacs.explain.endings import explain_ending
from pacs.explain.explanation import Advice, Case, Explanation, Failure, Site
from pacs.model.associations import AssociationEnding, AssociationRecord, ProposedContext
from pacs.model.remote_ae import RemoteAE, Service

#: PS3.8 Table 9-21, those that are not reserved: source and reason.
REJECTIONS = [(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (3, 1), (3, 2)]
#: PS3.8 Table 9-26: source and reason.
ABORTS = [(0, 0), (2, 0), (2, 1), (2, 2), (2, 4), (2, 5), (2, 6)]

RESTRICTED = RemoteAE(
    title="CT1",
    host="10.0.0.7",
    port=104,
    services=frozenset({Service.STORE, Service.MOVE}),
    destinations=frozenset({"RESEARCH"}),
    tls=True,
    parallel_associations=4,
    description="the CT 'next door'",
)
SITES = [
    Site(),
    Site(
        remotes={
            "CT1": RESTRICTED,
            "RESEARCH": RemoteAE(title="RESEARCH", host="10.0.0.8", port=11112),
        },
        settings={"find_limit": "10", "retrieve_limit": "0", "maximum_associations": "3"},
        probe=lambda remote: f"{remote.title} answers a C-ECHO",
    ),
]


def record(ending: AssociationEnding, *codes: int, **fields: Any) -> AssociationRecord:
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "calling_ae": "CT1",
        "called_ae": "ARCHIVE",
        "calling_host": "10.0.0.9",
        "tls": False,
        "started_at": now,
        "finished_at": now,
    }
    return AssociationRecord(ending=ending, codes=codes, **(defaults | fields))


def every_case() -> Iterator[Case]:
    for service in ("", *SERVICES):
        for status in (
            *Status,
            0xA7FF,
            0xA9AA,
            0xB0FF,
            0xC123,
            0x0001,
            0x0107,
            0x0110,
            0xABCD,
            0x7FFF,
        ):
            for destination in ("", "RESEARCH", "Research2", "OTHER"):
                yield Case(
                    service=service,
                    status=int(status),
                    calling_ae="CT1",
                    destination=destination,
                    error_comment="PatientName (0010,0010) is a key above level STUDY",
                    offending=(0x00100010,),
                    counts=(1, 2, 0, 0),
                    retrieve=7 if destination else None,
                    failures=(Failure(0xA700, "full", 2), Failure(None, "gone")),
                )


def every_ending() -> Iterator[AssociationRecord]:
    for codes in (*REJECTIONS, (1, 9)):
        for result in (1, 2):
            for calling in ("CT1", "ct1", "STRANGER", ""):
                yield record(AssociationEnding.REJECTED, result, *codes, calling_ae=calling)
    for codes in (*ABORTS, (2, 9)):
        yield record(AssociationEnding.ABORTED_BY_PEER, *codes)
        yield record(AssociationEnding.ABORTED, *codes, detail="context 3 was not accepted")
    for ending in AssociationEnding:
        yield record(ending, 1, 1, 1)


def every_explanation() -> Iterator[Explanation]:
    for site in SITES:
        for case in every_case():
            yield explain_status(case, site)
        for one in every_ending():
            yield explain_ending(one, site)


@pytest.mark.parametrize("status", Status, ids=lambda one: one.name)
def test_each_status_has_a_row(status: Status) -> None:
    for service in SERVICES:
        row = statuses.row_of(service, status)

        assert row in statuses.ROWS.values()
        assert row.clause
        assert row.why
        assert row.rules


@pytest.mark.parametrize("service", DimseService)
def test_each_status_that_an_error_becomes_has_a_row(service: DimseService) -> None:
    for status in STATUS_OF[service].values():
        assert statuses.row_of(service.value, status) in statuses.ROWS.values()


def test_rows_are_of_statuses_that_can_be_answered() -> None:
    assert {status for _, status in statuses.ROWS} == set(Status)
    assert {service for service, _ in statuses.ROWS if service} <= set(SERVICES)


def test_each_rejection_and_abort_of_the_standard_has_a_row() -> None:
    assert set(endings.REJECTIONS) == set(REJECTIONS)
    assert set(endings.ABORTS) == set(ABORTS)


@pytest.mark.parametrize(
    ("calling", "commands"),
    [("CT1", []), ("WS", ["pacs ae add WS 10.0.0.9 PORT"])],
    ids=["registered", "stranger"],
)
def test_local_limit_is_explained_with_every_limit_there_is(
    calling: str, commands: list[str]
) -> None:
    rejected = record(AssociationEnding.REJECTED, 2, 3, 2, calling_ae=calling)

    advice = explain_ending(rejected, SITES[1]).change

    assert [one.command_line for one in advice] == ["pacs config show", *commands]
    for setting in ("maximum_associations = 3", "_per_ae", "_per_host"):
        assert setting in advice[0].text


def test_each_ending_is_explained() -> None:
    for one in every_ending():
        found = explain_ending(one, Site())

        assert found.what
        assert found.change


def parse(command: tuple[str, ...], file: Path) -> None:
    """Parse a command as the command line would; raises if it does not exist."""
    assert command[0] == "pacs"
    given = {"PORT": "104", "FILE": str(file)}
    names = [given.get(one, one) for one in command[1:]]
    found: click.Command = app
    while isinstance(found, click.Group):
        command = found.get_command(click.Context(found), names.pop(0))
        assert command is not None
        found = command
    found.make_context("pacs", names)


def test_each_command_exists_and_parses(tmp_path: Path) -> None:
    file = tmp_path / "file.dcm"
    file.touch()
    commands = {
        advice.command for one in every_explanation() for advice in one.change if advice.command
    }

    for command in commands:
        parse(command, file)
        assert tuple(shlex.split(Advice("", command).command_line)) == command
    assert {command[1] for command in commands} >= {"ae", "retrieve", "db", "config", "serve"}


def test_a_command_that_does_not_exist_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError):
        parse(("pacs", "retrieve", "show"), tmp_path)
    with pytest.raises(AssertionError):
        parse(("pacs", "ae", "change"), tmp_path)


def test_explanations_are_whole_sentences_of_printable_text() -> None:
    for one in every_explanation():
        for text in (one.what, *one.why, *(advice.text for advice in one.change)):
            assert text.strip() == text != ""
            assert "  " not in text
            assert "None" not in text


# What the facts of the installation change


def test_command_for_a_registered_ae_names_what_it_changes() -> None:
    case = Case(service="C-FIND", status=0x0124, calling_ae="CT1")

    (advice,) = explain_status(case, SITES[1]).change

    assert advice.command_line == (
        "pacs ae add CT1 10.0.0.7 104 --allow store --allow find --allow move --tls"
    )


def test_a_destination_is_added_to_those_it_may_name() -> None:
    case = Case(service="C-MOVE", status=0x0124, calling_ae="CT1", destination="OTHER")

    (advice,) = explain_status(case, SITES[1]).change

    assert "--destination OTHER --destination RESEARCH" in advice.command_line
    assert "RESEARCH only" in advice.text


@pytest.mark.parametrize(
    ("title", "nearest"),
    [
        ("research", "RESEARCH"),
        ("RESEARHC", "RESEARCH"),
        ("RESEARCH2", "RESEARCH"),
        ("XYZ", None),
        ("ARCHIVE", None),
        ("STORE1", None),
    ],
)
def test_a_mistyped_destination_is_told_from_a_new_one(title: str, nearest: str | None) -> None:
    case = Case(service="C-MOVE", status=0xA801, calling_ae="CT1", destination=title)

    texts = [one.text for one in explain_status(case, SITES[1]).change]

    guesses = [text.split(",")[0] for text in texts if "looks like" in text]
    assert guesses == ([] if nearest is None else [f"{title} looks like {nearest}"])
    assert any("Known destinations are: CT1, RESEARCH." in text for text in texts)


def test_another_host_and_no_tls_are_told_apart() -> None:
    texts = [
        one.text
        for one in explain_ending(record(AssociationEnding.REJECTED, 1, 1, 3), SITES[1]).change
    ]

    assert any("without TLS" in text for text in texts)
    assert any("host 10.0.0.7, but called from 10.0.0.9" in text for text in texts)


def test_nothing_is_said_of_tls_to_a_peer_that_used_it() -> None:
    found = explain_ending(record(AssociationEnding.REJECTED, 1, 1, 3, tls=True), SITES[1])

    assert not any("without TLS" in one.text for one in found.change)


def test_a_limit_is_told_from_trouble_by_the_comment() -> None:
    of_limit = Case(service="C-FIND", status=0xA700, error_comment="Limit of 10 matches reached")
    of_trouble = Case(service="C-FIND", status=0xA700, error_comment="The index cannot be reached.")

    assert "find_limit" in explain_status(of_limit, SITES[1]).change[0].text
    assert explain_status(of_trouble, SITES[1]).change[0].command == ("pacs", "db", "current")


def test_nothing_is_asked_of_a_destination_unless_it_is_to_be_probed() -> None:
    case = Case(service="C-MOVE", status=0xA702, destination="RESEARCH")
    asked: list[str] = []
    probing = Site(
        remotes=SITES[1].remotes,
        probe=lambda remote: asked.append(remote.title) or "dead",  # type: ignore[func-returns-value]
    )

    explain_status(case, Site(remotes=SITES[1].remotes))
    assert asked == []
    assert explain_status(case, probing).change[0].text == "Just now: dead"
    assert asked == ["RESEARCH"]


def test_refused_contexts_are_named() -> None:
    contexts = (
        ProposedContext(
            abstract_syntax="1.2.840.10008.5.1.4.31",
            transfer_syntaxes=("1.2.840.10008.1.2",),
            result=3,
        ),
    )

    (found,) = explain_association(record(AssociationEnding.RELEASED, contexts=contexts), Site())

    assert "1 of 1 presentation contexts were refused" in found.what
    assert "Modality Worklist" in found.why[0]
    assert "SOP Class not supported (Implicit VR Little Endian)" in found.why[0]
