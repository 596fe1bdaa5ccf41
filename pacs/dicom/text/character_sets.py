"""Specific Character Set: bytes to text and back, and what a response is written in (PS3.3 C.12.1.1.2).

pydicom's decoder and encoder are not used. They warn through the ``warnings`` module, which cannot be silenced
in one thread only, lack Defined Terms, split multi-byte text at bytes that only look like a backslash, write
text that does not return to the default repertoire at the end of a line, and fail on what a hostile or careless
peer sends. Here every input gives a text; what cannot be decoded becomes U+FFFD.

Theory of operation of code extensions (PS3.5 6.1.2.5). Two sets are in use at a time: G0 for bytes below 80H, G1
for the others. The first value of Specific Character Set says which at the start; an escape sequence replaces one
of them; control characters and delimiters bring back what the start was. A G0 of two bytes a character has no
delimiters in it: its bytes only look like them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pacs.dicom.text.code_elements import ASCII, BY_ESCAPE, BY_TERM, ROMAJI, CodeElement, Coding

UTF_8 = "ISO_IR 192"
_DEFAULT_TERM = "ISO_IR 6"

#: Python's codec for what must be in the default repertoire. Latin-1 instead of ASCII: it decodes every
#: byte, and instances with undeclared accented letters are common.
DEFAULT_CODEC = "iso8859_1"
#: What ``decode`` takes where nothing is declared.
DEFAULT_CODECS = (_DEFAULT_TERM,)

_ALIASES = {
    "UTF-8": UTF_8,
    "UTF8": UTF_8,
    "ISO 2022 GBK": "GBK",
    "ISO 2022 58": "ISO 2022 IR 58",
    "ISO 2022 IR 192": UTF_8,
}
_ESCAPE = b"\x1b"
_ESCAPE_SEQUENCE = re.compile(b"|".join(re.escape(escape) for escape in BY_ESCAPE))
_HIGH = re.compile(rb"[\x80-\xff]+")
_PAIRS = re.compile(rb"[\x21-\x7e]+")
_LOW = {
    delimiters: re.compile(rb"[^\x00-\x1f\x80-\xff" + re.escape(delimiters) + rb"]+")
    for delimiters in (b"", b"\\", b"\\^=")
}
_SEGMENTS = {
    b"": re.compile(r"([\x00-\x1f])"),
    b"\\": re.compile(r"([\x00-\x1f\\])"),
    b"\\^=": re.compile(r"([\x00-\x1f\\^=])"),
}
# pydicom writes the response Identifier, and cannot be told of a Defined Term that it does not know.
_NOT_WRITTEN = frozenset({"ISO_IR 203", "ISO 2022 IR 203"})


def defined_terms(values: Iterable[str]) -> tuple[str, ...]:
    """Keep the Defined Terms that can be decoded, misspellings corrected (PS3.3 C.12.1.1.2).

    A first value that is empty or unknown stands for the default repertoire before code extensions.
    """
    terms = [_corrected(value) for value in values]
    if terms and _stands_alone(terms[0]):
        return (terms[0],)
    first, *others = [term if _is_extensible(term) else "" for term in terms] or [""]
    known = (first, *(term for term in others if term))
    return known if any(known) else ()


def unknown_terms(values: Iterable[str]) -> tuple[str, ...]:
    """The values that are no Defined Term, as they were written."""
    return tuple(value for value in values if value and _corrected(value) not in BY_TERM)


def _stands_alone(term: str) -> bool:
    return term in BY_TERM and BY_TERM[term].codec is not None


def _is_extensible(term: str) -> bool:
    return term in BY_TERM and BY_TERM[term].codec is None


def _corrected(value: str) -> str:
    text = value.strip(" \0").upper()
    if text in _ALIASES:
        return _ALIASES[text]
    if found := re.fullmatch(r"ISO[ _-]*2022[ _-]*IR[ _-]*([0-9]{1,3})", text):
        return f"ISO 2022 IR {found[1]}"
    if found := re.fullmatch(r"ISO[ _-]*IR[ _-]*([0-9]{1,3})", text):
        term = f"ISO_IR {found[1]}"
        # The sets of two bytes exist with code extensions only.
        return term if term in BY_TERM else f"ISO 2022 IR {found[1]}"
    return text


def codecs_of(terms: Sequence[str]) -> tuple[str, ...]:
    """What ``decode`` takes for these Defined Terms; never empty."""
    return tuple(term or _DEFAULT_TERM for term in terms) or DEFAULT_CODECS


@dataclass(frozen=True, slots=True)
class _Codes:
    """What one value of Specific Character Set means."""

    #: Python's codec for a value without escape sequences.
    codec: str
    g0: CodeElement
    #: None: the first value does not say.
    g1: CodeElement | None
    #: What code extensions may invoke, in the order declared; empty without code extensions.
    extensions: tuple[CodeElement, ...]
    stands_alone: bool


@lru_cache(maxsize=256)
def _codes(terms: tuple[str, ...]) -> _Codes:
    sets = [BY_TERM[term or _DEFAULT_TERM] for term in terms if (term or _DEFAULT_TERM) in BY_TERM]
    first = sets[0] if sets else BY_TERM[_DEFAULT_TERM]
    if first.codec is not None:
        return _Codes(first.codec, ASCII, None, (), stands_alone=True)
    g0 = next((one for one in first.elements if one is ROMAJI), ASCII)
    g1 = next((one for one in first.elements if one.is_g1), None)
    elements = dict.fromkeys(element for one in sets for element in one.elements)
    # A set of two bytes is written with escape sequences also as the first value, where it does not belong.
    is_extended = len(sets) > 1 or any(
        element.coding is not Coding.SINGLE_BYTE for element in first.elements
    )
    return _Codes(
        # Shift JIS where JIS X 0201 is declared: its single bytes are the same, and writers that declare
        # the one and mean the other are known.
        codec=g1.codec if g1 is not None else DEFAULT_CODEC,
        g0=g0,
        g1=g1,
        extensions=tuple(elements) if is_extended else (),
        stands_alone=False,
    )


def decode(
    value: bytes, codecs: Sequence[str], *, is_name: bool = False, is_one_value: bool = False
) -> str:
    """Decode a value, code extensions included (PS3.5 6.1.2.5); never fails.

    ``is_one_value`` is whether a backslash is a character of the VR and no delimiter.
    """
    codes = _codes(tuple(codecs))
    if codes.stands_alone or _ESCAPE not in value:
        return value.decode(codes.codec, "replace")
    return "".join(_decoded(value, codes, _delimiters(is_name=is_name, is_one_value=is_one_value)))


def _delimiters(*, is_name: bool, is_one_value: bool) -> bytes:
    if is_one_value:
        return b""
    return b"\\^=" if is_name else b"\\"


def _decoded(value: bytes, codes: _Codes, delimiters: bytes) -> Iterator[str]:
    g0, g1 = codes.g0, codes.g1
    at = 0
    while at < len(value):
        if found := _ESCAPE_SEQUENCE.match(value, at):
            element = BY_ESCAPE[found[0]]
            g0, g1 = (g0, element) if element.is_g1 else (element, g1)
        elif found := _HIGH.match(value, at):
            yield g1.decode(found[0]) if g1 is not None else found[0].decode(DEFAULT_CODEC)
        elif g0.is_two_byte_g0 and (found := _PAIRS.match(value, at)):
            yield g0.decode(found[0])
        elif not g0.is_two_byte_g0 and (found := _LOW[delimiters].match(value, at)):
            yield found[0].decode("ascii")
        else:
            # Of an escape sequence of no Defined Term only ESC is dropped.
            if value[at] != _ESCAPE[0]:
                yield chr(value[at])
                if value[at] != 0x20:
                    # The default repertoire has no G1: high bytes after a delimiter then come from a vendor
                    # who does not repeat the escape sequence (seen with ISO 2022 IR 149).
                    g0, g1 = codes.g0, codes.g1 or g1
            at += 1
            continue
        at = found.end()


def encode(
    text: str, terms: Sequence[str], *, is_name: bool = False, is_one_value: bool = False
) -> bytes | None:
    """Encode a value, with code extensions where there are any; None if a character is in no set.

    What is invoked is invoked anew after each delimiter, and a G0 is left before it (PS3.5 6.1.2.5.3).
    """
    codes = _codes(codecs_of(terms))
    if codes.stands_alone:
        try:
            return text.encode(codes.codec)
        except UnicodeEncodeError:
            return None
    encoded = bytearray()
    for segment in _SEGMENTS[_delimiters(is_name=is_name, is_one_value=is_one_value)].split(text):
        part = segment.encode() if segment.isascii() else _encoded(segment, codes)
        if part is None:
            return None
        encoded += part
    return bytes(encoded)


def _encoded(segment: str, codes: _Codes) -> bytes | None:
    # The segment begins and ends with what the first value designates.
    g0, g1 = codes.g0, codes.g1
    encoded = bytearray()
    for character in segment:
        found = _element_for(character, g0, g1, codes)
        if found is None:
            return None
        element, code = found
        if element is not (g1 if element.is_g1 else g0):
            encoded += element.escape
        g0, g1 = (g0, element) if element.is_g1 else (element, g1)
        encoded += code
    if g0 is not codes.g0:
        encoded += codes.g0.escape
    return bytes(encoded)


def _element_for(
    character: str, g0: CodeElement, g1: CodeElement | None, codes: _Codes
) -> tuple[CodeElement, bytes] | None:
    if character.isascii():
        return (codes.g0 if g0.is_two_byte_g0 else g0), character.encode()
    for element in (g0, g1, *codes.extensions):
        if element is not None and (code := element.encode(character)) is not None:
            return element, code
    return None


def has_code_extensions(terms: Sequence[str]) -> bool:
    """Whether text in these Defined Terms may have escape sequences."""
    return bool(_codes(codecs_of(terms)).extensions)


def can_encode(text: str, terms: Sequence[str]) -> bool:
    """Whether a text can be written in a Specific Character Set without loss."""
    return text.isascii() or encode(text, terms) is not None


def response_terms(texts: Iterable[str], requested: Sequence[str]) -> tuple[str, ...]:
    """Choose the Specific Character Set of a response (PS3.4 C.4.1.1.3.2).

    None for the default repertoire, else the requested one if it can represent every text, else
    UTF-8.
    """
    beyond_ascii = [text for text in texts if not text.isascii()]
    if not beyond_ascii:
        return ()
    is_written = requested and _NOT_WRITTEN.isdisjoint(requested)
    if is_written and all(can_encode(text, requested) for text in beyond_ascii):
        return tuple(requested)
    return (UTF_8,)
