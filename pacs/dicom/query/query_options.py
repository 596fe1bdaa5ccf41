"""What SOP Class Extended Negotiation of Query/Retrieve can agree on (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1).

The Service-class-application-information field is a row of bytes, one an option: 1 proposes or accepts it,
0 does not. This is the one place that says which byte means what.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

from pacs.dicom.information_model import InformationModel, Operation


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """The extended behaviour that both sides of an association agreed on for a SOP Class."""

    #: Keys of any level, and no unique keys of the levels above (PS3.4 C.4.1.3.2.1, C.4.2.3.2.1).
    relational: bool = False
    #: Ranges on a date and its time are one range (PS3.4 C.2.2.2.5.4).
    combined_datetime: bool = False
    #: Person names match by the sound of their words, in any order (PS3.4 C.2.2.2.1.1).
    fuzzy: bool = False
    #: Times of keys and responses are in the time zone of the request (PS3.4 C.2.2.2).
    timezone: bool = False
    #: Two quotation marks ask for what has no value (PS3.4 C.2.2.2.7).
    empty_values: bool = False
    #: A list of values asks for what has all of them (PS3.4 C.2.2.2.8).
    multiple_values: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The options agreed on, as an operator writes them."""
        return tuple(_word(field.name) for field in fields(self) if getattr(self, field.name))

    @classmethod
    def of(cls, names: Collection[str]) -> QueryOptions:
        """The options with these names.

        Raises:
            ValueError: there is no such option.
        """
        if unknown := set(names) - set(OPTION_NAMES):
            raise ValueError(f"no such option: {', '.join(sorted(unknown))}")
        return cls(**{field.name: _word(field.name) in names for field in fields(cls)})


def _word(name: str) -> str:
    return name.replace("_", "-")


#: Every option that this archive supports, as an operator writes it.
OPTION_NAMES: tuple[str, ...] = tuple(_word(field.name) for field in fields(QueryOptions))

#: Nothing negotiated.
BASELINE = QueryOptions()
SUPPORTED = QueryOptions.of(OPTION_NAMES)

#: Byte by byte: the name of the option in PS3.4, and our field for it; None for what is not supported.
SUB_FIELDS: dict[Operation, tuple[tuple[str, str | None], ...]] = {
    # PS3.4 Table C.5-1
    Operation.FIND: (
        ("Relational-queries", "relational"),
        ("Date-time matching", "combined_datetime"),
        ("Fuzzy semantic matching of person names", "fuzzy"),
        ("Timezone query adjustment", "timezone"),
        ("Enhanced Multi-Frame Image Conversion", None),
        ("Empty value matching", "empty_values"),
        ("Multiple value matching", "multiple_values"),
    ),
    # PS3.4 Table C.5-3
    Operation.MOVE: (
        ("Relational-retrieval", "relational"),
        ("Enhanced Multi-Frame Image Conversion", None),
    ),
    # PS3.4 Table C.5-5
    Operation.GET: (
        ("Relational-retrieval", "relational"),
        ("Enhanced Multi-Frame Image Conversion", None),
    ),
}


def decode_options(operation: Operation, field: bytes) -> QueryOptions:
    """What a Service-class-application-information field proposes or accepts.

    Bytes that are missing count as 0 (PS3.4 C.5.1.1). So does a value that is neither 0 nor 1: the tables give it
    no meaning, and to act on it could only surprise. Bytes that the tables do not have are ignored.
    """
    meant = [
        name for byte, (_, name) in zip(field, SUB_FIELDS[operation], strict=False) if byte == 1
    ]
    return replace(BASELINE, **{name: True for name in meant if name is not None})


def encode_options(operation: Operation, options: QueryOptions, length: int | None = None) -> bytes:
    """The field for some options: ``length`` bytes, or as few as tell them all; no more than the tables have."""
    values = [int(name is not None and getattr(options, name)) for _, name in SUB_FIELDS[operation]]
    if length is None:
        length = max((at for at, value in enumerate(values, start=1) if value), default=0)
    return bytes(values[:length])


def agreed(
    model: InformationModel, proposed: QueryOptions, supported: QueryOptions
) -> QueryOptions:
    """What is both proposed and supported; nothing where instances are asked for by their UID alone.

    Relational retrieval does not apply there, and what else may be negotiated is the conversion of images (PS3.4
    Y.5.1, Z.5).
    """
    if model in {InformationModel.COMPOSITE_INSTANCE_ROOT, InformationModel.WITHOUT_BULK_DATA}:
        return BASELINE
    return QueryOptions.of(set(proposed.names) & set(supported.names))


@dataclass(frozen=True, slots=True)
class MatchingRules:
    """What an association and the settings say about matching; the default is the plain types of matching."""

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
