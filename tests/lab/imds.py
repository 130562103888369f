"""An instance metadata service, version 2, with the paths and codes of the EC2 User Guide.

Run as a script inside the vpc namespace: ``imds.py STATE.json ADDRESS...``. It reads STATE.json
again whenever that has changed: "tree" maps a path below /latest/ to its text (one ending in "/" is
a list and is made from the paths below it), "modes" are faults:

    expired    401 once a token was used "uses" times, or is "seconds" old
    503        for everything
    silent     accepts a connection, reads the request and never answers
    no-token   the same for token requests only: how a hop limit of 1 looks from a container
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header, not a secret
MAX_TTL_S = 21600
MAX_TOKENS = 10_000


def listing(tree: Mapping[str, str], path: str) -> str | None:
    """What *path* holds: its text, the names below it, or None for a 404."""
    if path in tree:
        return tree[path]
    below = path if path.endswith("/") else path + "/"
    names: dict[str, None] = {}
    for known in tree:
        if known.startswith(below):
            head, slash, _ = known[len(below) :].partition("/")
            names[head + slash] = None
    return "\n".join(sorted(names)) or None


class State:
    """The state file, as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int], dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def now(self) -> dict[str, Any]:
        """Its content, parsed again only when it is another file than before."""
        with self._lock:
            seen = self._path.stat()
            version = (seen.st_ino, seen.st_mtime_ns)
            if self._read is None or self._read[0] != version:
                self._read = (version, json.loads(self._path.read_text()))
            return self._read[1]


@dataclasses.dataclass(slots=True)
class Token:
    """A session token: when it was given, when it ends, and how often it opened the door."""

    since: float
    until: float
    uses: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request. ``state`` and ``tokens`` are set on the class before serving."""

    state: State
    tokens: dict[str, Token]
    server_version = "EC2ws"
    protocol_version = "HTTP/1.1"
    timeout = 10
    # Head and body are two writes; Nagle would hold the second one back for 40 ms.
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        """Hand out a session token."""
        if self._faulty("silent", "no-token"):
            return
        # Real IMDS refuses what came through a proxy: that is its guard against SSRF.
        if self.path != "/latest/api/token" or "X-Forwarded-For" in self.headers:
            self._answer(403)
            return
        ttl = self.headers.get(TTL, "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= MAX_TTL_S:
            self._answer(400)
            return
        if len(self.tokens) >= MAX_TOKENS:
            self.tokens.clear()
        token, now = secrets.token_urlsafe(42), time.monotonic()
        self.tokens[token] = Token(now, now + int(ttl))
        self._answer(200, token, {TTL: ttl})

    def do_GET(self) -> None:
        """Answer a metadata path to who holds a token."""
        if self._faulty("silent"):
            return
        state = self.state.now()
        if not self._holds_token(state):
            self._answer(401)
            return
        if not self.path.startswith("/latest/"):
            self._answer(404)
            return
        text = listing(state["tree"], self.path.removeprefix("/latest/"))
        self._answer(404) if text is None else self._answer(200, text)

    def _holds_token(self, state: Mapping[str, Any]) -> bool:
        token, now = self.tokens.get(self.headers.get(TOKEN, "")), time.monotonic()
        if token is None or token.until < now:
            return False
        if "expired" in state["modes"]:
            uses, seconds = state["uses"], state["seconds"]
            if uses is not None and token.uses >= uses:
                return False
            if seconds is not None and now - token.since > seconds:
                return False
        token.uses += 1
        return True

    def _faulty(self, *mute: str) -> bool:
        """Whether a mode has dealt with this request: with a 503, or with silence if in *mute*."""
        if "503" in self.state.now()["modes"]:
            self._answer(503)
            return True
        silent = False
        while any(mode in mute for mode in self.state.now()["modes"]):
            silent = True
            # Until the peer has had enough, or the mode has ended; then without an answer still.
            if select.select([self.connection], [], [], 0.05)[0]:
                break
        self.close_connection |= silent
        return silent

    def _answer(self, code: int, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """One line per request, on stdout and at once."""
        print(self.address_string(), format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    """One listening address, of either family."""

    request_queue_size = 128

    def __init__(self, address: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 80), Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse look-up of the address, which would need DNS."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), 80


def main(argv: list[str]) -> None:
    """Serve on every address until the process is ended."""
    Handler.state = State(Path(argv[1]))
    Handler.tokens = {}
    servers = [Server(address) for address in argv[2:]]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main(sys.argv)
