"""The sections of the statement, in the order of PS3.2 Annex A."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import dictionary_description
from pydicom.tag import Tag
from pydicom.uid import UID

from pacs import __version__
from pacs.config import Settings
from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.conformance import key_type, matching
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES, Operation
from pacs.dicom.levels import Level
from pacs.dicom.query.query_options import SUB_FIELDS
from pacs.dicom.sop_classes import STORAGE_SOP_CLASSES
from pacs.dicom.storage_commitment import SOP_CLASS_UID as STORAGE_COMMITMENT
from pacs.dicom.text.code_elements import CHARACTER_SETS
from pacs.dimse.status import STATUS_OF, DimseService, Status
from pacs.explain.statuses import row_of
from pacs.statement import claims
from pacs.statement.blocks import Block, Heading, Paragraph, Table
from pacs.statement.claims import proved_by

_EXTRA_STATUSES = {
    DimseService.STORE: (Status.SUCCESS, Status.ELEMENTS_DISCARDED),
    DimseService.FIND: (
        Status.SUCCESS,
        Status.PENDING,
        Status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED,
        Status.CANCEL,
    ),
    DimseService.MOVE: (
        Status.SUCCESS,
        Status.PENDING,
        Status.CANCEL,
        Status.WARNING_SUB_OPERATIONS,
        Status.MOVE_DESTINATION_UNKNOWN,
    ),
    DimseService.GET: (
        Status.SUCCESS,
        Status.PENDING,
        Status.CANCEL,
        Status.WARNING_SUB_OPERATIONS,
    ),
    DimseService.COMMIT: (Status.SUCCESS, Status.NO_SUCH_ACTION, Status.NO_SUCH_SOP_INSTANCE),
}
#: Of PS3.7, the same for each service: the request itself is at fault.
_OF_THE_REQUEST = (
    Status.SOP_CLASS_NOT_SUPPORTED,
    Status.DUPLICATE_INVOCATION,
    Status.UNRECOGNISED_OPERATION,
    Status.MISTYPED_ARGUMENT,
)
_CHECKS_OF = {
    DimseService.STORE: ("storage.*",),
    DimseService.FIND: ("find.pending-status", "find.cancel*", "find.level-*", "find.no-match"),
    DimseService.MOVE: (
        "move.some-fail",
        "move.all-fail",
        "move.warnings",
        "move.cancel",
        "move.destination-*",
    ),
    DimseService.GET: ("get.some-fail", "get.all-fail", "get.warnings", "get.cancel"),
    DimseService.COMMIT: (),
}


def overview(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.1: what is supported, in one table."""
    yield Heading(2, "1 Conformance Statement Overview")
    yield Paragraph(
        "An archive: it stores SOP Instances of every Storage SOP Class as they come, answers "
        "queries from an SQL index, and "
        "sends instances to AEs that it knows or on the association of the request. `pacs "
        "conformance scp` runs the checks "
        "that this statement links to, against this archive or any other."
    )
    rows = [
        ("Verification", "yes", "yes", proved_by("verification.*")),
        (
            "Storage",
            "for C-MOVE and C-GET",
            f"yes, {len(STORAGE_SOP_CLASSES)} SOP Classes and private ones",
            proved_by("storage.success", "storage.accepted-contexts"),
        ),
        (
            "Query/Retrieve: FIND",
            "`pacs find`",
            "yes",
            proved_by("find.complete", "find.unique-keys"),
        ),
        ("Query/Retrieve: MOVE", "`pacs move`", "yes", proved_by("move.study", "move.image")),
        ("Query/Retrieve: GET", "no", "yes", proved_by("get.study", "get.image")),
        ("Storage Commitment Push Model", "no", "yes", proved_by()),
        ("Media storage", "reads files and DICOMDIR (`pacs import`)", "", proved_by()),
    ]
    yield Table(("service", "as SCU", "as SCP", "proved by"), rows)


def introduction(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.3."""
    yield Heading(2, "2 Introduction")
    yield Paragraph(
        "For those who connect an AE to this archive and want to know what it will answer. "
        "Conformance does not promise that two "
        "products work together: test them. Terms are those of PS3.1 to PS3.8; details of each "
        "rule are in `docs/conformance.md`."
    )


def implementation_model(settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.1."""
    yield Heading(2, "3 Networking")
    yield Heading(3, "3.1 Implementation model")
    yield Paragraph(
        f"One Application Entity, `{settings.ae_title}`, accepts associations for all services on "
        "one port. It opens associations of "
        "its own to Move Destinations for the C-STORE sub-operations of a C-MOVE, and to AEs "
        "that asked for Storage Commitment, to "
        "report. A C-STORE is answered after bytes and index are on stable storage, so what was "
        "acknowledged can be found."
    )


def association_policies(settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.2.1.2."""
    yield Heading(3, "3.2 Association policies")
    rows = [
        (
            "application context",
            "1.2.840.10008.3.1.1.1; another is rejected (1/1/2)",
            proved_by("negotiation.application-context-*"),
        ),
        (
            "maximum PDU length received",
            f"{settings.maximum_pdu_bytes} bytes",
            proved_by("negotiation.maximum-length-announced", "robustness.pdu-of-four-gigabytes"),
        ),
        (
            "maximum PDU length sent",
            "what the peer announces",
            proved_by("negotiation.maximum-length-kept", "negotiation.maximum-length-unlimited"),
        ),
        (
            "associations accepted at once",
            f"{settings.maximum_associations}; more are rejected (2/3/2)",
            proved_by("negotiation.second-association"),
        ),
        (
            "asynchronous operations",
            "one operation at a time",
            proved_by("negotiation.asynchronous-window"),
        ),
        (
            "Implementation Class UID",
            IMPLEMENTATION_CLASS_UID,
            proved_by("negotiation.implementation-identified"),
        ),
        (
            "Implementation Version Name",
            IMPLEMENTATION_VERSION_NAME,
            proved_by("negotiation.implementation-identified"),
        ),
        (
            "called AE title",
            "has to be ours; else rejected (1/1/7)" if settings.require_called_ae_title else "any",
            proved_by("negotiation.titles-returned"),
        ),
        ("calling AE title", _calling(settings), proved_by()),
        (
            "presentation contexts",
            "up to 128, each answered",
            proved_by(
                "negotiation.contexts-answered",
                "negotiation.128-contexts",
                "negotiation.*-syntax-*",
            ),
        ),
        (
            "unknown items",
            "ignored, as later editions may send them",
            proved_by("negotiation.user-item-unknown", "robustness.protocol-version"),
        ),
        (
            "malformed input",
            "answered with a status or aborted; others are served on",
            proved_by("robustness.*"),
        ),
    ]
    yield Table(("policy", "value", "proved by"), rows)


def _calling(settings: Settings) -> str:
    if settings.allow_any:
        return "any"
    where = " that calls from its host" if settings.verify_calling_host else ""
    return f"any from the loopback interface, else a registered one{where}; else rejected (1/1/3)"


def sop_classes(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.2.1.1: SOP Classes and transfer syntaxes."""
    yield Heading(3, "3.3 SOP Classes and transfer syntaxes")
    yield Paragraph(
        "Verification, Query/Retrieve and Storage Commitment: Explicit VR Little Endian, "
        "Implicit VR Little Endian, Deflated Explicit VR "
        "Little Endian and Explicit VR Big Endian, in this order of preference. Storage: every "
        "transfer syntax, the first one of "
        "a presentation context; the data set is kept byte for byte. "
        + proved_by("storage.accepted-contexts", "negotiation.implicit-vr")
    )
    messages = ["1.2.840.10008.1.1", STORAGE_COMMITMENT, *QUERY_RETRIEVE_SOP_CLASSES]
    yield Table(("SOP Class", "UID", "role"), [(UID(uid).name, uid, "SCP") for uid in messages])
    yield Table(
        ("Storage SOP Class", "UID", "role"),
        [(UID(uid).name, uid, "SCP; SCU of sub-operations") for uid in sorted(STORAGE_SOP_CLASSES)],
    )


def keys(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.2.1.4: what a query can ask for."""
    yield Heading(3, "3.4 Query keys")
    yield Paragraph(
        "Any other Attribute of the data dictionary is returned from, and matched in, the stored "
        "header at its level. "
        + proved_by(
            "find.required-keys",
            "find.required-key-values",
            "find.single-value*",
            "find.wild-card-*",
            "find.range-*",
            "find.list-of-uids*",
            "find.sequence",
            "find.unsupported-key",
        )
    )
    rows = [
        (
            level.name,
            dictionary_description(Tag(attribute.tag)),
            str(Tag(attribute.tag)),
            attribute.vr,
            key_type(attribute),
            ", ".join(matching(attribute)),
        )
        for level in Level
        for attribute in ATTRIBUTES
        if attribute.level is level
    ]
    yield Table(("level", "Attribute", "tag", "VR", "key", "matching"), rows)


def statuses(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.2.1.3: statuses, and what they mean."""
    yield Heading(3, "3.5 Statuses")
    for service in DimseService:
        given = {*STATUS_OF[service].values(), *_EXTRA_STATUSES[service], *_OF_THE_REQUEST}
        yield Heading(4, service.value)
        yield Paragraph("Proved by: " + proved_by(*_CHECKS_OF[service]))
        rows = []
        for status in sorted(given):
            row = row_of(service.value, status)
            rows.append((f"{status:04X}", row.name, row.why, row.clause))
        yield Table(("status", "meaning", "situation", "clause"), rows)


def extended_negotiation(settings: Settings) -> Iterator[Block]:
    """PS3.4 C.5: what is agreed to."""
    yield Heading(3, "3.6 Extended negotiation")
    yield Paragraph(
        "Proved by: "
        + proved_by(
            "negotiation.extended-not-proposed", "find.relational", "find.combined-date-time"
        )
    )
    agreed = set(settings.extended_negotiation)
    rows = []
    for operation, sub_fields in SUB_FIELDS.items():
        for byte, (name, option) in enumerate(sub_fields, start=1):
            word = "" if option is None else option.replace("_", "-")
            answer = f"yes (`{word}`)" if word in agreed else "no"
            rows.append((f"C-{operation.value}", str(byte), name, answer))
    yield Table(("operation", "byte", "option", "agreed to"), rows)


def retrieval(_settings: Settings) -> Iterator[Block]:
    """PS3.4 C.4.2.3 and C.4.3.3."""
    yield Heading(3, "3.7 Retrieval")
    rows = []
    for operation in (Operation.MOVE, Operation.GET):
        name = operation.value.lower()
        rows += [
            (
                f"C-{operation.value}",
                "each pending response has all four counters",
                proved_by(f"{name}.counters-*"),
            ),
            (
                f"C-{operation.value}",
                "the final response lists exactly the instances that failed",
                proved_by(f"{name}.failed-list*"),
            ),
            (
                f"C-{operation.value}",
                "a C-CANCEL ends it within one sub-operation",
                proved_by(f"{name}.cancel"),
            ),
        ]
    rows += [
        ("C-MOVE", "sub-operations name their Move Originator", proved_by("move.originator")),
        ("C-MOVE", "instances arrive as they were stored", proved_by("move.content")),
    ]
    yield Table(("operation", "what it does", "proved by"), rows)


def character_sets(_settings: Settings) -> Iterator[Block]:
    """PS3.2 A.6."""
    yield Heading(2, "4 Support of character sets")
    yield Paragraph(
        "Responses are in the character set of the request where every text can be written in "
        "it, else in UTF-8 (ISO_IR 192). " + proved_by("find.character-set*")
    )
    rows = [
        (one.description, one.defined_term or "", one.extension_term or "")
        for one in CHARACTER_SETS
    ]
    yield Table(("character set", "Defined Term", "with code extensions"), rows)


def security(settings: Settings) -> Iterator[Block]:
    """PS3.2 A.7."""
    yield Heading(2, "5 Security")
    tls = {"off": "not served", "optional": "served beside plain TCP", "required": "required"}[
        settings.tls
    ]
    yield Paragraph(
        f"BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12): {tls} "
        f"(`tls = {settings.tls}`); an AE can be "
        "called with TLS (`pacs ae add --tls`). User Identity negotiation is not supported. Each "
        "AE can be limited to services and "
        "Move Destinations (`pacs ae add --help`)."
    )


def configuration(settings: Settings) -> Iterator[Block]:
    """PS3.2 A.4.4: every parameter and its value here."""
    yield Heading(2, "6 Configuration")
    rows = [
        (
            f"`{name}`",
            f"`{value}`" if value else "",
            type(settings).model_fields[name].description or "",
        )
        for name, value in settings.describe().items()
    ]
    yield Table(("setting", "value", "what it is"), rows)


def checks(_settings: Settings) -> Iterator[Block]:
    """The appendix that the links lead to."""
    yield Heading(2, "7 Checks")
    yield Paragraph("`pacs conformance scp TITLE@HOST:PORT --check NAME` runs one of them.")
    yield Table(("check", "clause", "asks", "what is checked"), claims.rows())


SECTIONS = (
    overview,
    introduction,
    implementation_model,
    association_policies,
    sop_classes,
    keys,
    statuses,
    extended_negotiation,
    retrieval,
    character_sets,
    security,
    configuration,
    checks,
)


def statement(settings: Settings) -> Iterator[Block]:
    """The whole document."""
    yield Heading(1, "DICOM Conformance Statement")
    yield Paragraph(
        f"pacs {__version__}, AE title `{settings.ae_title}`. Written by `pacs conformance "
        "statement` from the settings in force and "
        "the tables in the code; structure of PS3.2 Annex A."
    )
    for section in SECTIONS:
        yield from section(settings)
