"""Live control of a programmable SCP over HTTP: JSON in, JSON out.

| request | what it does |
| --- | --- |
| ``GET /health`` | how many associations there were and are |
| ``GET /associations`` | number, AE titles, requests and ending of each |
| ``GET /associations/N`` | its trace |
| ``GET /report`` | the judgement of the SCU so far |
| ``GET /rules`` | the rules in force |
| ``POST /rules`` | add the rule in the body |
| ``DELETE /rules`` | take all rules away |
| ``POST /scenario`` | put the rules of the ready-made scenario ``{"name": ...}`` in place of all others |

Errors are problem details (RFC 9457). It is for tests: there is no authentication, so it listens where it is told to,
on the loopback interface unless told otherwise. A page in a browser on the same machine can reach that too, by its own
name for it (DNS rebinding) or across origins: so Host and Origin have to be names of where it listens.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pacs.conformance.report.json_document import as_json
from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.scenario import Scenario, parse_rule, ready_made
from pacs.conformance.scu.server import ProgrammableSCP
from pacs.conformance.scu.session import Session
from pacs.errors import InvalidSetting

_LONGEST_BODY_BYTES = 1 << 20
_TIMEOUT_SECONDS = 10.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Not str.isdigit: it takes a superscript for a digit, and int() does not.
_NUMBER = re.compile(r"[0-9]{1,9}")
_Value = TypeVar("_Value")


class _Problem(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Control:
    """The HTTP server beside a programmable SCP; a context manager."""

    def __init__(self, scp: ProgrammableSCP, host: str = "127.0.0.1", port: int = 0) -> None:
        self._scp = scp
        self._server = _Server((host, port), self.answer)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """What a request is answered with.

        Raises:
            _Problem: there is nothing of that name, or the body is wrong.
        """
        parts = [part for part in path.partition("?")[0].split("/") if part]
        match method, parts:
            case "GET", ["health"]:
                sessions = self._scp.sessions
                running = sum(not session.ending for session in sessions)
                return {"associations": len(sessions), "running": running}
            case "GET", ["associations"]:
                return [described(one) for one in self._scp.sessions]
            case "GET", ["associations", number]:
                return self._session(number).association.trace.to_json()
            case "GET", ["report"]:
                return as_json(judge(self._scp.sessions))
            case "GET", ["rules"]:
                return [asdict(rule) for rule in self._scp.rules.all()]
            case _:
                return self._changed(method, parts, body)

    def _changed(self, method: str, parts: list[str], body: bytes) -> Any:
        match method, parts:
            case "POST", ["rules"]:
                self._scp.rules.add(_valid(lambda: parse_rule(_object(body))))
                return {"rules": len(self._scp.rules.all())}
            case "DELETE", ["rules"]:
                self._scp.rules.clear()
                return {"rules": 0}
            case "POST", ["scenario"]:
                scenario = _ready_made(_object(body).get("name"))
                self._scp.rules.clear()
                for rule in scenario.rules:
                    self._scp.rules.add(rule)
                return {"rules": len(scenario.rules)}
            case _:
                raise _Problem(HTTPStatus.NOT_FOUND, f"there is no {method} /{'/'.join(parts)}")

    def _session(self, number: str) -> Session:
        sessions = self._scp.sessions
        if not _NUMBER.fullmatch(number) or not 0 < int(number) <= len(sessions):
            raise _Problem(HTTPStatus.NOT_FOUND, f"there is no association {number}")
        return sessions[int(number) - 1]


def described(session: Session) -> dict[str, Any]:
    """One association in a list."""
    return {
        "number": session.number,
        "calling_ae_title": session.calling,
        "called_ae_title": session.called,
        "requests": [request.name for request in session.requests],
        "ending": session.ending or None,
    }


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _Problem(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    return value


def _ready_made(name: object) -> Scenario:
    """Not a file: whoever can reach the port cannot have any opened."""
    known = ready_made()
    if not isinstance(name, str) or name not in known:
        detail = f"there is no ready-made scenario of that name, only {', '.join(known)}"
        raise _Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return known[name]


def _valid(make: Callable[[], _Value]) -> _Value:
    try:
        return make()
    except InvalidSetting as error:
        raise _Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.message) from error


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answer: Callable[[str, str, bytes], Any]) -> None:
        super().__init__(address, _Handler)
        self.answer = answer
        self.names = _LOOPBACK | {address[0].lower()}

    def handle_error(self, *_: object) -> None:
        """Nothing: a client that goes away, or sends nothing, is no affair of the test's."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_SECONDS

    def do_GET(self) -> None:  # the name is the standard library's
        """Answer a GET."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer()

    def do_DELETE(self) -> None:
        """Answer a DELETE."""
        self._answer()

    def _answer(self) -> None:
        status, kind = HTTPStatus.OK, "application/json"
        try:
            self._require_our_name()
            value = self.server.answer(self.command, self.path, self._body())
        except _Problem as problem:
            status, kind = problem.status, "application/problem+json"
            value = {"title": status.phrase, "status": int(status), "detail": problem.detail}
        content = json.dumps(value, ensure_ascii=True, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _require_our_name(self) -> None:
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if _host_name(f"//{host}") not in self.server.names:
            raise _Problem(HTTPStatus.FORBIDDEN, "Host is not a name of this control")
        if origin is not None and _host_name(origin) not in self.server.names:
            raise _Problem(HTTPStatus.FORBIDDEN, "Origin is another site")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not _NUMBER.fullmatch(length) or int(length) > _LONGEST_BODY_BYTES:
            raise _Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a body of at most 1 MiB")
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's signature
        """Nothing: the associations are what is watched."""
