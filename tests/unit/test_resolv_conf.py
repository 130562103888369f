"""What a resolv.conf says, what its JSON may say, and who listens on port 53."""

from __future__ import annotations

import json
import random
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eni53.errors import SourceError
from eni53.inventory.bound import MAX_BYTES, bound, covers, is_local, whole
from eni53.inventory.resolv_conf import parse
from eni53.model import ResolvConf, Snapshot, Workload
from eni53.snapshot_json import dumps, from_json, loads

SEED = secrets.randbits(32)
POD = b"""# made by the kubelet
search shop.svc.cluster.local svc.cluster.local cluster.local ec2.internal
nameserver 172.20.0.10
options ndots:5
"""


def test_what_the_kubelet_writes() -> None:
    """The common case."""
    search = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "ec2.internal")
    assert parse(POD) == ResolvConf(("172.20.0.10",), search, ndots=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nameserver 10.0.0.2\r\noptions rotate no-aaaa\r\n", {"flags": ("no-aaaa", "rotate")}),
        ("nameserver 10.0.0.2 # the first\n;nameserver 1.1.1.1\n nameserver 2.2.2.2", {}),
        ("nameserver 10.0.0.2\nnameserverx 1.1.1.1\nnameserver nobody\nnameserver", {}),
        ("search a.test\nnameserver 10.0.0.2\ndomain B.Test. c.test", {"search": ("b.test",)}),
        ("nameserver 10.0.0.2\noptions ndots:99 timeout:99 attempts:99",
         {"ndots": 15, "timeout": 30, "attempts": 5}),
        ("nameserver 10.0.0.2\noptions ndots: ndots:x ndots:-1 ndots:\u0664 timeout:0",
         {"timeout": 0}),
        ("nameserver 10.0.0.2\noptions ndots:" + "9" * 3000, {}),
        ("nameserver 10.0.0.2\nsearch a..b \x1b[2J x" + "y" * 300 + " . ok.test",
         {"search": ("ok.test",)}),
        ("nameserver 10.0.0.2\nsearch " + " ".join(f"d{n}" for n in range(99)),
         {"search": tuple(f"d{n}" for n in range(32))}),
    ],
)  # fmt: skip
def test_lines_are_read_as_libc_reads_them(text: str, said: dict[str, Any]) -> None:
    """And no value is larger than libc would take."""
    assert parse(text.encode()) == replace(ResolvConf(("10.0.0.2",)), **said)


def test_servers_are_three_at_most_in_one_spelling() -> None:
    """As MAXNS; the link of an IPv6 address is left out."""
    text = b"".join(
        b"nameserver %s\n" % a for a in (b"FE80::0:1%eth0", b"::1", b"1.1.1.1", b"2.2.2.2")
    )
    assert parse(text) == ResolvConf(("fe80::1", "::1", "1.1.1.1"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0", b"\0" * 5000, b"root:$6$abc:1::\n" * 9, b"\xff\xfe" * 99, b"nameserver 1" * 9999,
        b"search a.test\nnameserver nobody\n", b"search a.test\nnameserver\n",
        b"search a.test\n nameserver 10.0.0.2\n", b"search a.test\nfastest yes\n",
        b"search a.test\n#" + b"x" * 4096 + b"\nnameserver 10.0.0.2\n",
    ],
)  # fmt: skip
def test_a_file_without_a_server_that_may_be_anything_says_nothing(data: bytes) -> None:
    """No resolv.conf at all; a server that only others may understand; one that is cut."""
    assert parse(data) is None


@pytest.mark.parametrize("data", [b"", b"\n", b"# nameserver 10.0.0.2\n;nameserver 10.0.0.3",
                                  b"sortlist 10.0.0.0\n"])  # fmt: skip
def test_who_names_no_server_asks_itself(data: bytes) -> None:
    """As libc does; the rest of the file holds all the same."""
    assert parse(data) == ResolvConf(("127.0.0.1",))
    said = ResolvConf(("127.0.0.1",), ("a.test",), 5)
    assert parse(b"search a.test\noptions ndots:5\n" + data) == said


def test_what_is_behind_the_limit_is_not_read() -> None:
    """Nor a line that is cut in two there: half an address is another one."""
    text = b"nameserver 10.0.0.2\n#" + b"x" * 4056 + b"\nnameserver 10.10.10.10\n"
    assert text[:4096].endswith(b"nameserver 10.10.1")
    assert parse(text) == parse(text[:4097]) == ResolvConf(("10.0.0.2",))


def test_any_bytes_are_read() -> None:
    """Words of the format and noise, in any order."""
    rng = random.Random(SEED)
    words = [b"nameserver", b"search", b"options", b"10.0.0.2", b"ndots:", b"\n", b" ", b"\0",
             b"::", b"%", b"\xff", b"\x85", b"\r", b"5", b"a."]  # fmt: skip
    for _ in range(2000):
        parse(b"".join(rng.choices(words, k=rng.randint(0, 40))))


def test_json_there_and_back() -> None:
    """Each conf once, whoever has it; an older eni53 says nothing of them."""
    conf = ResolvConf(("127.0.0.1", "10.0.0.2"), ("a.test",), 5, 1, 2, ("rotate",), ("127.0.0.1",))
    other = ResolvConf(("10.0.0.2",))
    web, api = Workload("pod", "shop", "web", "app"), Workload("ecs_task", "prod", "api:1/x", "app")
    host = Workload("container", "", "agent")
    snapshot = Snapshot("n", 1.0, 1.0, (), resolv_confs={web: conf, api: conf, host: other},
                        on_node=("10.0.0.2",))  # fmt: skip
    assert loads(dumps(snapshot)) == snapshot
    document = json.loads(dumps(snapshot))
    assert len(document["resolv_confs"]) == 2
    del document["resolv_confs"], document["on_node"]
    assert (from_json(document).resolv_confs, from_json(document).on_node) == ({}, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nameservers", []), ("nameservers", ["x"]), ("nameservers", [1]), ("nameservers", "::1"),
        ("search", [None]), ("search", {}), ("ndots", -1), ("ndots", "5"), ("timeout", 1.5),
        ("attempts", True), ("flags", None), ("listening", ["\x1b"]), ("workloads", [[]]),
        ("workloads", [{"kind": "pod"}]), ("workloads", None),
    ],
)  # fmt: skip
def test_json_from_anybody(key: str, value: object) -> None:
    """One line that says where."""
    conf = ResolvConf(("10.0.0.2",))
    document = json.loads(dumps(Snapshot("n", 1.0, 1.0, (), resolv_confs={Workload("pod"): conf})))
    document["resolv_confs"][0][key] = value
    with pytest.raises(SourceError, match=r"^snapshot\.resolv_confs\[0\]\S*: [^\n]+$"):
        from_json(document)


def test_json_of_hostile_lists_is_cut_and_cleaned() -> None:
    """A list without an end, a domain that moves the cursor."""
    conf = ResolvConf(("10.0.0.2",))
    document = json.loads(dumps(Snapshot("n", 1.0, 1.0, (), resolv_confs={Workload("pod"): conf})))
    document["resolv_confs"][0] |= {"search": ["\x1b[2J"] * 999, "nameservers": ["::1"] * 999}
    document["on_node"] = ["::1"] * 999
    read = from_json(document)
    assert read.resolv_confs[Workload("pod")].search == ("\\x1b[2J",) * 32
    assert (len(read.resolv_confs[Workload("pod")].nameservers), len(read.on_node)) == (3, 64)


def test_who_listens_on_this_machine() -> None:
    """Real sockets in the kernel's own words, IPv4 and IPv6; a connected one listens to nobody."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy,
    ):
        four.bind(("127.0.0.77", 0))
        six.bind(("::1", 0))
        busy.bind(("127.0.0.78", 0))
        busy.connect(("127.0.0.77", 9))

        def listening(sock: socket.socket, name: str) -> frozenset[str]:
            table = Path("/proc/thread-self/net", name).read_bytes()
            return bound(table, sock.getsockname()[1])

        assert "127.0.0.77" in listening(four, "udp")
        assert "::1" in listening(six, "udp6")
        assert "127.0.0.78" not in listening(busy, "udp")


@pytest.mark.parametrize(("mapped", "heard"), [("127.0.0.1", True), ("0.0.0.0", True),
                                               ("127.0.0.77", False)])  # fmt: skip
def test_ipv4_by_a_socket_of_ipv6(mapped: str, heard: bool) -> None:
    """As Java does: what is sent to 127.0.0.1 is heard there."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        six.bind((f"::ffff:{mapped}", 0))
        six.setblocking(False)
        port = six.getsockname()[1]
        listening = bound(Path("/proc/thread-self/net/udp6").read_bytes(), port)
        assert mapped in listening
        assert covers(listening, "127.0.0.1") is heard
        sender.sendto(b"x", ("127.0.0.1", port))
        try:
            assert (six.recv(9) == b"x") is heard
        except BlockingIOError:
            assert not heard


@pytest.mark.parametrize(
    ("listening", "address", "heard"),
    [
        ({"127.0.0.1"}, "127.0.0.1", True),
        ({"127.0.0.53"}, "127.0.0.1", False),
        ({"0.0.0.0"}, "127.0.0.1", True),
        ({"::"}, "127.0.0.1", True),
        ({"::"}, "::1", True),
        ({"0.0.0.0"}, "::1", False),
        (set(), "::1", False),
    ],
)  # fmt: skip
def test_who_hears_what_is_sent_to_an_address(
    listening: set[str], address: str, heard: bool
) -> None:
    """Whoever listens on it, or on all."""
    assert covers(listening, address) is heard


def test_a_table_that_is_cut_proves_nothing() -> None:
    """What is missing in it may be what was looked for; garbage is nobody."""
    assert whole(b"x" * (MAX_BYTES - 1)) and not whole(b"x" * MAX_BYTES)
    table = b"sl\n 1: ZZ:0035 00000000:0000 07\n 2: 01:0035 0:0000 07 0\n\xff :0035 :0000 x"
    assert bound(table) == frozenset()


def test_an_address_of_ours_is_told_from_others() -> None:
    """Without a packet."""
    assert is_local("127.0.0.1") and not is_local("192.0.2.1")
