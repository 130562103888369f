"""The metadata client, against real servers on 127.0.0.1 that behave, or do not."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eni53.errors import SourceError
from eni53.inventory.imds import Imds, ImdsEni, ImdsFacts

MAC_A, MAC_B = "02:c5:f8:3e:6b:27", "0e:49:61:0f:c3:11"
MACS = "network/interfaces/macs/"
FACTS = {
    "instance-id": "i-0123456789abcdef0",
    MACS: f"{MAC_A}/\n{MAC_B}/\n",
    f"{MACS}{MAC_A}/interface-id": "eni-0248f7351c1dab6b4",
    f"{MACS}{MAC_A}/vpc-ipv4-cidr-block": "10.0.0.0/16",
    f"{MACS}{MAC_B}/interface-id": "eni-0aaaaaaaaaaaaaaaa",
}
ENI_A = ImdsEni("eni-0248f7351c1dab6b4", "10.0.0.0/16")
ENI_B = ImdsEni("eni-0aaaaaaaaaaaaaaaa", None)


class Metadata(ThreadingHTTPServer):
    """A metadata service (version 2 only) whose facts, tokens and moods a test can change."""

    daemon_threads = True

    def __init__(self) -> None:
        self.facts = dict(FACTS)
        self.token = "AQAEAtoken-1=="  # noqa: S105
        self.token_status = 200
        self.failing: dict[str, int] = {}
        self.asked: list[str] = []
        self.connections = 0
        self.close_after_each = False
        super().__init__(("127.0.0.1", 0), MetadataHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class MetadataHandler(BaseHTTPRequestHandler):
    """Answers as the documentation says, from what the server holds."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would each wait for a delayed acknowledgement
    server: Metadata

    def setup(self) -> None:
        """Count connections."""
        super().setup()
        self.server.connections += 1

    def do_PUT(self) -> None:
        """Give a token."""
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
        self.server.asked.append(f"PUT {self.path}")
        self.answer(self.server.token_status, self.server.token)

    def do_GET(self) -> None:
        """Give a fact to whoever has the token."""
        path = self.path.removeprefix("/latest/meta-data/")
        self.server.asked.append(path)
        if self.headers["X-aws-ec2-metadata-token"] != self.server.token:
            self.answer(401, "")
        elif path in self.server.failing:
            self.answer(self.server.failing[path], "<html>no</html>")
        else:
            self.answer(200 if path in self.server.facts else 404, self.server.facts.get(path, ""))

    def answer(self, status: int, text: str) -> None:
        """Send one answer, and close if told to."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
        # Without a word of warning, as a service does whose idle time ran out.
        self.close_connection = self.server.close_after_each

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(server):
    """Run *server* for a while."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def metadata():
    """A service that behaves."""
    with serving(Metadata()) as server:
        yield server


@contextlib.contextmanager
def raw(*pieces: bytes, endless: bytes = b"", drip: bool = False, hold: bool = False):
    """A server that answers with *pieces*, then with *endless* for ever, holds on, or closes."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)
                while endless:
                    peer.sendall(endless)
                    if drip and ended.wait(0.02):
                        return
                if hold:
                    ended.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()
        thread.join()


def refusal(url: str, timeout_s: float = 2.0) -> str:
    """The one line a lookup fails with."""
    with pytest.raises(SourceError) as caught:
        Imds(url, timeout_s).lookup()
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith("IMDS")
    return line


def test_macs_become_enis(metadata):
    """Each MAC has its ENI id and its VPC's block; an IPv6-only one has none."""
    facts = Imds(metadata.url).lookup()
    assert facts == ImdsFacts("i-0123456789abcdef0", {MAC_A: ENI_A, MAC_B: ENI_B})


def test_nothing_needless_is_asked(metadata):
    """IMDS packets count against the limit: one connection, one token, each fact once."""
    imds = Imds(metadata.url)
    imds.lookup()
    assert sorted(metadata.asked) == sorted(
        ["PUT /latest/api/token", *FACTS, f"{MACS}{MAC_B}/vpc-ipv4-cidr-block"]
    )
    assert metadata.connections == 1
    metadata.asked.clear()
    assert imds.lookup().enis == {MAC_A: ENI_A, MAC_B: ENI_B}
    incomplete = [f"{MACS}{MAC_B}/interface-id", f"{MACS}{MAC_B}/vpc-ipv4-cidr-block"]
    assert metadata.asked == [MACS, *incomplete]


def test_an_expired_token_is_renewed_once(metadata):
    """401 means a new token, and the question again; not a failed lookup."""
    imds = Imds(metadata.url)
    imds.lookup()
    metadata.token = "another"  # noqa: S105
    metadata.asked.clear()
    assert imds.lookup().enis[MAC_A] == ENI_A
    assert metadata.asked[:3] == [MACS, "PUT /latest/api/token", MACS]


def test_a_token_that_is_never_accepted_is_an_error(metadata):
    """A service that refuses its own token is not asked for ever."""
    metadata.failing["instance-id"] = 401
    assert refusal(metadata.url).endswith(": status 401 for instance-id")
    assert metadata.asked == ["PUT /latest/api/token", "instance-id"]


@pytest.mark.parametrize(
    ("status", "says"),
    [(403, "turned off for this instance"), (503, "status 503 for a token"), (404, "status 404")],
)
def test_no_token_says_why(metadata, status, says):
    """IMDSv1 is never tried: without a token there is one line."""
    metadata.token_status = status
    assert says in refusal(metadata.url)
    assert metadata.asked == ["PUT /latest/api/token"]


def test_unavailable_is_an_error_and_passes(metadata):
    """503 costs this lookup only; the next one starts afresh."""
    metadata.failing[MACS] = 503
    imds = Imds(metadata.url)
    with pytest.raises(SourceError, match=r"status 503 for network/interfaces/macs/$"):
        imds.lookup()
    metadata.failing.clear()
    assert imds.lookup().enis[MAC_A] == ENI_A


def test_a_new_eni_may_lack_its_facts(metadata):
    """The service is eventually consistent: an ENI without an id is left out until it has one."""
    del metadata.facts[f"{MACS}{MAC_B}/interface-id"]
    imds = Imds(metadata.url)
    assert imds.lookup().enis == {MAC_A: ENI_A}
    metadata.facts = dict(FACTS)
    metadata.facts[f"{MACS}{MAC_B}/vpc-ipv4-cidr-block"] = "10.1.0.0/16"
    assert imds.lookup().enis[MAC_B] == ImdsEni(ENI_B.interface_id, "10.1.0.0/16")


def test_a_detached_eni_is_gone(metadata):
    """What the service no longer lists is not remembered."""
    imds = Imds(metadata.url)
    imds.lookup()
    metadata.facts[MACS] = f"{MAC_B}/\n"
    assert imds.lookup().enis == {MAC_B: ENI_B}


def test_a_connection_closed_meanwhile_is_opened_again(metadata):
    """A service that closes after each answer is as good as one that does not."""
    metadata.close_after_each = True
    assert Imds(metadata.url).lookup().enis == {MAC_A: ENI_A, MAC_B: ENI_B}
    assert metadata.connections > 1


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("instance-id", "<html>", "not instance id: '<html>'"),
        ("instance-id", "i-0\r\nX: y", "not instance id"),
        (MACS, "../../user-data/", "not MAC: '../../user-data'"),
        (MACS, "02:00:00:00:00:01/\n" * 257, "lists 257 ENIs, more than 256"),
        (f"{MACS}{MAC_A}/interface-id", "eni-XYZ", "not ENI id: 'eni-XYZ'"),
        (f"{MACS}{MAC_A}/interface-id", "", "not ENI id: ''"),
        (f"{MACS}{MAC_A}/vpc-ipv4-cidr-block", "10.0.0.1/16", "not an IPv4 block: '10.0.0.1/16'"),
        (f"{MACS}{MAC_A}/vpc-ipv4-cidr-block", "fd00::/64", "not an IPv4 block"),
        (f"{MACS}{MAC_A}/vpc-ipv4-cidr-block", "x\x1b[2J", "not an IPv4 block: 'x\\\\x1b[2J'"),
    ],
)
def test_what_cannot_be_true_is_refused(metadata, path, text, says):
    """Only MACs, ENI ids and blocks come in; an escape sequence does not reach a log."""
    metadata.facts[path] = text
    assert says in refusal(metadata.url)


@pytest.mark.parametrize("token", ["a\nb", "", "x" * 1025, "a b"])
def test_a_token_must_fit_a_header(metadata, token):
    """A token goes back as a header, so it must not start another one."""
    metadata.token = token
    assert "not token: " in refusal(metadata.url)


def test_turned_off_means_no_packet_and_no_facts():
    """An empty URL is a choice, not a failure."""
    assert Imds("").lookup() == ImdsFacts(None, {})


def test_proxies_are_not_used(metadata, monkeypatch):
    """A proxy set for the containers' sake must not get the instance's token."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Imds(metadata.url).lookup().enis[MAC_A] == ENI_A


def test_a_prefix_in_the_url_is_kept(metadata):
    """A metadata proxy may live under a path."""
    assert refusal(f"{metadata.url}/proxy/").endswith(": no instance id")
    assert metadata.asked[0] == "PUT /proxy/latest/api/token"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:x", "http://[::1", "http://", "http://127.0.0.1\n:1"]
)
def test_a_url_that_is_none_is_an_error(url):
    """Whatever the settings let through, a lookup fails in one line."""
    assert refusal(url).startswith("IMDS: not a URL: http://")


def test_nobody_listening_is_an_error():
    """Off EC2 there is nobody: one line, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert refusal(url) == f"IMDS at {url}: Connection refused"


def test_silence_is_an_error_with_a_hint():
    """The usual reason for silence in a container is the hop limit, so the line says so."""
    with raw(hold=True) as url:
        assert refusal(url, 0.1) == (
            f"IMDS at {url}: no full answer within 0.1 s "
            "(outside the host's network, the metadata hop limit must be 2)"
        )


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "drip"),
    [(OK + b"Content-Length: 60000\r\n\r\n", b"x"), (OK + b"X: ", b"x"), (b"", b"H"),
     (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
     (b"", b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["body", "header", "status", "chunks", "continue"],
)  # fmt: skip
def test_a_byte_now_and_then_does_not_hold_a_lookup(start, drip):
    """Time is bounded for the whole answer, not for each byte of it."""
    with raw(start, endless=drip, drip=True) as url:
        assert "no full answer within 0.2 s" in refusal(url, 0.2)


@pytest.mark.parametrize(
    ("head", "endless"),
    [(OK + b"\r\n", b"x" * 4096), (OK + b"Content-Length: 99999999\r\n\r\n", b"x" * 4096),
     (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n")],
    ids=["no length", "long", "chunks"],
)  # fmt: skip
def test_an_endless_body_is_not_read(head, endless):
    """64 KiB are more than any answer has; the rest stays unread."""
    with raw(head, endless=endless) as url:
        assert refusal(url).endswith("an answer of more than 65536 bytes")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection without an answer"),
        (b"\x00\x01\x02\xff\x1b[2J\r\n", "what answers is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers is not HTTP: SSH-2.0"),
        (b"HTTP/1.1 99999 Odd\r\n\r\n", "what answers is not HTTP"),
        (OK + b"Content-Length: 20\r\n\r\nAQAE", "the answer was cut short"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "the answer was cut short"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer was cut short"),
        (OK + b"X: y\r\n" * 101 + b"\r\n", "what answers is not HTTP"),
        (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n", "what answers is not HTTP"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", "status 301"),
    ],
)
def test_garbage_is_one_line(answer, says):
    """Whatever answers there, the agent gets a SourceError and nothing else."""
    with raw(answer) as url:
        assert says in refusal(url)
