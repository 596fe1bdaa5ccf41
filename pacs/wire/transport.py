"""The TCP connection of one association: whole PDUs in, gathered writes out, no polling."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pynetdicom.transport import AddressInformation, AssociationSocket

from pacs.wire import tls
from pacs.wire.interfaces import Upper

#: PDU type (1), reserved (1), length (4): PS3.8 9.3.
PDU_HEADER_BYTES = 6
P_DATA_TF = 0x04
#: An A-ASSOCIATE-RQ with 128 presentation contexts of 40 transfer syntaxes is about 250 KB.
MAX_ASSOCIATE_PDU_BYTES = 1 << 20
#: Receive buffer; larger ones were measured to be no faster.
_BUFFER_BYTES = 256 * 1024
_SCRAP_BYTES = 16 * 1024
#: Linux forgets TCP_QUICKACK after a while, so it is set again after every receive.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
#: Linux takes at most 1,024 buffers in one sendmsg.
_MAX_BUFFERS = 512
#: Room for a whole instance of usual size: its sender prepares the next one while the kernel sends the rest.
_SEND_BUFFER_BYTES = 1024 * 1024
_SEND_BUFFER_LIMIT = Path("/proc/sys/net/core/wmem_max")
#: A TLS socket counts its time-out once for a whole write, however much of it gets through.
_TLS_WRITE_BYTES = 64 * 1024


class ConnectionLost(OSError):
    """The peer closed the connection or it broke."""


class OversizedPDU(ValueError):
    """The peer announced a PDU that is longer than anything it may send."""


class UnexpectedTLS(OversizedPDU):
    """What came is a TLS record, on a connection without TLS; read as a PDU it is far too long."""


class Connection(AssociationSocket):
    """pynetdicom's socket wrapper with buffered, blocking reads and gathered writes."""

    def __init__(
        self,
        assoc: Upper,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        stock: Any = assoc
        super().__init__(stock, client_socket, address)
        self._upper = assoc
        self._buffer = bytearray()
        self._start = 0
        self._end = 0
        self._configured = False
        self._was_established = False
        self._time_limit: float | None = None

    def _configure(self) -> socket.socket:
        """Set what holds for the whole connection, once it is connected."""
        sock = self.socket
        if sock is None:
            raise ConnectionLost("the connection is closed")
        if self._configured and self._was_established == self._upper.is_established:
            return sock
        self._was_established = self._upper.is_established
        limit = self._upper.pdu_timeout
        if not self._configured or limit != self._time_limit:
            # A peer that stops reading or writing inside a PDU costs this long, not for ever.
            sock.settimeout(limit)
            self._time_limit = limit
        if not self._configured:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._configured = True
        return sock

    def _shutdown_socket(self) -> None:
        # pynetdicom's own skips the close when the shutdown fails, as it does once the peer has reset the
        # connection, or when there never was one: the descriptor would stay open until the association is garbage.
        if self.socket is not None:
            if not self._is_connected:
                # connect() comes here while it handles what it then keeps to itself.
                error = sys.exception()
                self._upper.connect_error = _reason(error) if isinstance(error, OSError) else ""
            elif isinstance(self.socket, ssl.SSLSocket):
                _send_close_notify(self.socket)
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def shut_reading(self) -> None:
        """Wake up the thread that reads, which finds the end of the stream; called from another thread."""
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own method: that forgets the keys, and an A-ABORT would follow in plain text.
                socket.socket.shutdown(sock, socket.SHUT_RD)

    # Reading

    def wait_readable(self, timeout_seconds: float | None) -> bool:
        """Wait until bytes are there (or the end of the stream); False when the time is up."""
        if self._end > self._start:
            return True
        sock = self._configure()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if isinstance(sock, ssl.SSLSocket):
            return self._wait_decrypted(sock, deadline)
        return _wait_for(sock, select.POLLIN, deadline)

    def _wait_decrypted(self, sock: ssl.SSLSocket, deadline: float | None) -> bool:
        """Wait under TLS, where only reading tells whether there is something to read.

        A record may be there in part, hold no data (a session ticket, a key update), or lie decrypted in OpenSSL
        where poll() does not see it.
        """
        # Without a buffer the association idles: it gets one when there is something to put into it.
        wanted = 0 if self._buffer or sock.pending() else select.POLLIN
        sock.settimeout(0)
        try:
            while True:
                if wanted and not _wait_for(sock, wanted, deadline):
                    return False
                wanted = self._try_decrypt(sock)
                if not wanted:
                    return True
        finally:
            sock.settimeout(self._time_limit)

    def _try_decrypt(self, sock: ssl.SSLSocket) -> int:
        """Take what there is into the buffer; 0 for data or the end of the stream, else the event to wait for."""
        if self._end == len(self._buffer):
            self._make_room(PDU_HEADER_BYTES)
        try:
            self._end += self._receive(sock, memoryview(self._buffer)[self._end :])
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:  # OpenSSL has something to say itself
            return select.POLLOUT
        _acknowledge_at_once(sock)
        return 0

    def read_pdu(self, max_p_data_bytes: int) -> tuple[int, memoryview]:
        """Read one PDU: its type and its body. The body is valid until the next read.

        Raises:
            ConnectionLost: the stream ended or broke.
            TimeoutError: the peer stalled inside the PDU.
            OversizedPDU: the announced length is over the limit; nothing of it is read.
            UnexpectedTLS: the reason for that is that the peer speaks TLS and we do not, or it does not either.
        """
        self._ensure(PDU_HEADER_BYTES)
        pdu_type, _, length = struct.unpack_from(">BBI", self._buffer, self._start)
        limit = max_p_data_bytes if pdu_type == P_DATA_TF else MAX_ASSOCIATE_PDU_BYTES
        if length > limit:
            self._check_for_tls(pdu_type)
            raise OversizedPDU(f"PDU type {pdu_type:#04x} announces {length} bytes")
        self._ensure(PDU_HEADER_BYTES + length)
        begin = self._start + PDU_HEADER_BYTES
        self._start = begin + length
        return pdu_type, memoryview(self._buffer)[begin : begin + length]

    def _check_for_tls(self, pdu_type: int) -> None:
        if pdu_type == tls.HANDSHAKE_RECORD:
            raise UnexpectedTLS("the peer calls with TLS, and this port is without")
        if pdu_type == tls.ALERT_RECORD and self._upper.is_requestor:
            self._upper.connect_error = "the peer wants TLS"
            raise UnexpectedTLS("the peer wants TLS, and was called without")

    def _ensure(self, count: int) -> None:
        """Have at least ``count`` unread bytes in the buffer."""
        if self._end - self._start >= count:
            return
        if len(self._buffer) - self._start < count:
            self._make_room(count)
        sock = self._configure()
        # The association ends if a PDU is not complete in this time, however slowly it drips in.
        limit = self._time_limit
        deadline = None if limit is None else time.monotonic() + max(limit, 1.0)
        view = memoryview(self._buffer)
        while self._end - self._start < count:
            received = self._receive(sock, view[self._end :])
            if received == 0:
                self._note_silent_end(sock)
                raise ConnectionLost("the peer closed the connection")
            self._end += received
            _acknowledge_at_once(sock)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the peer took too long to send a PDU")

    def _receive(self, sock: socket.socket, target: memoryview) -> int:
        try:
            return sock.recv_into(target)
        except (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            if isinstance(error, ssl.SSLError) and not self._upper.is_established:
                # With TLS 1.3 our side of the handshake is done before the peer judges our certificate.
                self._upper.connect_error = tls.explain(error)
            self._note_silent_end(sock)
            raise ConnectionLost(_reason(error)) from error

    def _note_silent_end(self, sock: socket.socket) -> None:
        """A peer that ends the connection instead of answering a request for an association may want TLS."""
        assoc = self._upper
        is_silent = self._end == self._start and not (assoc.is_established or assoc.connect_error)
        if assoc.is_requestor and is_silent and not isinstance(sock, ssl.SSLSocket):
            assoc.connect_error = "connection closed; does it want TLS?"

    def _make_room(self, count: int) -> None:
        unread = bytes(memoryview(self._buffer)[self._start : self._end])
        # Views handed out earlier may still refer to the old buffer: replace it, never resize it.
        size = max(_BUFFER_BYTES, count)
        if len(self._buffer) != size:
            self._buffer = bytearray(size)
        self._buffer[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def drain(self, timeout_seconds: float) -> None:
        """Read and drop what comes until the peer closes, for no longer than the time."""
        sock = self.socket
        deadline = time.monotonic() + timeout_seconds
        scrap = bytearray(_SCRAP_BYTES)
        try:
            while sock is not None and (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                if not sock.recv_into(scrap):
                    return
        except OSError:
            return

    def release_buffer(self) -> None:
        """Give the buffer back while the association idles; nothing unread is lost."""
        if self._start == self._end:
            self._buffer = bytearray()
            self._start = self._end = 0

    # Writing

    def send(self, bytestream: bytes) -> None:
        """Send an ACSE PDU; called by pynetdicom's state machine."""
        try:
            self._configure().sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")

    def enlarge_send_buffer(self) -> None:
        """Have the kernel take a whole instance at once.

        Only where it may: a smaller size than asked for would be worse than the kernel's own tuning, which this ends.
        """
        sock = self.socket
        if sock is not None and _send_buffer_limit() >= _SEND_BUFFER_BYTES:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def send_block(self, block: memoryview) -> None:
        """Send one piece of memory.

        Raises:
            ConnectionLost: the stream broke.
            TimeoutError: the peer stopped reading.
        """
        sock = self._configure()
        step = _TLS_WRITE_BYTES if isinstance(sock, ssl.SSLSocket) else len(block)
        try:
            # Not sendall: its time-out is for the whole block, however slowly that gets through.
            while block:
                block = block[sock.send(block[:step]) :]
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(_reason(error)) from error

    def send_gathered(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send buffers in order, as few system calls as possible.

        Raises:
            ConnectionLost: the stream broke.
            TimeoutError: the peer stopped reading.
        """
        sock = self._configure()
        if isinstance(sock, ssl.SSLSocket):  # which has no gathered write
            self.send_block(memoryview(b"".join(buffers)))
            return
        try:
            for first in range(0, len(buffers), _MAX_BUFFERS):
                _send_all(sock, buffers[first : first + _MAX_BUFFERS])
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(_reason(error)) from error


@lru_cache(maxsize=1)
def _send_buffer_limit() -> int:
    try:
        return int(_SEND_BUFFER_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _wait_for(sock: socket.socket, event: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
    return bool(poll.poll(left))


def _reason(error: OSError) -> str:
    # A time-out of the handshake is an ordinary TimeoutError, with the line number of a C file in its text.
    if isinstance(error, ssl.SSLError) or "handshake" in str(error):
        return tls.explain(error)
    return error.strerror or str(error)


def _send_close_notify(sock: ssl.SSLSocket) -> None:
    # RFC 8446 6.1: without it the peer has to suspect that somebody has cut the stream short. Its answer is not
    # waited for: who wants us to close first, or is gone, does not get to keep the thread.
    with contextlib.suppress(OSError, ValueError):
        sock.settimeout(0)
        sock.unwrap()


def _send_all(sock: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    sent = sock.sendmsg(buffers)
    if sent == sum(map(len, buffers)):
        return
    remaining = [memoryview(buffer) for buffer in buffers]
    while True:
        while remaining and sent >= len(remaining[0]):
            sent -= len(remaining.pop(0))
        if not remaining:
            return
        remaining[0] = remaining[0][sent:]
        sent = sock.sendmsg(remaining)


def _acknowledge_at_once(sock: socket.socket) -> None:
    if _QUICK_ACK is not None:
        # Another thread may have closed the connection since: the next read finds out.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
