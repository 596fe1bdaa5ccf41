"""Specific Character Set: bytes to text, and what a response is written in (PS3.3 C.12.1.1.2).

pydicom's tables are used, its decoder is not: it warns through the ``warnings`` module, which
cannot be silenced in one thread only, splits multi-byte text at bytes that only look like a
backslash, and fails on what a hostile or careless peer sends. Here every input gives a text; what
cannot be decoded becomes U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

UTF_8 = "ISO_IR 192"

#: The codec of the default repertoire. Latin-1 instead of ASCII: it decodes every byte, and
#: instances with undeclared accented letters are common.
DEFAULT_CODEC = python_encoding[""]

_ESCAPE = b"\x1b"
# What ends the effect of an escape sequence (PS3.5 6.1.2.5.3).
_DELIMITERS = {True: re.compile(rb"[\\\r\n\f\t^=]"), False: re.compile(rb"[\\\r\n\f\t]")}
# Python's codecs for these read the escape sequences themselves.
_STATEFUL_CODECS = {"iso2022_jp": b"\x1b$B", "iso2022_jp_2": b"\x1b$(D"}
_GB_2312 = "iso_ir_58"


def defined_terms(values: Iterable[str]) -> tuple[str, ...]:
    """Keep the Defined Terms that can be decoded, misspellings corrected (PS3.3 C.12.1.1.2).

    A first value that is empty or unknown stands for the default repertoire before code extensions.
    """
    terms = [_corrected(value) for value in values]
    if terms and terms[0] in STAND_ALONE_ENCODINGS:
        return (terms[0],)
    first, *others = [term if _is_extensible(term) else "" for term in terms] or [""]
    known = (first, *(term for term in others if term))
    return known if any(known) else ()


def _is_extensible(term: str) -> bool:
    return term in python_encoding and term not in STAND_ALONE_ENCODINGS


def _corrected(value: str) -> str:
    text = value.strip(" \0").upper()
    if text in {"UTF-8", "UTF8", "ISO_IR_192"}:
        return UTF_8
    if found := re.fullmatch(r"ISO[ _-]*2022[ _-]*IR[ _-]*([0-9]{1,3})", text):
        return f"ISO 2022 IR {found[1]}"
    if found := re.fullmatch(r"ISO[ _-]*IR[ _-]*([0-9]{1,3})", text):
        return f"ISO_IR {found[1]}"
    return text


def codecs_of(terms: Sequence[str]) -> tuple[str, ...]:
    """The Python codecs of Defined Terms; never empty."""
    return tuple(python_encoding[term] for term in terms) or (DEFAULT_CODEC,)


def decode(value: bytes, codecs: Sequence[str], *, is_name: bool = False) -> str:
    """Decode a value, code extensions included (PS3.5 6.1.2.5); never fails."""
    first = codecs[0] if codecs else DEFAULT_CODEC
    if _ESCAPE not in value or python_encoding[UTF_8] == first:
        return value.decode(first, "replace")
    head, *extended = re.split(rb"(?=\x1b)", value)
    parts = [head.decode(first, "replace")]
    parts += [_decode_extended(fragment, first, _DELIMITERS[is_name]) for fragment in extended]
    return "".join(parts)


def _decode_extended(fragment: bytes, first: str, delimiter: re.Pattern[bytes]) -> str:
    length = 4 if fragment[1:3] in {b"$(", b"$)"} else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:length])
    if codec is None:
        return fragment[1:].decode(first, "replace")
    if codec in _STATEFUL_CODECS:
        return fragment.decode(codec, "replace")
    text = fragment[length:]
    if codec == DEFAULT_CODEC:  # G0 returns to ASCII; G1 stays what the first value designates
        return text.decode(first, "replace")
    end = delimiter.search(text)
    rest = text[end.start() :] if end else b""
    # The default repertoire has no G1: high bytes after a delimiter then come from a vendor who
    # does not repeat the escape sequence (seen with ISO 2022 IR 149), and the set in use goes on.
    if not rest or (first == DEFAULT_CODEC and not rest.isascii()):
        return text.decode(codec, "replace")
    return text[: -len(rest)].decode(codec, "replace") + rest.decode(first, "replace")


def can_encode(text: str, terms: Sequence[str]) -> bool:
    """Whether a text can be written in a Specific Character Set without loss."""
    if text.isascii():
        return True
    codecs = codecs_of(terms)
    return all(any(_encodes(character, codec) for codec in codecs) for character in set(text))


def _encodes(character: str, codec: str) -> bool:
    if codec == DEFAULT_CODEC:
        return character.isascii()
    if (
        codec == _GB_2312
    ):  # pydicom writes no escape sequence for it: nobody could read the response
        return False
    try:
        encoded = character.encode(codec)
    except UnicodeEncodeError:
        return False
    if codec == "shift_jis":  # stands for JIS X 0201, which has one byte a character
        return len(encoded) == 1
    return encoded.startswith(_STATEFUL_CODECS.get(codec, b""))


def response_terms(texts: Iterable[str], requested: Sequence[str]) -> tuple[str, ...]:
    """Choose the Specific Character Set of a response (PS3.4 C.4.1.1.3.2).

    None for the default repertoire, else the requested one if it can represent every text, else
    UTF-8.
    """
    beyond_ascii = [text for text in texts if not text.isascii()]
    if not beyond_ascii:
        return ()
    if requested and all(can_encode(text, requested) for text in beyond_ascii):
        return tuple(requested)
    return (UTF_8,)
