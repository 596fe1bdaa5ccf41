"""Person names for comparison: component groups, case and accents (VR PN; PS3.5 6.2.1)."""

from __future__ import annotations

import unicodedata

# Letters that Unicode does not decompose though readers take them for a plain letter with a mark,
# and the wide forms of the value delimiter, which must not become one.
_LETTERS = str.maketrans(
    {
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "ŧ": "t",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "\N{FULLWIDTH REVERSE SOLIDUS}": "/",
        "\N{SMALL REVERSE SOLIDUS}": "/",
    }
)


def fold(text: str) -> str:
    """Reduce a text to what case- and accent-insensitive comparison looks at; idempotent.

    Full and half width are one; ß equals ss, a final sigma a sigma, a dotless i an i. Marks that
    make another letter in their script stay: the voicing marks of kana, vowel and tone signs of
    Thai and Indic scripts.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", text.translate(_LETTERS)).casefold()
    text = unicodedata.normalize("NFKD", text)
    text = "".join(character for character in text if not _is_accent(character))
    return unicodedata.normalize("NFC", text.translate(_LETTERS))


def _is_accent(character: str) -> bool:
    # Canonical combining classes: 1 overlays, 10 to 36 Hebrew and Arabic points, 200 and up marks
    # above and below in any script. The others (7 nukta, 8 kana voicing, 9 virama, 103 to 132 Thai,
    # Lao, Tibetan) are part of the letter.
    combining_class = unicodedata.combining(character)
    return combining_class == 1 or 10 <= combining_class <= 36 or combining_class >= 200


def name_groups(name: str) -> tuple[str, str, str]:
    """Split one name into its folded alphabetic, ideographic and phonetic component groups.

    Spaces around components and empty components at the end do not count. A missing group is empty.
    """
    groups = [_group(group) for group in name.split("=")[:3]]
    alphabetic, ideographic, phonetic = (*groups, "", "", "")[:3]
    return alphabetic, ideographic, phonetic


def _group(group: str) -> str:
    components = [" ".join(component.split()) for component in fold(group).split("^")]
    return "^".join(components).rstrip("^")
