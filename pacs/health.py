"""Asking a running server what it can do, over a Unix socket in its data directory.

It sends one line of JSON to whoever connects, and closes. Nothing is imported here that takes long: a health check runs
every few seconds.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOCKET_NAME = "health.sock"
#: Group and owner may ask; the answer names no patient.
_MODE = 0o660
_BACKLOG = 16
_RECEIVE_BYTES = 64 * 1024
_LONGEST_ANSWER_BYTES = 1 << 20


class NoAnswer(Exception):
    """Nobody answers, or nothing that makes sense."""


def ask(data_dir: Path, timeout_seconds: float) -> dict[str, Any]:
    """What the server of this data directory says of itself.

    Raises:
        NoAnswer: it does not run, does not answer in time, or is not ours.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock, _address(data_dir) as address:
            sock.settimeout(timeout_seconds)
            sock.connect(address)
            answer = _read(sock)
    except TimeoutError as error:
        raise NoAnswer(f"the server does not answer within {timeout_seconds:g} s") from error
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
        why = "no server runs" if gone else f"the server cannot be asked ({error.strerror})"
        raise NoAnswer(f"{why} in {data_dir}") from error
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise NoAnswer("the server ended before it had answered") from error
    if not isinstance(value, dict):
        raise NoAnswer("the answer is not that of a server")
    return value


def _read(sock: socket.socket) -> bytes:
    answer = b""
    while len(answer) < _LONGEST_ANSWER_BYTES and (received := sock.recv(_RECEIVE_BYTES)):
        answer += received
    return answer


def listen(data_dir: Path) -> socket.socket:
    """The socket to answer on; ``remove`` takes its name away.

    Raises:
        OSError: it cannot be made; EADDRINUSE if another server answers there.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        _require_unserved(data_dir)
        (data_dir / SOCKET_NAME).unlink(missing_ok=True)
        with _address(data_dir) as address:
            sock.bind(address)
        # Before anybody can connect.
        (data_dir / SOCKET_NAME).chmod(_MODE)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def remove(data_dir: Path) -> None:
    """Take the name away, so that nobody asks a server that is gone."""
    with suppress(OSError):
        (data_dir / SOCKET_NAME).unlink()


def _require_unserved(data_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, _address(data_dir) as address:
        # One that is stuck takes nobody in, and whoever waits for that waits for ever.
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError:  # nobody, or one that was killed
            return
    raise OSError(errno.EADDRINUSE, "another server answers there")


@contextmanager
def _address(data_dir: Path) -> Iterator[str]:
    """A short path to the socket: its address has room for about 100 bytes (unix(7)).

    Raises:
        OSError: there is no such directory.
    """
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)
