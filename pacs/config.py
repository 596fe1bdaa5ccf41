"""Settings: what an operator may choose, where each value came from, and what is wrong with it.

Sources, the first one wins: flags, environment (``PACS_NAME``, or ``PACS_NAME_FILE`` naming a file
that holds the value, as Docker secrets do), ``pacs.toml``, the default. Every source is brought to
text first, so that ``port = 104`` in the file, ``PACS_PORT=104`` and ``--port 104`` go through the
same check and the same message.

Only the composition root and the command line import this module; others receive plain values.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from pacs import config_sources
from pacs.config_sources import Given, Sources
from pacs.dicom.ae_titles import normalised_ae_title
from pacs.dicom.query.query_options import OPTION_NAMES
from pacs.dicom.text.timezones import LOCAL, zone_named
from pacs.errors import InvalidSetting

MASK = "***"

#: The longest part of a bad value that a message repeats.
_SHOWN_LENGTH = 200
#: What pydantic says of a derived default when the setting it derives from is bad and reported.
_DERIVED = "default_factory_not_called"
_DATABASE_SCHEMES = ("sqlite", "postgresql+psycopg", "postgresql", "postgres")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\Z")
_REMOTE_AE = re.compile(
    r"(?P<title>.+)= *(?P<host>\[[^\[\]]+\]|[^:=\[\]]+):(?P<port>[0-9]{1,5})(?P<tls>/tls)?\Z",
    re.DOTALL,
)


class RemoteAEAddress(NamedTuple):
    """A peer named in ``remote_aes``."""

    title: str
    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.title}={host}:{self.port}" + ("/tls" if self.tls else "")


# Each check below raises ValueError with the words that follow "expected" in the message.


def _path(value: Path, info: ValidationInfo) -> Path:
    text = str(value)
    if not text.isprintable() or "?" in text:
        raise ValueError("a path without control characters and question marks")
    cwd: Path = (info.context or {}).get("cwd") or Path.cwd()
    try:
        return cwd / value.expanduser()
    except RuntimeError as error:
        raise ValueError("a path; ~ needs a user with a home directory") from error


def _in_data_dir(data: dict[str, object], name: str) -> str:
    # An older pydantic (seen with 2.10) asks for this also when data_dir is bad and reported.
    return f"{data.get('data_dir', '')}/{name}"


def _ae_title(value: str) -> str:
    title = normalised_ae_title(value)
    if title is None:
        raise ValueError("an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)")
    return title


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if _HOST_NAME.match(value):
            return value
    raise ValueError("an IP address or a host name, without a port")


def _remote_ae(entry: str) -> RemoteAEAddress:
    if found := _REMOTE_AE.match(entry):
        title, host, port = (
            _ae_title(found["title"]),
            _host(found["host"].strip("[] ")),
            int(found["port"]),
        )
        if 1 <= port <= 65_535:
            return RemoteAEAddress(title, host, port, found["tls"] is not None)
    raise ValueError(entry)


def _remote_aes(value: object) -> object:
    if not isinstance(value, str):
        return value
    addresses = []
    for entry in filter(None, (part.strip() for part in value.split(","))):
        try:
            addresses.append(_remote_ae(entry))
        except ValueError:
            expected = f"NAME=HOST:PORT or NAME=HOST:PORT/tls entries separated by commas; {entry!r} is not one"
            raise ValueError(expected) from None
    if len({address.title for address in addresses}) < len(addresses):
        raise ValueError("each AE title once")
    return tuple(addresses)


def _extended_negotiation(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = tuple(filter(None, (part.strip().lower() for part in value.split(","))))
    if not set(words) <= set(OPTION_NAMES):
        raise ValueError(f"some of {', '.join(OPTION_NAMES)}, separated by commas")
    return words


def _timezone(value: str) -> str:
    try:
        zone_named(value)
    except ValueError:
        expected = f"{LOCAL}, an offset such as +0100, or an IANA name such as Europe/Berlin"
        raise ValueError(expected) from None
    return value


def _database_url(value: str, info: ValidationInfo) -> str:
    scheme, _, rest = value.partition("://")
    names_a_file = re.match(r"/[^?]", rest)
    if (
        scheme not in _DATABASE_SCHEMES
        or not rest.isprintable()
        or (scheme == "sqlite" and not names_a_file)
    ):
        raise ValueError("a URL that starts with sqlite:/// or postgresql+psycopg://")
    password = info.data.get("database_password")
    if password is None:
        return value if scheme == "sqlite" else f"{scheme}://{_escaped_password(rest)}"
    user, at, address = rest.rpartition("@")
    if scheme == "sqlite" or not at or not user or ":" in user:
        expected = "a PostgreSQL URL with a user and without a password"
        raise ValueError(f"{expected}, because database_password is set")
    return f"{scheme}://{user}:{quote(password, safe='')}@{address}"


def _escaped_password(rest: str) -> str:
    """What follows the scheme, with a password that every reader of the URL takes for the whole password.

    SQLAlchemy ends it at the first @: the rest would be part of the host, and be shown with it.
    """
    before, question, query = rest.partition("?")
    userinfo, at, address = before.rpartition("@")
    user, colon, password = userinfo.partition(":")
    if not colon or at not in password:
        return rest
    return f"{user}:{quote(password, safe='%')}@{address}{question}{query}"


def _storage_url(value: str, info: ValidationInfo) -> str:
    if not value or not value.isprintable():
        raise ValueError("a path or a file:/// URL")
    return value if "://" in value else str(_path(Path(value), info))


def _tls_path(value: Path | None, info: ValidationInfo) -> Path | None:
    return None if value is None else _path(value, info)


def _with_certificate(value: object, info: ValidationInfo) -> object:
    field = Settings.model_fields[str(info.field_name)]
    if value != field.default and info.data.get("tls_certificate", "bad") is None:
        raise ValueError(f"{config_sources.text(field.default) or 'none'} without tls_certificate")
    return value


def _with_client_cas(value: bool, info: ValidationInfo) -> bool:
    if value and (info.data.get("tls") == "off" or info.data.get("tls_ca", "bad") is None):
        raise ValueError("false unless tls is on and tls_ca names whom to trust")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(ge=0.1, le=86_400)]
LogLevel = Literal["debug", "info", "warning", "error"]
Duplicates = Literal["replace", "keep", "refuse"]
AcknowledgeAfter = Literal["index", "log"]
RecordedAssociations = Literal["problems", "all", "none"]
TLS = Literal["off", "optional", "required"]


class Settings(BaseModel):
    """Everything an operator can set; ``docs/configuration.md`` has a paragraph for each."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    data_dir: Annotated[Path, AfterValidator(_path)] = Field(
        default=Path(config_sources.DATA_DIR),
        description="Directory for the SQLite index and the stored instances.",
    )
    # Before database_url: the URL takes the password in, and pydantic validates in this order.
    database_password: str | None = Field(
        default=None,
        description="Password of the PostgreSQL user that database_url names.",
    )
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        default_factory=lambda data: f"sqlite:///{_in_data_dir(data, 'index.sqlite')}",
        description="SQLAlchemy URL of the index.",
    )
    storage_url: Annotated[str, AfterValidator(_storage_url)] = Field(
        default_factory=lambda data: _in_data_dir(data, "storage"),
        description="Where the bytes of the instances are kept: a path or a file URL.",
    )
    ae_title: AETitle = Field(default="PACS", description="AE title of this archive.")
    host: Annotated[str, AfterValidator(_host)] = Field(
        default="0.0.0.0",  # noqa: S104 - access.py admits only loopback peers and registered AEs
        description="Address to listen on; 0.0.0.0 is every IPv4 interface, :: every interface.",
    )
    port: Port = Field(default=11_112, description="TCP port to listen on; 0 takes any free port.")
    workers: Annotated[int, Field(ge=1, le=1_024)] = Field(
        default=1, description="Number of serving processes."
    )
    require_called_ae_title: bool = Field(
        default=True,
        description="Reject an association whose called AE title is not ae_title.",
    )
    allow_any: bool = Field(
        default=False,
        description="Let every host and calling AE title do everything; for a test bench only.",
    )
    verify_calling_host: bool = Field(
        default=True,
        description="Take a calling AE title for a registered remote AE only if it calls from that "
        "AE's host; switch off behind address translation.",
    )
    remote_aes: Annotated[tuple[RemoteAEAddress, ...], BeforeValidator(_remote_aes)] = Field(
        default=(),
        description="Remote AEs to register at start, as NAME=HOST:PORT separated by commas.",
    )
    tls_certificate: Annotated[Path | None, AfterValidator(_tls_path)] = Field(
        default=None,
        description="PEM file with the certificate of this archive, shown to peers in both roles.",
    )
    tls_key: Annotated[
        Path | None, AfterValidator(_tls_path), AfterValidator(_with_certificate)
    ] = Field(
        default=None,
        description="PEM file with the private key of tls_certificate, if it is not in the same file.",
    )
    tls_key_password: Annotated[str | None, AfterValidator(_with_certificate)] = Field(
        default=None, description="Password of the private key, if it is encrypted."
    )
    tls_ca: Annotated[Path | None, AfterValidator(_tls_path)] = Field(
        default=None,
        description="PEM file with the certificates of the CAs, or of the peers, that are trusted.",
    )
    tls_check_host_name: bool = Field(
        default=True,
        description="Call a peer only if its certificate is for the host that is called.",
    )
    tls: Annotated[TLS, BeforeValidator(_lower), AfterValidator(_with_certificate)] = Field(
        default="off",
        description="Whether peers call with TLS: off, optional (with or without, on one port) "
        "or required.",
    )
    tls_require_client_certificate: Annotated[bool, AfterValidator(_with_client_cas)] = Field(
        default=False,
        description="Refuse peers that call with TLS and show no certificate that tls_ca vouches for.",
    )
    duplicate_policy: Annotated[Duplicates, BeforeValidator(_lower)] = Field(
        default="replace",
        description="What a different instance with a stored SOP Instance UID does: "
        "replace the stored one, keep the stored one and answer with a warning, or be refused.",
    )
    acknowledge_after: Annotated[AcknowledgeAfter, BeforeValidator(_lower)] = Field(
        default="index",
        description="When a C-STORE is answered: after its instance is in the index, or after it is in a log "
        "on the disk, from where it goes to the index within a moment.",
    )
    strict_uids: bool = Field(
        default=False,
        description="Refuse instances with a UID that is not of digits and dots, at most 64.",
    )
    maximum_associations: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100, description="Number of simultaneous associations accepted from all peers."
    )
    maximum_associations_per_host: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="Number of simultaneous associations of one host, registered AEs not counted; "
        "0 is half of maximum_associations.",
    )
    maximum_associations_per_ae: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="Number of simultaneous associations of one calling AE; 0 is half of maximum_associations.",
    )
    maximum_instance_bytes: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Longest data set that is stored, in bytes; 0 is no limit."
    )
    minimum_free_bytes: Annotated[int, Field(ge=0)] = Field(
        default=128 * 1024 * 1024,
        description="Bytes of the storage's file system that are left free; 0 fills it.",
    )
    maximum_pdu_bytes: Annotated[int, Field(ge=4_096, le=1_048_576)] = Field(
        default=131_072, description="Largest PDU accepted from a peer, in bytes."
    )
    acse_timeout_seconds: Seconds = Field(
        default=30,
        description="Seconds to wait for an answer to an association request or release.",
    )
    dimse_timeout_seconds: Seconds = Field(
        default=60, description="Seconds to wait for the next DIMSE message of an operation."
    )
    network_timeout_seconds: Seconds = Field(
        default=300, description="Seconds an association may stay silent before it is aborted."
    )
    query_timeout_seconds: Seconds = Field(
        default=120, description="Seconds the database may work before the next matches of a query."
    )
    connect_timeout_seconds: Seconds = Field(
        default=10, description="Seconds to wait for a TCP connection to a remote AE."
    )
    worker_timeout_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        default=60,
        description="Seconds after which a process whose main thread does not go on is ended and replaced.",
    )
    drain_timeout_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=30, description="Seconds that running operations may take to finish on shutdown."
    )
    find_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        default=0, description="Largest number of matches a C-FIND may return; 0 is no limit."
    )
    find_header_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        default=10_000,
        description="Largest number of stored headers that one C-FIND may match keys in; 0 is no limit.",
    )
    retrieve_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        default=0,
        description="Largest number of instances a C-MOVE or C-GET may retrieve; 0 is no limit.",
    )
    extended_negotiation: Annotated[tuple[str, ...], BeforeValidator(_extended_negotiation)] = (
        Field(
            default=OPTION_NAMES,
            description="What is agreed to in SOP Class Extended Negotiation of Query/Retrieve.",
        )
    )
    match_unknown: bool = Field(
        default=False,
        description="Whether what has no value of a key matches every value that a C-FIND asks for.",
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default=LOCAL,
        description="Time zone of instances that have no Timezone Offset From UTC.",
    )
    pending_interval_responses: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=25, description="Sub-operations between two pending responses of C-MOVE and C-GET."
    )
    pending_interval_seconds: Seconds = Field(
        default=0.1,
        description="Most seconds between two pending responses of C-MOVE and C-GET.",
    )
    destination_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        default=2,
        description="How often a C-MOVE re-establishes a lost association with its destination.",
    )
    conversion_limit_bytes: Annotated[int, Field(ge=1_024, le=4_294_967_294)] = Field(
        default=1_073_741_824,
        description="Most bytes that an instance is inflated or decompressed to for a destination.",
    )
    conversion_timeout_seconds: Seconds = Field(
        default=120,
        description="Longest conversion of one instance for a destination, in seconds.",
    )
    commitment_retries: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=12,
        description="How often a storage commitment report that was not acknowledged is repeated.",
    )
    commitment_retry_seconds: Seconds = Field(
        default=30,
        description="Seconds from the first attempt to report a storage commitment to the second; "
        "each further interval is twice as long, up to six hours.",
    )
    lease_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        default=60,
        description="Seconds after which a process that cannot be seen, and does not renew its lease, "
        "counts as ended.",
    )
    retrieve_record_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        default=90,
        description="Days to keep the records of retrieves, storage commitments and associations; "
        "0 keeps them for ever.",
    )
    record_associations: Annotated[RecordedAssociations, BeforeValidator(_lower)] = Field(
        default="problems",
        description="Which associations are recorded for pacs explain: "
        "those in which something went wrong (problems), all, or none.",
    )
    association_records: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1_000, description="Number of associations whose records are kept."
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        default="info", description="Least severe messages to log: debug, info, warning or error."
    )
    log_identifiers: bool = Field(
        default=False,
        description="Log request Identifiers, which hold patient data, at level debug.",
    )

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _load: Callable[[], Self] | None = PrivateAttr(default=None)

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, object] | None = None,
        *,
        config: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        cwd: Path | None = None,
    ) -> Self:
        """Read the settings of this process from all sources.

        Args:
            overrides: Flags by setting name; None means not given.
            config: The file of ``--config``; by default that of ``PACS_CONFIG``, else ``pacs.toml``
                in ``cwd`` if there is one.
            environ: The environment.
            cwd: Where relative paths of any source start; by default the current directory.

        Raises:
            InvalidSetting: with one line for each thing that is wrong; no line shows a secret.
        """
        sources = Sources(names(), cwd or Path.cwd())
        given = sources.read(overrides or {}, config, environ)
        problems = sources.problems
        texts = {name: one.text for name, one in given.items()}
        try:
            again = partial(cls.load, overrides, config=config, environ=environ, cwd=sources.cwd)
            context = {"cwd": sources.cwd, "given": given, "again": again}
            settings = cls.model_validate(texts, context=context)
        except ValidationError as error:
            problems = problems + [
                _bad_value(one, given) for one in error.errors() if one["type"] != _DERIVED
            ]
        # Outside the except: a chained pydantic error, which --debug would print, can hold secrets.
        if problems:
            raise InvalidSetting("\n".join(problems))
        return settings

    def load_again(self) -> Self:
        """Read the same sources again; files may say something else by now.

        Raises:
            InvalidSetting: as for ``load``.
        """
        return self if self._load is None else self._load()

    def model_post_init(self, context: dict[str, Any] | None, /) -> None:
        """Remember where ``load`` found each value, and how to find it again."""
        given: dict[str, Given] = (context or {}).get("given", {})
        self._load = (context or {}).get("again")
        self._sources = {name: one.source for name, one in given.items()}

    def sources(self) -> Mapping[str, str]:
        """For each setting the flag, variable or file that gave its value, else ``default``."""
        return {name: self._sources.get(name, "default") for name in names()}

    def describe(self) -> Mapping[str, str]:
        """Each setting as text, in the form every source takes, with secrets masked."""
        return {name: _shown(name, config_sources.text(value)) for name, value in self}

    def __repr_args__(self) -> Iterator[tuple[str, str]]:
        """Keep secrets out of tracebacks and logs."""
        yield from self.describe().items()


def names() -> tuple[str, ...]:
    """Every setting, in the order of the documentation."""
    return tuple(Settings.model_fields)


def is_secret(name: str) -> bool:
    """Whether a setting is shown masked and has no flag (others can read a command line)."""
    return "password" in name or "secret" in name


def mask_url(url: str) -> str:
    """Replace the passwords of a URL, also of one that is not quite valid."""
    # Those in the query first: an @ in one of them would be taken for the end of a host.
    masked = re.sub(r"([?&][^=&]*password=)[^&]*", rf"\1{MASK}", url, flags=re.IGNORECASE)
    return re.sub(r"(://[^:/@]*):.*@", rf"\1:{MASK}@", masked, flags=re.DOTALL)


def _shown(name: str, text: str) -> str:
    if is_secret(name):
        return MASK if text else ""
    return mask_url(text) if name.endswith("_url") else text


def _bad_value(error: ErrorDetails, given: Mapping[str, Given]) -> str:
    name = str(error["loc"][0])
    text, source = (given[name].text, given[name].source) if name in given else ("", "default")
    # What is not even a URL may be a password pasted into the wrong place.
    hidden = name == "database_url" and not re.match(r"[\w+]+://", text)
    got = MASK if hidden else repr(_shown(name, text)[:_SHOWN_LENGTH])
    return f"{name}: expected {_expected(name, error)}, got {got} (from {source})"


def _expected(name: str, error: ErrorDetails) -> str:
    """What a value should have been: the words of our own check, else those of its type."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    field = Settings.model_fields[name]
    if choices := get_args(field.annotation):
        return "one of " + ", ".join(map(str, choices))
    if field.annotation is bool:
        return "true or false"
    low, high = (
        next(getattr(rule, key) for rule in field.metadata if hasattr(rule, key))
        for key in ("ge", "le")
    )
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind} from {low} to {high}"
