from pathlib import Path

import pytest

from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.conformance import keys, update

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_conformance_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()

    assert update(text) == text, "run: python -m pacs.dicom.conformance docs/conformance.md"


def test_keys_table_has_a_row_for_each_attribute() -> None:
    rows = keys().splitlines()[2:]

    assert len(rows) == len(ATTRIBUTES)


def test_update_unknown_block_is_an_error() -> None:
    with pytest.raises(KeyError):
        update("<!-- generated: nothing -->\n<!-- end -->")
