"""Scenario files: TOML that says what the programmable SCP has and does."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pacs.conformance.scu.rules import Rule
from pacs.errors import InvalidSetting

_SUFFIX = ".toml"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a file says. Paths in ``folders`` count from the file."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    title: str = ""
    #: Folders with DICOM files to have.
    folders: tuple[str, ...] = ()
    #: Instances to have, as Attributes by keyword; what is not said is made up.
    instances: tuple[Mapping[str, str], ...] = ()
    #: Move Destinations: title to ``host:port``.
    destinations: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def data_sets(self) -> Iterator[Dataset]:
        """The instances that are written out in the scenario."""
        for number, attributes in enumerate(self.instances, start=1):
            yield _instance(number, attributes)


_SCENARIO = TypeAdapter(Scenario)
_RULE = TypeAdapter(Rule)


def _instance(number: int, attributes: Mapping[str, str]) -> Dataset:
    instance = Dataset()
    patient = attributes.get("PatientID", "SCENARIO")
    study = attributes.get("StudyInstanceUID", "2.25.1")
    series = attributes.get("SeriesInstanceUID", f"{study}.1")
    made_up = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": f"{series}.{number}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "PatientID": patient,
        "PatientName": "Scenario^Patient",
        "Modality": "OT",
        "InstanceNumber": str(number),
    }
    for keyword, value in (made_up | dict(attributes)).items():
        setattr(instance, keyword, value)
    return instance


def ready_made() -> dict[str, Scenario]:
    """The scenarios that come with the package, by name."""
    folder = resources.files("pacs.conformance.scu") / "scenarios"
    found = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)),
        key=lambda entry: entry.name,
    )
    return {
        entry.name.removesuffix(_SUFFIX): parse(entry.read_text("utf-8"), entry.name)
        for entry in found
    }


def load(name_or_file: str) -> Scenario:
    """A ready-made scenario by its name, or one from a file.

    Raises:
        InvalidSetting: there is none, or it breaks a rule; a line for each mistake.
    """
    known = ready_made()
    if name_or_file in known:
        return known[name_or_file]
    path = Path(name_or_file)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            f"no scenario {name_or_file!r}: neither a readable file nor one of: {', '.join(known)}"
        ) from error
    scenario = parse(text, name_or_file)
    folders = tuple(str(path.parent / folder) for folder in scenario.folders)
    return Scenario(**{**vars(scenario), "folders": folders})


def parse(text: str, origin: str) -> Scenario:
    """Read a scenario; ``origin`` names it in messages.

    Raises:
        InvalidSetting: it breaks a rule; a line for each mistake.
    """
    try:
        return _SCENARIO.validate_json(json.dumps(tomllib.loads(text), default=str))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"{origin}: {error}") from error
    except ValidationError as error:
        raise InvalidSetting("\n".join(_mistakes(error, origin))) from error


def parse_rule(values: Mapping[str, Any]) -> Rule:
    """One rule, from JSON for example.

    Raises:
        InvalidSetting: it is none; a line for each mistake.
    """
    try:
        return _RULE.validate_json(json.dumps(values))
    except ValidationError as error:
        raise InvalidSetting("\n".join(_mistakes(error, "rule"))) from error


def _mistakes(error: ValidationError, origin: str) -> Iterator[str]:
    for one in error.errors(include_url=False, include_context=False):
        place = [str(part + 1) if isinstance(part, int) else str(part) for part in one["loc"]]
        message = one["msg"]
        if one["type"] == "unexpected_keyword_argument":
            message = "there is no such key"
        yield f"{origin}: {' '.join(place)}: {message}"
