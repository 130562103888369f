"""An instance metadata service, version 2, with the paths and codes of the EC2 User Guide.

Run as a script inside the vpc namespace: ``imds.py TREE.json ADDRESS...``. TREE.json maps a path
below /latest/ to its text. A path ending in "/" is a list and is made from the paths below it.
"""

from __future__ import annotations

import http.server
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

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


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request. ``tree`` and ``tokens`` are set on the class before serving."""

    tree: Mapping[str, str]
    tokens: dict[str, float]
    server_version = "EC2ws"
    protocol_version = "HTTP/1.1"
    timeout = 10
    # Head and body are two writes; Nagle would hold the second one back for 40 ms.
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        """Hand out a session token."""
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
        token = secrets.token_urlsafe(42)
        self.tokens[token] = time.monotonic() + int(ttl)
        self._answer(200, token, {TTL: ttl})

    def do_GET(self) -> None:
        """Answer a metadata path to who holds a token."""
        if self.tokens.get(self.headers.get(TOKEN, ""), 0.0) < time.monotonic():
            self._answer(401)
            return
        if not self.path.startswith("/latest/"):
            self._answer(404)
            return
        text = listing(self.tree, self.path.removeprefix("/latest/"))
        self._answer(404) if text is None else self._answer(200, text)

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
    """Serve the tree on every address until the process is ended."""
    Handler.tree = json.loads(Path(argv[1]).read_text())
    Handler.tokens = {}
    servers = [Server(address) for address in argv[2:]]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main(sys.argv)
