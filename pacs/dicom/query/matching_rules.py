"""What an association and the settings say about matching."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MatchingRules:
    """Types of matching that hold only if they are agreed on; the default is the plain ones."""

    #: Two quotation marks ask for what has no value (PS3.4 C.2.2.2.7); negotiated.
    empty_values: bool = False
    #: A list asks for what has every value of it (PS3.4 C.2.2.2.8); negotiated.
    multiple_values: bool = False
    #: What has no value matches every value of a key (PS3.4 C.2.2.1.2); a setting.
    unknown_matches: bool = False
    #: Names match by their sound as well (PS3.4 C.2.2.2.1.1); negotiated.
    fuzzy_names: bool = False
    #: Keys of other levels are matched (PS3.4 C.4.1.3.2.1); negotiated.
    relational: bool = False
    #: The offset from UTC of DT keys that have none of their own (PS3.4 C.2.2.2.1.3); negotiated.
    default_offset: str = ""
