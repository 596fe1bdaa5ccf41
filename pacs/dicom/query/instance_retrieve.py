"""Identifiers of Composite Instance Root Retrieve, which adds level FRAME (PS3.4 Y.6.1.1)."""

from __future__ import annotations

from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs.dicom.encoding.part10 import SOP_INSTANCE_UID
from pacs.dicom.encoding.plain_values import texts_of
from pacs.dicom.error_comment import refuse
from pacs.dicom.frames.frame_selection import FRAME_KEYS, parse_frame_selection
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import FRAME_LEVEL, QUERY_RETRIEVE_LEVEL, Query, parse_retrieve
from pacs.dicom.query.matching import SingleValue
from pacs.dicom.query.query_options import BASELINE, QueryOptions
from pacs.errors import InvalidFrameRequest


def parse_instance_retrieve(
    identifier: Dataset, model: InformationModel, options: QueryOptions = BASELINE
) -> Query:
    """Read the Identifier of a C-MOVE or C-GET request of any information model.

    Level FRAME becomes a query for its one instance, with the frames that are wanted of it. ``options`` are what
    was negotiated.

    Raises:
        InvalidIdentifier: it breaks a rule of the information model.
        InvalidFrameRequest: its Frame level keys do (PS3.4 Y.3.2).
    """
    if model is not InformationModel.COMPOSITE_INSTANCE_ROOT or not _is_frame_level(identifier):
        return parse_retrieve(identifier, model, options)
    of_instance = Dataset()
    for tag in identifier.keys() - {Tag(keyword) for keyword in FRAME_KEYS}:
        of_instance[tag] = identifier.get_item(tag)
    of_instance.QueryRetrieveLevel = "IMAGE"
    query = parse_retrieve(of_instance, model)
    named = [one.match for one in query.conditions if one.attribute.tag == SOP_INSTANCE_UID]
    if not all(isinstance(match, SingleValue) for match in named):
        refuse(SOP_INSTANCE_UID, "needs one value at level FRAME")
    try:
        return replace(query, frames=parse_frame_selection(identifier))
    except InvalidFrameRequest as error:
        # A sub-operation has failed, by PS3.4 Y.4.1.3: the one for this instance.
        error.failed_uids = tuple(match.value for match in named if isinstance(match, SingleValue))
        raise


def _is_frame_level(identifier: Dataset) -> bool:
    if QUERY_RETRIEVE_LEVEL not in identifier:
        return False
    return texts_of(identifier.get_item(QUERY_RETRIEVE_LEVEL)) == [FRAME_LEVEL]
