"""The Identifier of a request, decoded, and logged when the operator asked for that."""

from __future__ import annotations

import logging
from typing import Any

from pydicom.dataset import Dataset

from pacs.errors import InvalidIdentifier

LOGGER = logging.getLogger(__name__)
#: Identifiers contain patient values: they are logged only when the setting ``log_identifiers`` is on.
IDENTIFIERS = logging.getLogger("pacs.identifiers")


def identifier_of(event: Any) -> Dataset:
    """Decode the Identifier of a C-FIND, C-MOVE or C-GET request.

    Raises:
        InvalidIdentifier: there is none, or it is not a data set.
    """
    data = event.request.Identifier
    if data is None or not data.getbuffer().nbytes:
        raise InvalidIdentifier("The request has no Identifier")
    try:
        identifier: Dataset = event.identifier
        # pydicom decodes lazily: reading it all once finds what is broken here and not later.
        text = str(identifier)
    except Exception as error:
        raise InvalidIdentifier("The Identifier cannot be decoded") from error
    if IDENTIFIERS.isEnabledFor(logging.DEBUG):
        IDENTIFIERS.debug("%s Identifier:\n%s", type(event.request).__name__, text)
    return identifier
