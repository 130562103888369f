"""The driver's statistics: absent is not zero, and a count that grows writes over nothing."""

import array
import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys

import pytest
from eni53.errors import SourceError
from eni53.inventory import enis
from eni53.inventory.ethtool import ALLOWANCES, Ethtool, decode, driver

FIVE = {
    "bw_in_allowance_exceeded": 11072,
    "bw_out_allowance_exceeded": 3,
    "pps_allowance_exceeded": 0,
    "conntrack_allowance_exceeded": 1,
    "linklocal_allowance_exceeded": 2**63 + 53,
}
SIX = FIVE | {"conntrack_allowance_available": 51286}
BEFORE = {"tx_timeout": 0, "suspend": 0, "wd_expired": 7}
AFTER = {"queue_0_tx_cnt": 900, "queue_0_tx_bytes": 2**64 - 1, "queue_0_rx_cnt": 17}


def tables(statistics):
    """Names and values as the kernel hands them out."""
    names = b"".join(name.encode().ljust(32, b"\0") for name in statistics)
    return names, struct.pack(f"={len(statistics)}Q", *statistics.values())


# --- the two tables -------------------------------------------------------------------------


@pytest.mark.parametrize("own", [FIVE, SIX, {}], ids=["5", "6", "none"])
def test_the_allowances_are_found_by_name(own):
    """Older ENA drivers have five, newer ones six, others none; queues follow them."""
    assert decode(*tables(BEFORE | own | AFTER), ALLOWANCES) == own
    assert decode(*tables(BEFORE | own | AFTER)) == BEFORE | own | AFTER


def test_a_name_may_fill_its_field_and_be_no_text():
    """32 bytes without a NUL are a name; a driver's odd bytes are no traceback."""
    full = b"x" * 14 + b"_allowance_exceeded"[:18]
    names = full + b"\xff\xfe_allowance_exceeded".ljust(32, b"\0")
    values = struct.pack("=2Q", 1, 2)
    assert decode(names, values) == {full.decode(): 1, "\ufffd\ufffd_allowance_exceeded": 2}


# --- a kernel with an ENA in it, which this machine has not: it writes as the real one does ---


class Ena:
    """Carries out ethtool commands at the address in the request, as net/ethtool/ioctl.c does.

    Attributes:
        statistics: What the driver has now.
        strict: Whether it compares the count it is given, as kernels from 6.19 on do.
        growing: Statistics that appear after each command; a count that never holds still.
    """

    def __init__(self, statistics, *, strict=False, growing=0):
        self.statistics = dict(statistics)
        self.strict = strict
        self.growing = growing
        self.commands = []

    def __call__(self, _control, request, ifreq):
        """One ioctl."""
        name, address = struct.unpack("=16sQ16x", ifreq)
        assert (request, name.rstrip(b"\0")) == (0x8946, b"ens5")
        command, second, third = struct.unpack("=III", ctypes.string_at(address, 12))
        self.commands.append(command)
        if command == 0x37:
            (mask,) = struct.unpack("=Q", ctypes.string_at(address + 8, 8))
            self.write(address, struct.pack("=IIQI", command, 0, mask, len(self.statistics)))
        else:
            asked = third if command == 0x1B else second
            written = dict(self.statistics) if not self.strict or asked == self.count else {}
            names, values = tables(written)
            head = (command, 1, len(written)) if command == 0x1B else (command, len(written))
            body = names if command == 0x1B else values
            self.write(address, struct.pack(f"={len(head)}I", *head) + body)
        for _ in range(self.growing):
            self.statistics[f"queue_{self.count}_tx_cnt"] = 0

    @property
    def count(self):
        """How many statistics there are."""
        return len(self.statistics)

    @staticmethod
    def write(address, data):
        """Copy to user, without a question how much room there is."""
        ctypes.memmove(address, data, len(data))


@pytest.fixture
def control():
    """Any socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.mark.parametrize("strict", [False, True], ids=["before 6.19", "from 6.19 on"])
@pytest.mark.parametrize("own", [FIVE, SIX], ids=["5", "6"])
def test_an_ena_tells_its_allowances(control, own, strict):
    """Three commands, and every number to the last bit."""
    kernel = Ena(BEFORE | own | AFTER, strict=strict)
    assert Ethtool(control, kernel).allowances("ens5") == own
    assert kernel.commands == [0x37, 0x1B, 0x1D]


def test_another_driver_has_none(control):
    """Statistics, but none of these: unknown, not zero."""
    assert Ethtool(control, Ena(BEFORE | AFTER)).allowances("ens5") is None
    assert Ethtool(control, Ena({})).allowances("ens5") is None


@pytest.mark.parametrize("strict", [False, True], ids=["before 6.19", "from 6.19 on"])
def test_queues_that_appear_between_two_commands(control, strict):
    """Whatever the kernel then writes has room, and the next attempt has matching tables."""
    kernel = Ena(SIX, strict=strict)
    more = {f"queue_{n}_tx_cnt": n for n in range(4000)}

    def ioctl(*request):
        kernel(*request)
        if kernel.commands == [0x37]:
            kernel.statistics |= more

    assert Ethtool(control, ioctl).allowances("ens5") == SIX
    assert kernel.commands.count(0x37) == 2


def test_a_count_that_never_holds_still_is_said(control):
    """Three attempts, then one line: the numbers may be there, so it is not None."""
    kernel = Ena(SIX, growing=1)
    with pytest.raises(SourceError, match=r"^statistics of ens5: their number changes"):
        Ethtool(control, kernel).allowances("ens5")
    assert kernel.commands.count(0x37) == 3


def test_a_count_beyond_belief_is_said(control):
    """No driver has so many; memory for them is not asked for."""
    kernel = Ena({f"s{n}": n for n in range(65_537)})
    with pytest.raises(SourceError, match=r"^statistics of ens5: 65537 of them$"):
        Ethtool(control, kernel).allowances("ens5")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL])
def test_what_the_kernel_does_not_have_is_none(control, code):
    """No ethtool, no such interface any more, no such set of strings."""

    def ioctl(*_):
        raise OSError(code, os.strerror(code))

    assert Ethtool(control, ioctl).allowances("ens5") is None


def test_what_the_kernel_refuses_is_said(control):
    """A refusal is not "there are none"."""

    def ioctl(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(SourceError, match=r"^statistics of ens\\x1b5: Operation not permitted$"):
        Ethtool(control, ioctl).allowances("ens\x1b5")


# --- this machine's kernel --------------------------------------------------------------------

NAME = "veth-of-15-char"
_ELSEWHERE = """
import array, socket, sys
here = socket.socket(fileno=0)
inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ends = b"%d %d" % (socket.if_nametoindex("veth-of-15-char"), socket.if_nametoindex("v53b"))
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [inside.fileno()]))]
here.sendmsg([ends], rights)
"""


@pytest.fixture
def elsewhere():
    """A socket of a new namespace in which there is a veth pair, and the index of each end.

    The namespace lives as long as the socket: nothing else is left of it. In a user namespace
    of its own where the tests do not run as root.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        enter = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root"]
        script = 'ip link add veth-of-15-char type veth peer name v53b && exec "$0" -c "$1"'
        subprocess.run(
            [*enter, "sh", "-c", script, sys.executable, _ELSEWHERE], stdin=theirs, check=True
        )
        size = array.array("i").itemsize
        data, rights, _, _ = ours.recvmsg(64, socket.CMSG_SPACE(size))
    inside = socket.socket(fileno=array.array("i", rights[0][2][:size])[0])
    with inside:
        yield inside, *map(int, data.split())


def test_a_real_veth_has_statistics_but_no_allowance(elsewhere):
    """In the namespace of the socket, not in ours; one of its numbers is known beforehand."""
    inside, index, peer = elsewhere
    ethtool = Ethtool(inside)
    found = ethtool.statistics(NAME)
    assert found is not None
    assert (found["peer_ifindex"], len(found) > 1) == (peer, True)
    assert ethtool.statistics("v53b", ("_ifindex",)) == {"peer_ifindex": index}
    assert ethtool.allowances(NAME) is None
    assert ethtool.driver(NAME) == "veth"


@pytest.mark.parametrize("longer", [NAME + "s", NAME + "acter", "v53b\0", "v53b\0x"])
def test_a_longer_name_is_not_cut_to_one_that_exists(elsewhere, longer):
    """The kernel takes 15 bytes up to a NUL: the rest would be another interface's numbers."""
    inside, _, _ = elsewhere
    assert Ethtool(inside).statistics(longer) is None
    assert Ethtool(inside).driver(longer) is None


def test_the_socket_decides_the_namespace(elsewhere, control):
    """The same name asked in our own namespace is no interface."""
    assert Ethtool(control).statistics(NAME) is None
    assert Ethtool(control).driver(NAME) is None


@pytest.mark.parametrize("name", ["lo", "no-such-iface0", "lo\0x", "", "x" * 100, "\ud800"])
def test_a_real_interface_without_statistics_has_none(control, name):
    """Loopback has no driver, and a name that is none stays none."""
    assert Ethtool(control).allowances(name) is None
    assert Ethtool(control).statistics(name) is None


def test_a_closed_socket_is_said():
    """One line, not None: the counters may well be there."""
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control.close()
    with pytest.raises(SourceError, match=r"^statistics of lo: the socket is closed$"):
        Ethtool(control).allowances("lo")


def test_there_is_one_way_to_ask_for_a_driver():
    """The choice of ENIs uses this one."""
    assert enis.driver is driver
    assert driver("no-such-iface0") is None
