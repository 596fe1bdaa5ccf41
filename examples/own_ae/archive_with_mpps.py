"""The archive on an application entity of your own, beside a service that pacs does not have.

Run it with ``pip install mini-pacs`` and ``python archive_with_mpps.py DIRECTORY``.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from pacs.config import Settings
from pacs.dimse import stock
from pacs.dimse.negotiation import message_contexts
from pacs.scp import make_scp
from pacs.server import open_archive


@contextmanager
def serving(directory: Path, port: int = 11112) -> Iterator[Any]:
    """Serve from ``directory``; yields pynetdicom's server."""
    settings = Settings(data_dir=directory)
    archive = open_archive(settings)
    scp = make_scp(settings, archive)
    bound = stock.handlers(archive, scp.remotes, scp.access, scp.options, scp.commitments)

    ae = AE(settings.ae_title)
    ae.supported_contexts = list(message_contexts())
    ae.add_supported_context(ModalityPerformedProcedureStep)

    scp.start()  # what goes on beside the associations: storage commitment, leases
    server = ae.start_server(
        ("", port), block=False, evt_handlers=[*bound, (evt.EVT_N_CREATE, on_n_create)]
    )
    try:
        yield server
    finally:
        ae.shutdown()
        scp.stop()
        archive.close()


def on_n_create(event: evt.Event) -> tuple[int, Dataset]:
    """Take note of a procedure step; yours would keep it."""
    print("performed:", event.attribute_list.get("PerformedProcedureStepID"))
    return 0x0000, event.attribute_list


if __name__ == "__main__":
    with serving(Path(sys.argv[1])):
        input("Enter ends it. ")
