"""The Conformance Statement says what is so, in both forms (PS3.2)."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pacs.config import Settings
from pacs.dimse.status import STATUS_OF
from pacs.statement.blocks import Heading, Paragraph, Table, as_html, as_markdown
from pacs.statement.claims import proved_by
from pacs.statement.sections import statement

_COMMITTED = Path(__file__).parents[2] / "docs" / "conformance-statement.md"
#: What the committed one was written with.
_SETTINGS = Settings(data_dir=Path("/var/lib/pacs"))


def test_the_committed_statement_is_not_stale() -> None:
    """Mended by: pacs conformance statement --data-dir /var/lib/pacs --output docs/conformance-statement.md."""
    assert _COMMITTED.read_text("utf-8") == as_markdown(statement(_SETTINGS))


def test_each_link_leads_somewhere_in_both_forms() -> None:
    markdown, page = as_markdown(statement(_SETTINGS)), as_html(statement(_SETTINGS))
    links = set(re.findall(r"\]\(#([^)]+)\)", markdown))

    assert links
    assert links == set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'<a id="([^"]+)"', markdown))
    assert links <= set(re.findall(r'<a id="([^"]+)"', page))


def test_settings_are_those_in_force() -> None:
    text = as_markdown(
        statement(
            Settings(
                data_dir=Path("/var/lib/pacs"),
                ae_title="RESEARCH",
                maximum_associations=7,
                allow_any=True,
                extended_negotiation=("relational",),
            )
        )
    )

    assert "AE title `RESEARCH`" in text
    assert "| associations accepted at once | 7;" in text
    assert "| calling AE title | any |" in text
    assert "| Relational-queries | yes (`relational`) |" in text
    assert "| Date-time matching | no |" in text


def test_each_status_of_each_service_is_there() -> None:
    sections = as_markdown(statement(_SETTINGS)).split("#### ")
    for service, statuses in STATUS_OF.items():
        [section] = [one for one in sections if one.startswith(service.value)]
        for status in statuses.values():
            assert f"| {status:04X} |" in section


def test_a_claim_whose_check_is_gone_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"no\.such"):
        proved_by("no.such")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_escapes_what_settings_hold() -> None:
    hostile = "<script>alert(1)</script> | `x`"
    page = _Text()
    page.feed(
        as_html([Heading(1, "T"), Paragraph(hostile), Table(("a",), ((f"#here#{hostile}",),))])
    )

    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") == 2
    assert "\\|" in as_markdown([Table(("a",), ((hostile,),))])
