"""Verification SCP (PS3.4 Annex A)."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from pacs.dimse.negotiation import rights_of
from pacs.dimse.status import Status, status_dataset
from pacs.errors import NotAuthorised
from pacs.model.remote_ae import Service


def handle_echo(event: Any) -> int | Dataset:
    """Handle ``evt.EVT_C_ECHO``."""
    try:
        rights_of(event).require(Service.ECHO)
    except NotAuthorised as error:
        return status_dataset(Status.NOT_AUTHORISED, error.message)
    return Status.SUCCESS
