from __future__ import annotations

import pytest

from pacs.dicom.ae_titles import normalised_ae_title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("PACS", "PACS"),
        ("  CT 1 ", "CT 1"),
        ("[~!@", "[~!@"),
        ("X" * 16, "X" * 16),
        (" " + "X" * 16 + " ", "X" * 16),
    ],
)
def test_ae_title_loses_the_spaces_around_it(text: str, title: str) -> None:
    assert normalised_ae_title(text) == title


@pytest.mark.parametrize(
    "text", ["", "   ", "X" * 17, "A\\B", "A\nB", "A\n", "A\x7f", "\xc4E", "\tA"]
)
def test_ae_title_that_is_none_is_none(text: str) -> None:
    assert normalised_ae_title(text) is None
