"""Fuzzy semantic matching of person names (PS3.4 C.2.2.2.1.1, when negotiated): words by sound, in any order.

A name is the set of its words, whatever component or component group they stand in. A word of Latin letters counts by
its Metaphone code, case and accents folded; any other word (ideographs, kana, Greek) as it is, folded. A key matches a
name that has all words of the key. An asterisk at the end of a word stands for the rest of the sound; a key with any
other wild card has no fuzzy meaning. What matches without fuzziness still does: the caller sees to that.
"""

from __future__ import annotations

import re
from functools import lru_cache

import jellyfish

from pacs.dicom.text.names import fold

_WORDS = re.compile(r"[^\W_]+")
# An asterisk belongs to a key word that it ends, or stands for a whole word.
_KEY_WORDS = re.compile(r"[^\W_]+(?:\*(?![^\W_*]))?|(?<![^\W_*])\*(?![^\W_*])")
_JOINING = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}`]")
_LATIN = re.compile("[a-z]+")
#: A key of more words is no name; without a limit each word would become a condition.
_MAXIMUM_WORDS = 16
#: Metaphone's time grows with the square of a word's length.
_MAXIMUM_LETTERS = 64


@lru_cache(maxsize=4096)
def name_codes(name: str) -> str:
    """The codes of one name, each with a space before and after it; empty if the name has no word."""
    codes = dict.fromkeys(map(_code, _WORDS.findall(_prepared(name))))
    return f" {' '.join(codes)} " if codes else ""


@lru_cache(maxsize=256)
def code_patterns(key: str) -> tuple[str, ...]:
    """Patterns of ``*`` that all have to match the ``name_codes`` of a name; none if the key has no fuzzy meaning."""
    found: list[str] = _KEY_WORDS.findall(_prepared(key))
    words = [word for word in found if word != "*"]
    if "?" in key or key.count("*") != sum(word.endswith("*") for word in found):
        return ()
    if not 0 < len(words) <= _MAXIMUM_WORDS:
        return ()
    patterns = [
        f"* {_code(word.rstrip('*'))}{'' if word.endswith('*') else ' '}*" for word in words
    ]
    return tuple(dict.fromkeys(patterns))


def _prepared(text: str) -> str:
    return _JOINING.sub("", fold(text))


def _code(word: str) -> str:
    if not _LATIN.fullmatch(word):
        return word
    code = jellyfish.metaphone(word[:_MAXIMUM_LETTERS])
    # Metaphone keeps a Y before a vowel, which would tell Meyer from Maier.
    return code[:1] + code[1:].replace("Y", "") or word
