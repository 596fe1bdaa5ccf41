"""An association that lives in one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from pacs.foreign_text import visible
from pacs.model.associations import AssociationEnding
from pacs.wire.associate_items import Refusal
from pacs.wire.dimse import StreamingDIMSE
from pacs.wire.dul import SynchronousDUL
from pacs.wire.history import History
from pacs.wire.interfaces import Owner, Services

LOGGER = logging.getLogger(__name__)

#: How long the peer may take to close the connection after a release or an abort before we do (seconds).
_LINGER_SECONDS = 2.0
_OUR_FAULT = "the archive failed; its log says where"
#: PS3.8 9.3.4: rejected-transient, by the service user, no reason given.
_NO_REASON_GIVEN = (0x02, 0x01, 0x01)
#: An association that was silent for so long idles.
_BUSY_SECONDS = 1.0
#: Many times what a peer sends between two looks at it while an operation of its own is under way.
_MOST_POLLED_PDUS = 32


class EngineAssociation(Association):
    """A pynetdicom association whose thread blocks in ``recv`` instead of polling.

    As acceptor it is a thread; as requestor it has none: its methods run in the caller's thread.
    """

    dul: SynchronousDUL
    dimse: StreamingDIMSE

    def __init__(self, ae: Owner, mode: str) -> None:
        stock: Any = ae
        super().__init__(stock, mode)
        self._owner = ae
        self.dul = SynchronousDUL(self)
        self.dimse = StreamingDIMSE(self, self.dul)
        #: What is recorded of it, by whoever made the AE.
        self.history = History()
        # Their setters reach into the DUL, which is new.
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout
        # Stock send_*() waits for the reactor thread to pause; here nobody else runs.
        self._is_paused = True
        #: Short name for log lines.
        self.label = mode
        #: Why the peer rejected us, in the words of PS3.8 9.3.4; empty unless it did.
        self.rejection = ""
        #: Why there is no connection to the peer, in the words of the operating system; empty if there was one.
        self.connect_error = ""
        self._stopping = threading.Event()
        self._serving = threading.Lock()
        #: What the peer may ask for.
        self.services: Services = ae.make_services(self)

    @property
    def local_maximum_length(self) -> int:
        """The maximum PDU length that we announced, in bytes."""
        user = self.acceptor if self.is_acceptor else self.requestor
        return int(user.maximum_length or 0)

    @property
    def pdu_timeout(self) -> float | None:
        """How long one PDU may take; before there is an association, no longer than negotiating one (ARTIM)."""
        return self.network_timeout if self.is_established else self.acse_timeout

    @property
    def is_usable(self) -> bool:
        """Whether messages can still be exchanged."""
        return self.is_established and self.dul.is_established

    # Life of an acceptor

    def run_reactor(self) -> None:
        """Negotiate, then serve the peer until the association ends (an acceptor thread's body)."""
        self._owner.association_started(self)
        try:
            primitive = self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)
            if not isinstance(primitive, A_ASSOCIATE):  # nothing in time (ARTIM), or something else
                return
            self.requestor.primitive = primitive
            self._owner.association_requested()
            if self.dul.refusal is None:
                self._ask_handlers()
            else:
                self._refuse(self.dul.refusal)
            if not self.is_aborted and not self.is_rejected:
                self.acse.negotiate_association()
            if self.is_rejected:
                self._owner.association_requested()  # one less, however long the peer takes to close
            if self.is_established:
                self._owner.association_established(self)
                self._run_reactor()
        except Exception:
            LOGGER.exception("%s: the association failed; aborting", self.label)
            self.history.conclude(AssociationEnding.ABORTED, _OUR_FAULT, (0, 0))
            self.abort()
        finally:
            self.is_established = False
            self.services.close()
            self.dimse.abandon()
            self.dul.close(_LINGER_SECONDS)
            self._owner.association_ended(self)

    def _ask_handlers(self) -> None:
        """Have the handlers of the request judge it. One that fails has not let anybody in.

        ``evt.trigger`` would log the failure and go on, to an association that nobody has agreed to.
        """
        bound: Any = self.get_handlers(evt.EVT_REQUESTED)
        try:
            for handler, args in list(bound):
                handler(evt.Event(self, evt.EVT_REQUESTED, {}), *(args or ()))
        except Exception:
            LOGGER.exception("%s: a request for an association cannot be judged", self.label)
            if not self.is_aborted and not self.is_rejected:
                self.acse.send_reject(*_NO_REASON_GIVEN)
                self.kill()

    def _refuse(self, refusal: Refusal) -> None:
        """Reject what no handler needs to judge."""
        primitive: Any = self.requestor.primitive
        address = self.requestor.address_info
        # For the record; their setters take titles only.
        primitive._calling_ae_title = refusal.calling_ae
        primitive._called_ae_title = refusal.called_ae
        host = "" if address is None else address.address
        LOGGER.warning(
            "association rejected: %s@%s: %s", visible(refusal.calling_ae), host, refusal.reason
        )
        self.history.conclude(AssociationEnding.REJECTED, refusal.reason, refusal.codes)
        # First, for it counts among the associations no more when the peer reads this and calls again.
        self.is_rejected = True
        self.acse.send_reject(*refusal.codes)
        self.kill()

    def _run_reactor(self) -> None:
        while not self._kill:
            if not (self._stopping.is_set() or self.dimse.has_message() or self.services.step()):
                self._wait()
            context_id, message = self.dimse.get_msg()
            if message is not None and not self._stopping.is_set():
                with self._serving:
                    self._serve_request(message, context_id)
            if self._ended_by_peer():
                return
            if self._stopping.is_set():
                self.history.conclude(AssociationEnding.STOPPED)
                self.abort()
                return

    def _wait(self) -> None:
        timeout = self.network_timeout
        busy = _BUSY_SECONDS if timeout is None else min(timeout, _BUSY_SECONDS)
        awaited = self.services.seconds_left
        if awaited is not None:
            self.dul.pump(min(busy, awaited))
            return
        if self.dul.pump(busy):
            return
        # It idles: a buffer for each of hundreds that do would add up, and a busy one is not given a new one
        # for each message.
        if self.dul.socket is not None:
            self.dul.socket.release_buffer()
        left = None if timeout is None else timeout - busy
        if self.dul.is_connected and not self.dul.pump(left) and self.dul.is_connected:
            LOGGER.info("%s: idle for %s s; aborting", self.label, timeout)
            self.history.conclude(AssociationEnding.TIMED_OUT, f"idle for {timeout:g} s")
            self.abort()

    def _ended_by_peer(self) -> bool:
        if self.dul.is_established and self.dul.is_connected:
            return self._kill
        if self.is_established and self.acse.is_release_requested():
            self.history.conclude(AssociationEnding.RELEASED)
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            evt.trigger(self, evt.EVT_RELEASED, {})
            self._kill = True
        elif self.acse.is_aborted():
            self.history.aborted(self.dul.receive_pdu(wait=False))  # lets EVT_ACSE_RECV fire
            if not self.is_aborted:
                self.is_aborted = True
                evt.trigger(self, evt.EVT_ABORTED, {})
            self.is_established = False
            self._kill = True
        elif not self.dul.is_connected:
            self.is_established = False
            self._kill = True
        return self._kill

    def trigger(self, event: Any, attributes: Mapping[str, Any]) -> Any:
        """Call the handler bound to ``event``, and return what it does."""
        return evt.trigger(self, event, dict(attributes))

    def poll_peer(self) -> None:
        """Take in what the peer has sent so far (C-CANCEL, release, abort) without waiting.

        Of more than so many PDUs the rest is for the next time: a peer that always has something more to send would
        hold up whatever is done between two looks at it.
        """
        for _ in range(_MOST_POLLED_PDUS):
            if not self.dul.is_established or not self.dul.pump(0) or self.dimse.has_message():
                return

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer has cancelled the operation with this Message ID; its handler hears of it later."""
        self.poll_peer()
        return message_id in self.dimse.cancel_req

    @property
    def peer_is_gone(self) -> bool:
        """Whether the peer aborted, asked for release, or the connection is lost."""
        return not self.dul.is_established

    def on_connection_lost(self) -> None:
        """The transport broke, or ``stop`` ended our reading."""
        if self._stopping.is_set() and self.is_established:
            self.history.conclude(AssociationEnding.STOPPED)
            self.abort()

    def on_no_longer_established(self) -> None:
        """The peer released, aborted or vanished, or broke the protocol.

        An acceptor's loop sees to it when the service is done; a requestor has no loop.
        """
        if self.is_requestor and self.is_established and not self._sent_abort:
            self._ended_by_peer()
            self.dul.close(0.0)

    def stop(self) -> None:
        """Ask the association to end: at once if it idles, else after the operation it is serving.

        Called from another thread.
        """
        self._stopping.set()
        if self._serving.acquire(blocking=False):
            try:
                self._shut_reading()
            finally:
                self._serving.release()

    def _shut_reading(self) -> None:
        if self.dul.socket is not None:
            # Our own thread wakes up, the peer notices nothing yet.
            self.dul.socket.shut_reading()

    # Ending

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: ARG002 - pynetdicom's signature
        # ``abort()`` comes here; pynetdicom's event trigger rebinds that name on the instance.
        if self._sent_abort or self.is_released or self.is_aborted:
            return
        self._sent_abort = True
        self.acse.send_abort(0x00)
        evt.trigger(self, evt.EVT_ABORTED, {})
        self._kill = True
        if self.is_requestor:
            self.dul.close(0.0)

    def kill(self) -> None:
        """End the association's loop; the connection is closed by its thread."""
        self._kill = True
        self.is_established = False
        if self.is_requestor:
            self.dul.close(0.0)

    def release(self) -> None:
        """Release the association and close the connection (PS3.8 7.2)."""
        if self.is_usable:
            self.acse.negotiate_release()
        self.dul.close(0.0)

    def request(self) -> None:
        """Negotiate an association as requestor."""
        try:
            super().request()
        except Exception as error:
            if self.acceptor.primitive is None:  # there was no answer yet: the caller's mistake
                self.dul.close(0.0)
                raise
            LOGGER.warning("%s: cannot negotiate: %r; aborting", self.label, error)
            self.is_established = False
            self.abort()
        self._drop_unasked_contexts()
        if self.is_rejected:
            primitive = self.acceptor.primitive
            self.rejection = "" if primitive is None else primitive.reason_str
        if not self.is_established:
            self.dul.close(0.0)

    def _drop_unasked_contexts(self) -> None:
        """Forget contexts accepted with a transfer syntax that was not proposed (PS3.8 9.3.3.2.1)."""
        proposed = {
            one.context_id: one.transfer_syntax for one in self.requestor.requested_contexts
        }
        for context_id, context in list(self._accepted_cx.items()):
            accepted = context.transfer_syntax
            if not accepted or accepted[0] not in proposed[context_id]:
                LOGGER.warning(
                    "%s: context %d came back with another transfer syntax", self.label, context_id
                )
                del self._accepted_cx[context_id]
        if self.is_established and not self._accepted_cx:
            self.abort()

    # Service dispatch

    def _serve_request(self, msg: Any, context_id: int) -> None:
        started = time.monotonic()
        self.dimse.serving_message_id = msg.MessageID
        self.history.serving(msg)
        try:
            self.services.serve(msg, self._accepted_cx[context_id])
        except Exception:
            LOGGER.exception("%s: serving %s failed; aborting", self.label, type(msg).__name__)
            self.history.conclude(AssociationEnding.ABORTED, _OUR_FAULT, (0, 0))
            self.abort()
        finally:
            self.dimse.cancel_req.pop(msg.MessageID, None)
            self.dimse.serving_message_id = None
        LOGGER.debug("%s: served in %.3f s", self.label, time.monotonic() - started)
