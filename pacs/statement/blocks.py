"""A document of headings, paragraphs and tables, as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_CODE = re.compile(r"`([^`]*)`")
_LINK = re.compile(r"\[([^\]]+)\]\(#([^)]+)\)")
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #8886; padding: .25rem .6rem; text-align: left; vertical-align: top; }
th { background: #8882; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text, in which `code` and [links](#to-a-heading) are understood."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; its cells are as paragraphs are. A cell that begins with ``#NAME#`` is the target of links to NAME."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Paragraph | Table
_TARGET = re.compile(r"\A#([^#]+)#")


def as_markdown(blocks: Iterable[Block]) -> str:
    """The document as GitHub shows it."""
    return "\n".join(_markdown(blocks)) + "\n"


def _markdown(blocks: Iterable[Block]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if number:
            yield ""
        match block:
            case Heading(level, text):
                yield f"{'#' * level} {text}"
            case Paragraph(text):
                yield text
            case Table(headings, rows):
                yield "| " + " | ".join(headings) + " |"
                yield "|" + " --- |" * len(headings)
                for row in rows:
                    yield "| " + " | ".join(_markdown_cell(cell) for cell in row) + " |"


def _markdown_cell(text: str) -> str:
    plain = text.replace("|", "\\|")
    return _TARGET.sub(lambda found: f'<a id="{found[1]}"></a>', plain)


def as_html(blocks: Iterable[Block]) -> str:
    """The document as one page that needs nothing else."""
    listed = list(blocks)
    title = next((block.text for block in listed if isinstance(block, Heading)), "")
    body = "".join(_html(listed))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{body}</body>\n</html>\n"
    )


def _html(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Heading(level, text):
                yield f"<h{level}>{_inline(text)}</h{level}>\n"
            case Paragraph(text):
                yield f"<p>{_inline(text)}</p>\n"
            case Table(headings, rows):
                cells = "".join(f"<th>{_inline(heading)}</th>" for heading in headings)
                yield f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n"
                for row in rows:
                    yield "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>\n"
                yield "</tbody>\n</table>\n"


def _inline(text: str) -> str:
    safe = html.escape(text, quote=False)
    safe = (
        _TARGET.sub(lambda found: f'<a id="{found[1]}"></a>', safe, count=1)
        if text.startswith("#")
        else safe
    )
    safe = _LINK.sub(r'<a href="#\2">\1</a>', safe)
    return _CODE.sub(r"<code>\1</code>", safe)
