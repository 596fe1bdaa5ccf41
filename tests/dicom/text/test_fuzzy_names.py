"""Names by sound, in any order (PS3.4 C.2.2.2.1.1): the examples of the Standard and of the conformance statement."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom.query.matching import FuzzyName, SingleValue, WildCard, fuzzy, matches
from pacs.dicom.text.fuzzy_names import code_patterns, name_codes


def _matches(key: str, name: str) -> bool:
    plain = WildCard(key) if set(key) & set("*?") else SingleValue(key)
    return matches("PN", fuzzy("PN", plain), name)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Swain", "Swayne"),
        ("Smith^Mary", "Mary^Smith"),
        ("Smith^Mary", "Mary Smith"),
        ("Smith^Mary", "Smith, Mary"),
        ("Smith^Mary", "Smythe^Mary^A"),
        ("Maier", "Meyer^Jörg"),
        ("MAYR", "Mair-Schulz^Eva"),
        ("MUELLER^JUERGEN", "Müller^Jürgen"),
        ("Kath*", "Catherine^Ann"),
        ("Smi*^*", "Schulz^Smythe"),
        ("OBrien", "O'Brien^Pat"),
        ("O\N{RIGHT SINGLE QUOTATION MARK}Brien", "obrian^pat"),
        ("山田", "Yamada^Tarou=山田^太郎"),
        ("太郎^Yamada", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Stefan", "Doe^Jane\\Stephen^John"),
    ],
)
def test_fuzzy_key_matches_by_sound_in_any_order(key: str, name: str) -> None:
    assert _matches(key, name)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Swain", "Swanson^Ann"),
        ("Smith^Mary", "Smith^John"),
        ("Smith^Mary^A", "Smith^Mary"),
        ("MUELLER^JUERGEN", "Müller^Jonas"),
        ("Kath*", "Karl^Ann"),
        ("Maier", "Mahler^Eva"),
        ("山田", "Yamada^Tarou=山本^太郎"),
        # One name has to have all words.
        ("Doe^Stefan", "Doe^Jane\\Stephen^John"),
        # No fuzzy meaning: a wild card elsewhere than at the end of a word.
        ("Sw?in", "Swayne"),
        ("*wain", "Swayne"),
        ("Smith", ""),
        ("Smith", "^^^"),
    ],
)
def test_fuzzy_key_does_not_match(key: str, name: str) -> None:
    assert not _matches(key, name)


@pytest.mark.parametrize("key", ["^", "*^*", "Sw?in", "a*b", "**a", "-", "a " * 17])
def test_key_without_fuzzy_meaning_stays_as_it_is(key: str) -> None:
    assert code_patterns(key) == ()
    assert fuzzy("PN", SingleValue(key)) == SingleValue(key)


def test_only_names_are_fuzzy() -> None:
    assert fuzzy("LO", SingleValue("Swain")) == SingleValue("Swain")
    assert isinstance(fuzzy("PN", SingleValue("Swain")), FuzzyName)


@given(name=st.text(max_size=80), data=st.data())
def test_fuzzy_matches_all_that_plain_matching_does(name: str, data: st.DataObject) -> None:
    """Never fewer: the key is made of the name."""
    end = data.draw(st.integers(0, len(name)))
    key = data.draw(st.sampled_from([name, name.swapcase(), name[:end], name[:end] + "*"]))
    plain = WildCard(key) if set(key) & set("*?") else SingleValue(key)

    if matches("PN", plain, name):
        assert matches("PN", fuzzy("PN", plain), name)


@given(name=st.text(max_size=200))
def test_codes_of_any_name_are_words_between_spaces(name: str) -> None:
    codes = name_codes(name)

    assert codes == "" or codes == f" {' '.join(codes.split(' ')[1:-1])} "
    assert not set(codes) & set("\\*?\0")


def test_codes_of_a_hostile_name_take_no_time() -> None:
    started = time.process_time()

    name_codes("sch" * 30_000)

    assert time.process_time() - started < 1
