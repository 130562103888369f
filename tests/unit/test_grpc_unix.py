"""The gRPC client, against real HTTP/2 servers on a unix socket that behave, or do not."""

import contextlib
import random
import secrets
import socket
import threading
import time

import pytest
from eni53.errors import SourceError
from eni53.inventory.grpc_unix import NOT_FOUND, UNIMPLEMENTED, GrpcClient, GrpcError

from tests.fixtures.grpc_server import Answer, GrpcServer, RawServer, answer, framed, refuse

METHOD = "/test.v1.Test/Call"
SEED = secrets.randbits(32)
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x02"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
RESET = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01" + b"\x00\x00\x00\x07"
PUSH = b"\x00\x00\x0a\x05\x04\x00\x00\x00\x01" + b"\x00\x00\x00\x02\x82\x86\x84\x41\x01a"
BLOCK = b"\x88\x40\x01a\x7f\xb9\x16" + b"x" * 3000 + b"\xbe" * 9000  # 27 MB of headers
BOMB = len(BLOCK).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + BLOCK
PINGS = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"\x00" * 8


@pytest.fixture
def path(tmp_path):
    """Where the server's socket goes."""
    return tmp_path / "grpc.sock"


def client_of(path, timeout_s=5.0):
    """A client of the server there."""
    return GrpcClient(str(path), timeout_s, "Test")


def refusal(call):
    """The one line *call* fails with, and the status if the server gave one."""
    with pytest.raises(SourceError) as caught:
        call()
    line = str(caught.value)
    assert line.startswith("Test: ")
    assert line.isprintable()
    assert len(line) < 400
    return line, getattr(caught.value, "status", None)


def asked(path, found, timeout_s=5.0):
    """What one call makes of an answer."""
    with GrpcServer(path, {METHOD: found}):
        return client_of(path, timeout_s).unary(METHOD, b"question")


def test_a_request_arrives_whole_and_its_answer_too(path):
    """Path, metadata, message and the time we are ready to wait."""
    with GrpcServer(path, {METHOD: answer(b"yes")}) as server:
        found = client_of(path, 2.5).unary(METHOD, b"question", [("containerd-namespace", "moby")])
    assert found == b"yes"
    headers = server.requests[0].headers
    assert bytes(server.requests[0].data) == framed(b"question")
    assert (headers[":method"], headers[":path"], headers[":scheme"]) == ("POST", METHOD, "http")
    assert (headers["te"], headers["content-type"]) == ("trailers", "application/grpc")
    assert (headers["containerd-namespace"], headers["grpc-timeout"]) == ("moby", "2500m")


@pytest.mark.parametrize("size", [0, 1, 16384, 65535, 65536, 5_000_000, 32 * 1024 * 1024])
def test_an_answer_of_any_size_comes_through(path, size):
    """A node full of pods answers with more than HTTP/2's first window of 64 KiB."""
    body = random.Random(size).randbytes(size)
    assert asked(path, answer(body)) == body


def test_an_answer_too_large_is_not_read(path):
    """Its length comes first, so nothing of it has to."""
    head = b"\0" + (32 * 1024 * 1024 + 1).to_bytes(4, "big")
    line, _ = refusal(lambda: asked(path, Answer(head, hold=True)))
    assert line == "Test: an answer of more than 33554432 bytes"


@pytest.mark.parametrize("window", [1, 100, 65535])
def test_a_large_request_waits_for_the_servers_window(path, window):
    """A server may take a request in small pieces."""
    body = b"q" * (67_000 if window == 1 else 200_000)  # the first 64 KiB are free
    with GrpcServer(path, {METHOD: answer(b"")}, window=window) as server:
        assert client_of(path).unary(METHOD, body) == b""
    assert bytes(server.requests[0].data) == framed(body)


def test_a_request_that_nobody_takes_ends_in_time(path):
    """A window that stays shut."""
    with GrpcServer(path, {METHOD: answer(b"")}, window=0):
        line, _ = refusal(lambda: client_of(path, 0.2).unary(METHOD, b"q" * 70_000))
    assert line == "Test: no full answer within 0.2 s"


def test_a_ping_is_answered(path):
    """grpc-go hangs up on a client that does not."""
    with GrpcServer(path, {METHOD: answer(b"after your pong")}, ping=True):
        assert client_of(path).unary(METHOD, b"") == b"after your pong"


@pytest.mark.parametrize("alone", [True, False], ids=["trailers only", "after headers"])
def test_a_refusal_has_its_status_and_one_clean_line(path, alone):
    """Not found and unknown to this version are told apart; what it says cannot move a cursor."""
    message = "no such \x1b[2J".replace("\x1b", "%1B") + "%0A pod %E2%80%AE"
    for status in (NOT_FOUND, UNIMPLEMENTED):
        found = Answer(status=str(status), message=message, alone=alone)
        line, code = refusal(lambda found=found: asked(path, found))
        assert line == rf"Test: no such \x1b[2J\x0a pod \u202e (gRPC status {status})"
        assert code == status
        path.unlink()
    line, code = refusal(lambda: asked(path, refuse(13, "%2" * 2000)))
    assert (code, len(line)) == (13, 223)


def test_an_unknown_method_is_status_12(path):
    """A runtime too old for a call."""
    with GrpcServer(path, {}):
        assert refusal(lambda: client_of(path).unary("/no/Such", b""))[1] == UNIMPLEMENTED


def with_head(*head):
    """An answer with other headers."""
    return Answer(framed(b"x"), head=head)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (with_head((":status", "404"), ("content-type", "application/grpc")), "status 404"),
        (with_head((":status", "200"), ("content-type", "text/html")), "is not gRPC: text/html"),
        (with_head((":status", "200")), "is not gRPC: no content type"),
        (Answer(b"\1" + framed(b"x")[1:]), "is not gRPC: a compressed message"),
        (answer(b"1", b"2"), "more than one answer"),
        (Answer(), "no answer, but no error either"),
        (Answer(framed(b"x") + b"\0\0"), "the answer was cut short"),
        (Answer(framed(b"xyz")[:-1]), "the answer was cut short"),
        (Answer(framed(b"x"), status=None), "an answer without a status"),
        (Answer(framed(b"x"), status=""), "is not gRPC: status ''"),
        (Answer(framed(b"x"), status="²"), "is not gRPC: status"),
        (Answer(framed(b"x"), status="-1"), "is not gRPC: status '-1'"),
        (Answer(framed(b"x"), status="9" * 5000), "is not gRPC: status '9999999…'"),
    ],
    ids=range(13),
)
def test_what_is_not_a_grpc_answer_is_one_line(path, found, says):
    """Whatever answers on that socket, the agent gets a SourceError and nothing else."""
    line, status = refusal(lambda: asked(path, found))
    assert says in line
    assert status is None


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ((), "closed the connection without an answer"),
        ((SETTINGS,), "closed the connection without a full answer"),
        ((SETTINGS, SETTINGS[:4]), "closed the connection without a full answer"),
        ((b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",), "is not HTTP/2"),
        ((b"\x15\x03\x01\x00\x02\x02\x0a" * 9,), "is not HTTP/2"),
        ((b"\xff" * 1000,), "is not HTTP/2"),
        ((SETTINGS, GOAWAY), "ended the connection: INTERNAL_ERROR"),
        ((SETTINGS, GOAWAY[:-4] + b"\0\0\x12\x34"), "ended the connection: HTTP/2 error 4660"),
        ((SETTINGS, RESET), "broke off the call: REFUSED_STREAM"),
        ((SETTINGS, PUSH), "is not HTTP/2: Received pushed stream"),
        ((SETTINGS, BOMB), "is not HTTP/2"),
    ],
    ids=range(11),
)
def test_garbage_is_one_line(path, pieces, says):
    """Not HTTP/2 at all, or HTTP/2 that ends the call."""
    with RawServer(path, *pieces):
        for call in (client_of(path).unary, client_of(path).stream):
            assert says in refusal(lambda call=call: call(METHOD, b""))[0]


def test_a_server_that_hangs_up_on_a_request_is_one_line(path):
    """The kernel calls that a reset; what came before it is still read."""
    with RawServer(path, SETTINGS, reads=10):
        line, _ = refusal(lambda: client_of(path).unary(METHOD, b"x" * 100))
        assert line == "Test: closed the connection without a full answer"
    path.unlink()
    with RawServer(path, SETTINGS, RESET, reads=10):
        line, _ = refusal(lambda: client_of(path).unary(METHOD, b"x" * 100))
        assert line == "Test: broke off the call: REFUSED_STREAM"


@pytest.mark.parametrize("last", [GOAWAY, RESET], ids=["connection", "call"])
def test_what_comes_after_a_whole_answer_does_not_spoil_it(path, last):
    """A server that is about to end says so right after its answer."""

    def spoil(data):
        return data + last if b"yes" in data else data

    with GrpcServer(path, {METHOD: answer(b"yes")}, after=spoil):
        assert client_of(path).unary(METHOD, b"") == b"yes"


@pytest.mark.parametrize(
    "server",
    [
        lambda path: RawServer(path, hold=True),
        lambda path: RawServer(path, SETTINGS[:5], hold=True),
        lambda path: RawServer(path, SETTINGS, *[PINGS] * 1000, gap_s=0.02),
        lambda path: GrpcServer(path, {METHOD: Answer(quiet=True)}),
        lambda path: GrpcServer(path, {METHOD: Answer(framed(b"x")[:-1], hold=True)}),
        lambda path: GrpcServer(
            path, {METHOD: Answer((framed(b"x" * 9999)[:5], *[b"x"] * 9999), gap_s=0.02)}
        ),
    ],
    ids=["silent", "half a frame", "pings for ever", "no headers", "half a message", "trickle"],
)
def test_a_call_ends_in_time(path, server):
    """Bytes that keep coming do not buy more time."""
    with server(path):
        start_s = time.monotonic()
        line, _ = refusal(lambda: client_of(path, 0.3).unary(METHOD, b""))
        assert time.monotonic() - start_s < 5
    assert line == "Test: no full answer within 0.3 s"


def test_a_listener_that_does_not_accept_ends_in_time(path):
    """A daemon that hangs still has a socket, and its backlog fills up."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(3):
            one = waiting.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(path))
        for call in (client_of(path, 0.2).unary, client_of(path, 0.2).stream):
            refusal(lambda call=call: call(METHOD, b""))


def test_no_socket_is_one_line(path, tmp_path):
    """Every way of not being there."""
    expected = "Test: No such file or directory"
    assert refusal(lambda: client_of(path).unary(METHOD, b""))[0] == expected
    assert refusal(lambda: client_of(path).stream(METHOD, b""))[0] == expected
    path.write_text("")
    assert refusal(lambda: client_of(path).unary(METHOD, b""))[0] == "Test: Connection refused"
    assert "too long" in refusal(lambda: client_of("/" + "x" * 200).unary(METHOD, b""))[0]
    refusal(lambda: client_of("/a\0b").unary(METHOD, b""))
    refusal(lambda: client_of("/\ud800").unary(METHOD, b""))


def test_a_stream_gives_every_message_in_order(path):
    """However they were cut into frames."""
    body = b"".join(framed(b"x" * size) for size in (0, 1, 70_000, 3))
    pieces = (body[:3], body[3:7], body[7:40_000], body[40_000:])
    with GrpcServer(path, {METHOD: Answer(pieces, hold=True)}):
        messages = client_of(path).stream(METHOD, b"")
        assert [len(next(messages)) for _ in range(4)] == [0, 1, 70_000, 3]
        messages.close()


def test_a_stream_may_be_silent_from_the_start_and_close_wakes_it(path):
    """containerd sends not even headers before the first event, which may come tomorrow."""
    with GrpcServer(path, {METHOD: Answer(quiet=True)}):
        client = client_of(path, 0.2)
        messages = client.stream(METHOD, b"")
        seen, done = [], threading.Event()

        def follow():
            seen.extend(messages)
            done.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert done.wait(0.6) is False
        client.close()
        thread.join(5)
        assert thread.is_alive() is False
    assert seen == []


def test_a_streams_request_was_read_when_it_is_returned(path):
    """Who lists after that misses nothing; and a server that hangs is found out."""
    with GrpcServer(path, {METHOD: Answer(quiet=True)}) as server:
        client_of(path).stream(METHOD, b"q").close()
        assert bytes(server.requests[0].data) == framed(b"q")
    path.unlink()
    with GrpcServer(path, {METHOD: Answer(quiet=True)}, deaf=True):
        line, _ = refusal(lambda: client_of(path, 0.2).stream(METHOD, b""))
    assert line == "Test: no full answer within 0.2 s"


def test_a_stream_that_is_left_hangs_up(path):
    """Nobody's subscription fills a server's memory, read from or not."""
    for read in (0, 1):
        with GrpcServer(path, {METHOD: Answer(framed(b"x"), hold=True)}) as server:
            messages = client_of(path).stream(METHOD, b"")
            assert [next(messages) for _ in range(read)] == [b"x"] * read
            del messages
            assert server.gone.wait(5)
        path.unlink()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (answer(b"x"), "the stream ended"),
        (Answer(framed(b"x"), status="14", message="going"), "going (gRPC status 14)"),
        (Answer(framed(b"x"), status=None), "an answer without a status"),
        (Answer(framed(b"x") + b"\0"), "the answer was cut short"),
        (Answer((framed(b"x"), b""), status=None, gap_s=0.1), "an answer without a status"),
        (Answer(framed(b"x") + b"\0\xff\xff\xff\xff", hold=True), "of more than 33554432 bytes"),
    ],
    ids=range(6),
)
def test_a_stream_that_ends_is_an_error_after_its_messages(path, found, says):
    """When containerd restarts, the caller must know: silence would look like a quiet node."""
    with GrpcServer(path, {METHOD: found}):
        messages = client_of(path).stream(METHOD, b"")
        assert next(messages) == b"x"
        assert says in refusal(lambda: next(messages))[0]


def test_a_stream_whose_server_dies_is_an_error(path):
    """The same for one that is killed."""
    with GrpcServer(path, {METHOD: Answer(framed(b"x"), hold=True)}) as server:
        messages = client_of(path).stream(METHOD, b"")
        assert next(messages) == b"x"
        server.peers[0].shutdown(socket.SHUT_RDWR)
        assert refusal(lambda: next(messages))[0] == "Test: the answer was cut short"


def test_a_stream_that_is_refused_is_an_error_with_its_status(path):
    """At once, or where its first message would be: the refusal may come after the pong."""
    with GrpcServer(path, {METHOD: refuse(12, "unknown service")}):
        line, status = refusal(lambda: next(client_of(path).stream(METHOD, b"")))
    assert (line, status) == ("Test: unknown service (gRPC status 12)", 12)


def test_what_comes_before_the_pong_is_bounded(path):
    """A server that sends for as long as it is not asked to stop."""
    flood = Answer(framed(b"x" * (32 << 20)) * 2, hold=True)
    with GrpcServer(path, {METHOD: flood}, deaf=True):
        line, _ = refusal(lambda: list(client_of(path).stream(METHOD, b"")))
    assert line == "Test: an answer of more than 33554432 bytes"


def test_close_wakes_a_call_and_ends_what_comes_after(path):
    """An agent that is told to stop does not wait for a containerd that hangs."""
    with GrpcServer(path, {METHOD: Answer(quiet=True)}) as server:
        client = client_of(path, 60)
        lines = []
        thread = threading.Thread(
            target=lambda: lines.append(refusal(lambda: client.unary(METHOD, b""))[0])
        )
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        client.close()
        client.close()
        thread.join(5)
        assert thread.is_alive() is False
        assert lines == ["Test: this client is closed"]
        assert refusal(lambda: client.unary(METHOD, b""))[0] == "Test: this client is closed"
        assert list(client.stream(METHOD, b"")) == []


def test_threads_may_call_at_once(path):
    """Each call has a connection of its own."""
    with GrpcServer(path, {METHOD: lambda body: answer(body * 1000)}):
        client = client_of(path, 20)
        found = {}

        def call(number):
            found[number] = client.unary(METHOD, b"%d," % number)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == {number: b"%d," % number * 1000 for number in range(20)}


def test_a_damaged_answer_is_an_answer_or_one_line(path):
    """A real server's bytes, some of them changed, cut or doubled: no other error comes out."""
    print("seed", SEED)
    rng = random.Random(SEED)

    def damage(data):
        data = bytearray(data)
        if rng.randrange(2):
            return bytes(data)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = rng.randbytes(1)
                case 1:
                    del data[at : at + rng.randrange(20)]
                case 2:
                    data[at:at] = data[at : at + rng.randrange(40)]
                case 3:
                    data[at:at] = rng.randbytes(rng.randrange(20))
        return bytes(data)

    outcomes = set()
    with GrpcServer(path, {METHOD: answer(b"yes" * 50)}, after=damage):
        for _ in range(300):
            try:
                outcomes.add(client_of(path, 1).unary(METHOD, b"question")[:3])
            except GrpcError as error:
                outcomes.add(error.status)
            except SourceError as error:
                assert str(error).isprintable()
                outcomes.add("one line")
    assert {"one line", b"yes"} <= outcomes
