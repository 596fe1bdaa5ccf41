"""The character sets of PS3.3 Tables C.12-2 to C.12-5, one row each, and how a character is coded in each.

A *code element* is a set of graphic characters that is invoked as G0 (bytes below 80H) or G1 (bytes above), by
an escape sequence or by the first value of Specific Character Set (PS3.5 6.1.2.5). ``character_sets`` puts them
together; this module knows only one set at a time. Python's codecs are used for the tables of characters, never
for the escape sequences: no codec resets at the delimiters of DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Coding(Enum):
    """What a character is in a code element."""

    SINGLE_BYTE = "one byte"
    TWO_BYTES = "two bytes"
    #: As TWO_BYTES, but Python's codec marks the set with a byte of its own.
    TWO_BYTES_MARKED = "two bytes, marked"


# The byte that marks JIS X 0212 in EUC-JP.
_MARK = b"\x8f"


@dataclass(frozen=True, slots=True)
class CodeElement:
    """One set of graphic characters."""

    #: What designates it (PS3.3 Tables C.12-3 and C.12-4).
    escape: bytes
    is_g1: bool
    #: Python's codec that has the characters, at the bytes of G1.
    codec: str
    coding: Coding = Coding.SINGLE_BYTE

    @property
    def is_two_byte_g0(self) -> bool:
        """Whether its characters look like pairs of ASCII ones, delimiters included."""
        return not self.is_g1 and self.coding is not Coding.SINGLE_BYTE

    def decode(self, value: bytes) -> str:
        """The characters of a run of bytes, all of this set; what is none becomes U+FFFD."""
        if self.is_g1 or self.coding is Coding.SINGLE_BYTE:
            return value.decode(self.codec, "replace")
        high = bytes(byte | 0x80 for byte in value)
        if self.coding is Coding.TWO_BYTES_MARKED:
            high = b"".join(_MARK + high[at : at + 2] for at in range(0, len(high), 2))
        return high.decode(self.codec, "replace")

    def encode(self, character: str) -> bytes | None:
        """The bytes of one character; None if the set does not have it."""
        return _encoded(self, character)


@lru_cache(maxsize=8192)
def _encoded(element: CodeElement, character: str) -> bytes | None:
    try:
        high = character.encode(element.codec)
    except UnicodeEncodeError:
        return None
    if element.coding is Coding.TWO_BYTES_MARKED:
        if high[:1] != _MARK:
            return None
        high = high[1:]
    # Codecs have more than the set: half-width katakana in EUC-JP, Hangul spelt in eight bytes in EUC-KR.
    width = 1 if element.coding is Coding.SINGLE_BYTE else 2
    if len(high) != width or min(high) < 0xA0:
        return None
    encoded = high if element.is_g1 else bytes(byte & 0x7F for byte in high)
    # Some characters share a code with another one: what would be read as that is not written.
    return encoded if element.decode(encoded) == character else None


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """One row of PS3.3 Tables C.12-2 to C.12-5."""

    description: str
    #: Without code extensions; None where the Standard has none.
    defined_term: str | None
    #: With code extensions; None for the sets that allow none.
    extension_term: str | None
    #: The code elements that the set consists of, ASCII as G0 aside; none if it stands alone.
    elements: tuple[CodeElement, ...] = ()
    #: Python's codec of a set that stands alone (PS3.5 6.1.2.5.4 d).
    codec: str | None = None


ASCII = CodeElement(b"\x1b(B", is_g1=False, codec="ascii")
#: JIS X 0201 romaji. Its overline and yen are taken for the tilde and backslash whose codes they have.
ROMAJI = CodeElement(b"\x1b(J", is_g1=False, codec="ascii")


def _single_byte(description: str, number: int, final: bytes, codec: str) -> CharacterSet:
    element = CodeElement(b"\x1b-" + final, is_g1=True, codec=codec)
    return CharacterSet(description, f"ISO_IR {number}", f"ISO 2022 IR {number}", (element,))


def _two_bytes(
    description: str, number: int, escape: bytes, codec: str, coding: Coding = Coding.TWO_BYTES
) -> CharacterSet:
    element = CodeElement(escape, is_g1=b")" in escape, codec=codec, coding=coding)
    return CharacterSet(description, None, f"ISO 2022 IR {number}", (element,))


#: Every Defined Term of Specific Character Set (0008,0005).
CHARACTER_SETS: tuple[CharacterSet, ...] = (
    CharacterSet("Default repertoire (ASCII)", "ISO_IR 6", "ISO 2022 IR 6", (ASCII,)),
    _single_byte("Latin alphabet No. 1", 100, b"A", "iso8859_1"),
    _single_byte("Latin alphabet No. 2", 101, b"B", "iso8859_2"),
    _single_byte("Latin alphabet No. 3", 109, b"C", "iso8859_3"),
    _single_byte("Latin alphabet No. 4", 110, b"D", "iso8859_4"),
    _single_byte("Latin alphabet No. 5", 148, b"M", "iso8859_9"),
    _single_byte("Latin alphabet No. 9", 203, b"b", "iso8859_15"),
    _single_byte("Cyrillic", 144, b"L", "iso8859_5"),
    _single_byte("Arabic", 127, b"G", "iso8859_6"),
    _single_byte("Greek", 126, b"F", "iso8859_7"),
    _single_byte("Hebrew", 138, b"H", "iso8859_8"),
    _single_byte("Thai", 166, b"T", "iso8859_11"),
    CharacterSet(
        "Japanese: katakana and romaji (JIS X 0201)",
        "ISO_IR 13",
        "ISO 2022 IR 13",
        (ROMAJI, CodeElement(b"\x1b)I", is_g1=True, codec="shift_jis")),
    ),
    _two_bytes("Japanese: kanji (JIS X 0208)", 87, b"\x1b$B", "euc_jp"),
    _two_bytes(
        "Japanese: supplementary kanji (JIS X 0212)",
        159,
        b"\x1b$(D",
        "euc_jp",
        Coding.TWO_BYTES_MARKED,
    ),
    _two_bytes("Korean: hangul and hanja (KS X 1001)", 149, b"\x1b$)C", "euc_kr"),
    _two_bytes("Simplified Chinese (GB 2312)", 58, b"\x1b$)A", "gb2312"),
    CharacterSet("Unicode in UTF-8", "ISO_IR 192", None, codec="utf_8"),
    CharacterSet("Chinese (GB 18030)", "GB18030", None, codec="gb18030"),
    CharacterSet("Chinese (GBK)", "GBK", None, codec="gbk"),
)

BY_TERM: dict[str, CharacterSet] = {
    term: one
    for one in CHARACTER_SETS
    for term in (one.defined_term, one.extension_term)
    if term is not None
}
BY_ESCAPE: dict[bytes, CodeElement] = {
    element.escape: element for one in CHARACTER_SETS for element in one.elements
}
