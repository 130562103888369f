"""The metadata client, against real servers on 127.0.0.1 that behave, or do not."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eni53.errors import SourceError
from eni53.inventory.imds import Imds, ImdsEni, ImdsFacts
from eni53.inventory.resolvers import resolver_addresses

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
    assert metadata.asked == [MACS, f"{MACS}{MAC_B}/vpc-ipv4-cidr-block"]


def many(count):
    """Facts of an instance with *count* complete ENIs."""
    macs = [f"02:00:00:00:00:{number:02x}" for number in range(count)]
    facts = {"instance-id": "i-0123456789abcdef0", MACS: "".join(f"{mac}/\n" for mac in macs)}
    for number, mac in enumerate(macs):
        facts[f"{MACS}{mac}/interface-id"] = f"eni-{number:017x}"
        facts[f"{MACS}{mac}/vpc-ipv4-cidr-block"] = "10.0.0.0/16"
    return facts


@pytest.mark.parametrize(("enis", "requests"), [(2, 7), (15, 33)])
def test_the_price_of_a_lookup_is_known(metadata, enis, requests):
    """Three requests and two for each ENI; a later lookup is one, an ENI known by then none."""
    metadata.facts = many(enis)
    imds = Imds(metadata.url)
    assert len(imds.lookup().enis) == enis
    assert len(metadata.asked) == requests
    metadata.asked.clear()
    assert imds.interface("02:00:00:00:00:01") == ImdsEni(f"eni-{1:017x}", "10.0.0.0/16")
    assert len(imds.lookup().enis) == enis
    assert metadata.asked == [MACS]


def test_one_interface_is_asked_for_alone(metadata):
    """By MAC in either case, over one connection, and with the token that is still good."""
    imds = Imds(metadata.url)
    assert imds.interface(MAC_A.upper()) == ENI_A
    facts = [f"{MACS}{MAC_A}/interface-id", f"{MACS}{MAC_A}/vpc-ipv4-cidr-block"]
    assert metadata.asked == ["PUT /latest/api/token", *facts]
    assert metadata.connections == 1
    metadata.asked.clear()
    assert imds.interface(MAC_B) == ENI_B
    assert imds.interface(MAC_A) == ENI_A
    assert metadata.asked == [path.replace(MAC_A, MAC_B) for path in facts]


def test_an_interface_comes_to_be_known_bit_by_bit(metadata):
    """The service is eventually consistent: nothing, then an id, then a block; nothing twice."""
    block = f"{MACS}{MAC_A}/vpc-ipv4-cidr-block"
    metadata.facts = {}
    imds = Imds(metadata.url)
    assert imds.interface(MAC_A) is None
    metadata.facts[f"{MACS}{MAC_A}/interface-id"] = ENI_A.interface_id
    assert imds.interface(MAC_A) == ImdsEni(ENI_A.interface_id, None)
    metadata.facts[block] = "10.0.0.0/16"
    metadata.asked.clear()
    assert imds.interface(MAC_A) == ENI_A
    assert metadata.asked == [block]


@pytest.mark.parametrize("mac", ["", "../../user-data", f"{MAC_A}/", f"{MAC_A}\n", "02:00"])
def test_only_a_mac_becomes_part_of_a_path(metadata, mac):
    """Whatever the kernel calls an address: a device without one has none."""
    with pytest.raises(SourceError, match="not MAC: "):
        Imds(metadata.url).interface(mac)
    assert metadata.asked == []


def test_an_interface_the_service_cannot_tell_now_is_an_error(metadata):
    """503 is not "no such interface"; and the token is not to blame for it."""
    metadata.failing[f"{MACS}{MAC_A}/interface-id"] = 503
    imds = Imds(metadata.url)
    with pytest.raises(SourceError, match=rf"status 503 for {MACS}{MAC_A}/interface-id$"):
        imds.interface(MAC_A)
    metadata.failing.clear()
    assert imds.interface(MAC_A) == ENI_A
    assert metadata.asked.count("PUT /latest/api/token") == 1


def test_what_is_remembered_is_bounded(metadata):
    """Every task may bring an ENI of its own for years; the latest are remembered."""
    metadata.facts = {}
    imds = Imds(metadata.url)
    macs = [f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(257)]
    for mac in macs:
        metadata.facts[f"{MACS}{mac}/interface-id"] = "eni-12345678"
        metadata.facts[f"{MACS}{mac}/vpc-ipv4-cidr-block"] = "10.0.0.0/16"
        assert imds.interface(mac)
    metadata.asked.clear()
    assert imds.interface(macs[-1])
    assert metadata.asked == []
    assert imds.interface(macs[0])
    assert len(metadata.asked) == 2


def test_an_expired_token_is_renewed_once(metadata):
    """401 means a new token, and the question again; not a failed lookup."""
    imds = Imds(metadata.url)
    imds.lookup()
    metadata.token = "another"  # noqa: S105
    metadata.asked.clear()
    assert imds.lookup().enis[MAC_A] == ENI_A
    assert metadata.asked[:3] == [MACS, "PUT /latest/api/token", MACS]


def test_a_token_is_renewed_when_its_time_is_over(metadata):
    """Six hours; a 401 would tell as well, at the price of one more request."""
    now_s = 1000.0
    imds = Imds(metadata.url, clock=lambda: now_s)
    imds.lookup()
    metadata.asked.clear()
    now_s += 21599.0
    imds.lookup()
    assert metadata.asked[0] == MACS
    metadata.asked.clear()
    metadata.token = "another"  # noqa: S105
    now_s += 1.0
    assert imds.lookup().enis[MAC_A] == ENI_A
    assert metadata.asked[:2] == ["PUT /latest/api/token", MACS]


def test_a_renewed_token_that_is_refused_is_an_error(metadata):
    """One new token to a question, in `interface` as in `lookup`."""
    imds = Imds(metadata.url)
    imds.lookup()
    path = f"{MACS}{MAC_B}/vpc-ipv4-cidr-block"
    metadata.failing[path] = 401
    metadata.asked.clear()
    with pytest.raises(SourceError, match=rf"status 401 for {path}$"):
        imds.interface(MAC_B)
    assert metadata.asked == [path, "PUT /latest/api/token", path]


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
    assert Imds("").interface(MAC_A) is None


def test_an_interface_with_ipv6_only(metadata):
    """It has no local-ipv4s and its subnet no IPv4 block; its VPC always has one."""
    base = f"{MACS}{MAC_B}/"
    metadata.facts |= {base + "ipv6s": "2001:db8::1", base + "vpc-ipv4-cidr-block": "10.7.0.0/16"}
    assert Imds(metadata.url).lookup().enis[MAC_B].vpc_cidr == "10.7.0.0/16"
    assert base + "local-ipv4s" not in metadata.asked


def test_the_primary_block_of_several_names_the_resolver(metadata):
    """VPC+2 is in the primary one, however many were added and in whatever order they are told."""
    base = f"{MACS}{MAC_A}/"
    metadata.facts[base + "vpc-ipv4-cidr-blocks"] = "100.64.0.0/16\n10.0.0.0/16"
    metadata.facts[base + "subnet-ipv4-cidr-block"] = "100.64.3.0/24"
    cidr = Imds(metadata.url).lookup().enis[MAC_A].vpc_cidr
    found = resolver_addresses((), [cidr], (), ("100.64.3.9/24",))
    assert "10.0.0.2" in found.addresses
    assert "100.64.0.2" not in found.addresses


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
    assert refusal(url).startswith("IMDS: not an http:// or https:// URL: http://")


@pytest.mark.parametrize("host", ["localhost", "imds.internal", "169.254.43518", "[fe80::1%25e]"])
def test_a_name_is_refused_and_not_resolved(host, monkeypatch):
    """The question to DNS would leave by the ENI whose packets are counted."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    url = f"http://{host}:80/x"
    assert refusal(url) == f"IMDS: {url} has no IP address: a name would be asked of DNS"


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


def test_slow_answers_end_a_lookup_and_are_not_lost(metadata):
    """Each in time, all together too late: the next lookup goes on from there."""
    metadata.facts = many(15)
    now_s = 0.0

    def clock():
        nonlocal now_s
        now_s += 0.1
        return now_s

    imds = Imds(metadata.url, clock=clock)
    with pytest.raises(SourceError, match=r": not all answered within 5 s$"):
        imds.lookup()
    assert 3 < len(metadata.asked) < 33
    first = set(metadata.asked)
    metadata.asked.clear()
    assert len(imds.lookup().enis) == 15
    assert len(first & set(metadata.asked)) <= 2  # the list, and the ENI that was cut in two


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
