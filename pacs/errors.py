"""What can go wrong, in the words of the domain.

Each class docstring is the default message of its error. ``fault`` says whose it is: the peer's (logged
as a warning) or ours (logged as an error). No class here knows a protocol: DIMSE status codes live in
``pacs.dimse.status``, exit codes in ``pacs.cli``.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Literal

Fault = Literal["peer", "ours"]


class PacsError(Exception):
    """The archive could not do what it was asked to do."""

    fault: ClassVar[Fault] = "ours"
    #: SOP Instances that a retrieve failed for before it came to their sub-operations.
    failed_uids: tuple[str, ...] = ()

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])

    @property
    def message(self) -> str:
        """One sentence for the person that asked, and for the log."""
        return str(self.args[0])

    @property
    def comment(self) -> str:
        """What a peer is told: the message, but for what concerns nobody outside."""
        return self.message

    @property
    def log_level(self) -> int:
        """How severe it is for the operator, by whose fault it is."""
        return logging.WARNING if self.fault == "peer" else logging.ERROR


class InvalidSetting(PacsError):
    """A setting is unknown or has a value that cannot be used."""


class NoArchive(InvalidSetting):
    """There is no archive where the settings say."""


class InvalidIdentifier(PacsError):
    """The Identifier breaks a rule of the information model."""

    fault = "peer"

    def __init__(self, message: str | None = None, *, offending: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        #: Tags for Offending Element (0000,0901).
        self.offending = offending


class InvalidActionInformation(PacsError):
    """The Action Information lacks an Attribute, or has one that is not valid."""

    fault = "peer"


class InvalidFrameRequest(InvalidIdentifier):
    """The Frame level keys break a rule, or do not fit the SOP Instance."""


class FramesNotFound(PacsError):
    """None of the frames requested is in the SOP Instance."""

    fault = "peer"


class TooManyReferences(PacsError):
    """The request references more SOP Instances than can be handled at a time."""

    fault = "peer"


class InstanceNotCreatable(PacsError):
    """No new SOP Instance of this SOP Class can be made of the frames."""

    fault = "peer"


class FramesNotExtractable(PacsError):
    """The frames of the SOP Instance cannot be told apart."""

    fault = "peer"


class NotTimeBased(PacsError):
    """The times of the frames are not known."""

    fault = "peer"


class InvalidInstance(PacsError):
    """The SOP Instance cannot be read as DICOM."""

    fault = "peer"


class NotDicom(InvalidInstance):
    """This is neither a DICOM file nor a bare data set."""


class IncompleteInstance(InvalidInstance):
    """The data set ends before it is complete."""


class InstanceMismatch(InvalidInstance):
    """The data set does not belong to the SOP Class or SOP Instance it was sent as."""

    def __init__(self, message: str | None = None, *, offending: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        #: Tags for Offending Element (0000,0901).
        self.offending = offending


class DuplicateInstance(PacsError):
    """A different SOP Instance with this SOP Instance UID is already stored."""

    fault = "peer"


class NotAuthorised(PacsError):
    """The calling AE may not do this."""

    fault = "peer"


class LimitExceeded(PacsError):
    """More was asked for than the settings of this archive allow."""

    fault = "peer"


class DestinationUnreachable(PacsError):
    """No association with the Move Destination could be established."""

    fault = "peer"


class PeerAborted(PacsError):
    """The peer ended the association before the operation was complete."""

    fault = "peer"


class StorageFull(PacsError):
    """There is no space left in the storage."""


class StorageUnavailable(PacsError):
    """The storage cannot be read or written."""


class IndexUnavailable(PacsError):
    """The index cannot be reached."""

    def __init__(
        self, message: str | None = None, *, detail: str = "", may_have_committed: bool = False
    ) -> None:
        """Say in ``detail`` what the database gave as its reason: it may name hosts, databases and files."""
        super().__init__(message)
        self._comment = str(self.args[0])
        if detail:
            self.args = (f"{self._comment.removesuffix('.')}: {detail}.",)
        #: The connection broke during a commit: whether the change is in the index is not known.
        self.may_have_committed = may_have_committed

    @property
    def comment(self) -> str:
        """What a peer is told: not what the database says of itself."""
        return self._comment


class ClaimLost(PacsError):
    """Another process works on it, since this one was taken for dead."""
