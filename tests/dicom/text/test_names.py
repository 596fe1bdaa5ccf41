from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom.text.names import fold, name_groups


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MÜLLER", "muller"),
        ("Straße", "STRASSE"),
        ("Διονυσιος", "ΔΙΟΝΥΣΙΟΣ"),
        ("Διονύσιος", "διονυσιοσ"),
        ("Ilıca", "ILICA"),  # noqa: RUF001 - a Turkish name
        ("İzmir", "izmir"),
        ("Łukasz", "lukasz"),
        ("Søren", "SOREN"),
        ("Ёлка", "елка"),
        ("Ｙａｍａｄａ", "yamada"),  # noqa: RUF001 - full width on purpose
        ("ﾔﾏﾀﾞ", "ヤマダ"),
        ("Jérôme", "Je\u0301ro\u0302me"),
        ("שָׁרוֹן", "שרון"),
    ],
)
def test_fold_same_name_written_differently_is_equal(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("はな", "ばな"),
        ("ハン", "パン"),
        ("กา", "กี"),
        ("山田", "山本"),
        ("김", "강"),
        ("Doe", "Dow"),
    ],
)
def test_fold_different_letters_stay_different(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text())
def test_fold_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(alphabet=st.characters(exclude_characters="\\")))
def test_fold_never_makes_a_value_delimiter(text: str) -> None:
    assert "\\" not in fold(text)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Doe^Jane", ("doe^jane", "", "")),
        ("Doe^Jane^^^", ("doe^jane", "", "")),
        (" Doe ^ Jane  Ann ", ("doe^jane ann", "", "")),
        ("^Jane", ("^jane", "", "")),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("yamada^tarou", "山田^太郎", "やまだ^たろう")),
        ("=山田^太郎", ("", "山田^太郎", "")),
        ("Doe=", ("doe", "", "")),
        ("a=b=c=d", ("a", "b", "c")),
        ("^^", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_name_groups_are_folded_without_what_does_not_count(
    name: str, groups: tuple[str, str, str]
) -> None:
    assert name_groups(name) == groups
