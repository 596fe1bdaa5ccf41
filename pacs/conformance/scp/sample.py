"""The data set that the checks work with: generated and stored by us, or found in the peer's own archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from pacs.dicom.levels import Level


@dataclass(frozen=True)
class SampleInstance:
    """One SOP Instance: its Attributes, and the transfer syntax it is stored in.

    Of an instance that was found with C-FIND only the Attributes that came back are known, and it is not sent.
    """

    attributes: Dataset
    transfer_syntax: str = ""

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return str(self.attributes.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.attributes.SOPInstanceUID)


@dataclass(frozen=True)
class Sample:
    """The known instances. ``is_generated``: nothing else in the archive has these patients or UIDs.

    ``token`` begins each Patient ID and Patient's Name of a generated one. ``notes`` says what was left out and why.
    """

    instances: tuple[SampleInstance, ...] = ()
    is_generated: bool = False
    token: str = ""
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What there is, what a run leaves behind in the peer, and what is missing."""
        stored = f", stored: delete the patients whose Patient ID begins with {self.token}-"
        counted = f"{len(self.instances)} instances{stored if self.is_generated else ', found'}"
        return "; ".join((counted, *self.notes))

    def entities(self, level: Level, **keys: str) -> Iterator[list[SampleInstance]]:
        """The instances of each patient, study, series or instance, of those whose Attributes equal ``keys``."""
        grouped: dict[str, list[SampleInstance]] = {}
        for one in self.matching(**keys):
            grouped.setdefault(str(one.attributes.get(level.unique_key, "")), []).append(one)
        yield from grouped.values()

    def with_levels(self, levels: Iterable[Level]) -> Sample:
        """What of it can be asked for down these levels: a patient without a Patient ID has no unique key.

        Patient ID may be empty (type 2), and an empty key asks for all patients (PS3.4 C.2.2.2.3).
        """
        wanted = [level.unique_key for level in levels]
        having = [one for one in self.instances if all(map(one.attributes.get, wanted))]
        return replace(self, instances=tuple(having))

    def matching(self, **keys: str) -> list[SampleInstance]:
        """The instances whose Attributes, as text, equal ``keys``."""
        return [
            one
            for one in self.instances
            if all(str(one.attributes.get(keyword, "")) == value for keyword, value in keys.items())
        ]

    def unique(self, level: Level) -> list[str]:
        """The values of the unique key of a level, each once, in order."""
        return unique(str(one.attributes.get(level.unique_key, "")) for one in self.instances)


def unique(values: Iterable[str]) -> list[str]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))
