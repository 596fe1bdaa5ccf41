"""The engine as a Storage SCP that keeps nothing: what receiving costs without an archive behind it.

python -m benchmarks.receiver PORT
"""

from __future__ import annotations

import signal
from typing import Any

import click
from pynetdicom import evt

from pacs.dimse.negotiation import message_contexts, storage_contexts
from pacs.wire.ae import EngineAE

_MAXIMUM_PDU_BYTES = 131_072


class _Nowhere:
    """A sink that forgets what it is given."""

    def write(self, fragment: memoryview) -> None:
        """Take a fragment."""

    def finish(self) -> None:
        """Take the end."""

    def discard(self) -> None:
        """Take that there will be no end."""


def _open_sink(_association: Any, _request: Any, _context_id: int) -> _Nowhere:
    return _Nowhere()


def _on_requested(event: Any) -> None:
    proposed = event.assoc.requestor.primitive.presentation_context_definition_list
    event.assoc.acceptor.supported_contexts = [
        *message_contexts(),
        *storage_contexts(proposed),
    ]


def _on_store(_: Any) -> int:
    return 0x0000


@click.command()
@click.argument("port", type=int)
def main(port: int) -> None:
    """Receive on PORT until SIGTERM."""
    ae = EngineAE("PACS")
    ae.maximum_pdu_size = _MAXIMUM_PDU_BYTES
    ae.supported_contexts = list(message_contexts())
    handlers = [(evt.EVT_REQUESTED, _on_requested), (evt.EVT_C_STORE, _on_store)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = ae.listen(("127.0.0.1", port), handlers, open_sink=_open_sink)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop()
    ae.drain(1.0)


if __name__ == "__main__":
    main()
