"""Error Comments fit 64 characters (PS3.7 C: LO) with the Attribute first, whatever Attribute it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.datadict import DicomDictionary, tag_for_keyword

import pacs
from pacs.dicom.error_comment import MAX_COMMENT_CHARACTERS, about, attribute_name

PACKAGE = Path(pacs.__file__).parent
LONGEST = max((entry[4] for entry in DicomDictionary.values()), key=len)
#: The longest that stands for each expression within a template.
LONGEST_VALUES = {
    "level.name": "PATIENT",
    "vr": "DT",
    "_MAXIMUM_LISTED": "10000",
    "' or '.join(names)": "PATIENT or STUDY or SERIES or IMAGE",
    "first": "4294967295",
    "last": "4294967295",
    "wanted[len(found)]": "4294967295",
    "count": "1000000",
    "missing": "4294967295",
    "header.length": "4294967295",
    "self._most_passed": "4000000",
    "number_of(tag)": "(FFFE,E0DD)",
    "MAX_DEPTH": "16",
    "two_bytes": "3F3F",
}
#: What takes a reason, and its position; a name is put before each.
FUNCTIONS = {"refuse": -1, "_refuse": -1, "about": -1}


def _templates() -> Iterator[tuple[str, ast.expr]]:
    for path in sorted((PACKAGE / "dicom").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            name = node.func.id if isinstance(node.func, ast.Name) else name
            if name in FUNCTIONS and isinstance(node.args[-1], ast.Constant | ast.JoinedStr):
                yield f"{path.stem}:{node.lineno}", node.args[-1]


TEMPLATES = dict(_templates())


def _rendered(template: ast.expr) -> str:
    if isinstance(template, ast.Constant):
        return str(template.value)
    assert isinstance(template, ast.JoinedStr)
    return "".join(
        LONGEST_VALUES[ast.unparse(part.value)]
        if isinstance(part, ast.FormattedValue)
        else _rendered(part)
        for part in template.values
    )


def test_there_are_templates() -> None:
    assert len(TEMPLATES) > 25


@pytest.mark.parametrize("where", TEMPLATES)
def test_reason_is_never_cut_even_with_the_longest_keyword(where: str) -> None:
    tag = tag_for_keyword(LONGEST)
    assert tag is not None
    reason = _rendered(TEMPLATES[where])

    comment = about(tag, reason)

    assert len(comment) <= MAX_COMMENT_CHARACTERS
    assert comment.endswith(f" {reason}")


@pytest.mark.parametrize(
    ("keyword", "reason", "comment"),
    [
        ("StudyDate", "is no DA", "StudyDate (0008,0020) is no DA"),
        (
            "PerformedProcedureStepStartDate",
            "is no DA, nor an ascending range",
            "(0040,0244) is no DA, nor an ascending range",
        ),
    ],
)
def test_name_of_the_attribute_is_what_becomes_shorter(
    keyword: str, reason: str, comment: str
) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert about(tag, reason) == comment


def test_private_attribute_is_named_by_its_tag() -> None:
    assert attribute_name(0x00091001) == "(0009,1001)"
    assert about(0x00091001, "is empty") == "(0009,1001) is empty"
