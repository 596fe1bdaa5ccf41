"""The instances that the programmable SCP has, in an archive of its own: so it is right unless it is told otherwise."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset

from pacs.archive.find import find
from pacs.archive.receive import OPERATOR, open_reception
from pacs.config import Settings
from pacs.conformance.wire.message import encode_data_set
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import parse_find, parse_retrieve
from pacs.dicom.query.query_options import BASELINE, QueryOptions
from pacs.dicom.query.response import encode_response
from pacs.model.instances import Origin, StoredInstance
from pacs.server import open_archive


@dataclass(frozen=True)
class HeldInstance:
    """A SOP Instance and its encoded data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    data: bytes


class Holdings:
    """The instances; a context manager, since they are in a temporary directory."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pacs-scu-")

    def __enter__(self) -> Self:
        self._archive = open_archive(Settings(data_dir=Path(self._directory.name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._archive.close()
        self._directory.cleanup()

    def add(self, instance: Dataset, transfer_syntax: str) -> None:
        """Take a data set.

        Raises:
            PacsError: it is no SOP Instance.
        """
        encoded = encode_data_set(instance, transfer_syntax)
        self.add_encoded(
            HeldInstance(
                str(instance.SOPClassUID), str(instance.SOPInstanceUID), transfer_syntax, encoded
            )
        )

    def add_encoded(self, held: HeldInstance) -> None:
        """Take a data set as it came.

        Raises:
            PacsError: it is no SOP Instance, or not the one that is named.
        """
        uids = held.sop_class_uid, held.sop_instance_uid
        origin = Origin("SCU", held.transfer_syntax, *uids, is_announced=True)
        with open_reception(self._archive, origin, OPERATOR) as reception:
            reception.write(held.data)
            reception.commit()

    def find(
        self,
        identifier: Dataset,
        model: InformationModel,
        retrieve_ae_title: str,
        options: QueryOptions = BASELINE,
        ignored: Iterable[str] = (),
    ) -> list[Dataset]:
        """The Identifiers of the matches. ``ignored`` keys do not restrict them.

        Raises:
            InvalidIdentifier: the Identifier breaks a rule of the information model.
        """
        query = parse_find(identifier, model, options)
        names = set(ignored)
        kept = tuple(one for one in query.conditions if one.attribute.keyword not in names)
        query = replace(query, conditions=kept)
        return [
            encode_response(
                query, found.record, retrieve_ae_title=retrieve_ae_title, header=found.header
            )
            for found in find(self._archive, query)
        ]

    def retrieve(
        self, identifier: Dataset, model: InformationModel, options: QueryOptions = BASELINE
    ) -> list[HeldInstance]:
        """The instances that a retrieve asks for, in the order of receipt.

        Raises:
            InvalidIdentifier: the Identifier breaks a rule of the information model.
        """
        index = self._archive.index
        plan = index.plan(parse_retrieve(identifier, model, options))
        return [self._held(stored) for stored in index.instances(plan.keys)]

    def _held(self, stored: StoredInstance) -> HeldInstance:
        with self._archive.storage.open(stored.location) as stream:
            stream.seek(stored.data_set_offset)
            data = stream.read(stored.data_set_size)
        return HeldInstance(
            stored.sop_class_uid, stored.sop_instance_uid, stored.transfer_syntax_uid, data
        )

    def count(self) -> int:
        """How many instances there are."""
        return self._archive.index.stats().instances


def texts_of(identifier: Dataset) -> Mapping[str, str]:
    """The keys of an Identifier as text, by keyword: what rules compare."""
    return {
        element.keyword: str(element.value or "")
        for element in identifier
        if element.VR != "SQ" and element.keyword
    }
