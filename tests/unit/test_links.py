"""Links as the kernel writes them: messages made by hand, whole, cut and odd."""

import random
import secrets
import struct

import pytest
from eni53.inventory.links import Link, _from_wire
from eni53.inventory.rtlink import attributes

SEED = secrets.randbits(32)
NESTED = 0x8000
ADDRESS, IFNAME, LINK, MASTER, LINKINFO, NETNSID, PROPS, ALTNAME = 1, 3, 5, 10, 18, 37, 52, 53
KIND, DATA, VLAN_ID = 1, 2, 1
MAC = bytes.fromhex("024e11d05b9c")


def attribute(number, payload):
    """One attribute, padded to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, number) + payload + b"\0" * (-length % 4)


def text(number, value):
    """A text with its end."""
    return attribute(number, value.encode() + b"\0")


def number(which, value):
    """A signed number of four bytes."""
    return attribute(which, struct.pack("=i", value))


def linkinfo(kind, *data):
    """What kind of link it is."""
    inner = attribute(DATA | NESTED, b"".join(data)) if data else b""
    return attribute(LINKINFO | NESTED, text(KIND, kind) + inner)


def vlan_id(value):
    """As IFLA_VLAN_ID: two bytes and padding."""
    return attribute(VLAN_ID, struct.pack("=H", value))


def link(*parts, index=7, flags=0):
    """What is made of a message."""
    return _from_wire(index, flags, attributes(b"".join(parts)))


def test_a_vlan_device_is_read_whole():
    """Its id is among other things that a VLAN device says; its parent is in another namespace."""
    flags = attribute(2, struct.pack("=II", 1, 1))
    protocol = attribute(5, b"\x81\x00")
    found = link(
        text(IFNAME, "vlan.eth.100"), attribute(ADDRESS, MAC), number(LINK, 2),
        number(NETNSID, 0), linkinfo("vlan", protocol, vlan_id(100), flags),
    )  # fmt: skip
    mac = "02:4e:11:d0:5b:9c"
    assert found == Link(7, "vlan.eth.100", "vlan", mac, False, 2, 0, 0, (), 100)


@pytest.mark.parametrize("value", [0, 1, 255, 256, 4094, 4095])
def test_every_vlan_id_is_that_id(value):
    """In the byte order of this machine."""
    assert link(linkinfo("vlan", vlan_id(value))).vlan == value


@pytest.mark.parametrize("kind", ["", "veth", "macvlan", "ipvlan", "vxlan", "vla", "vlan2"])
def test_other_kinds_have_no_vlan_id(kind):
    """The same number means something else there: a macvlan's mode, a VXLAN's network."""
    found = link(linkinfo(kind, vlan_id(4)))
    assert (found.kind, found.vlan) == (kind, 0)


@pytest.mark.parametrize(
    "info",
    [
        b"", linkinfo("vlan"), linkinfo("vlan", b""), linkinfo("vlan", attribute(2, b"\x64\0")),
        linkinfo("vlan", attribute(VLAN_ID, b"")), linkinfo("vlan", b"\x06\0\x01"),
        linkinfo("vlan", b"\x02\0\x01\0\x64\0"), linkinfo("vlan", b"\0" * 64),
        attribute(LINKINFO, attribute(DATA, vlan_id(100))), linkinfo("vlan", vlan_id(100))[:12],
    ],
    ids=["nothing", "no data", "empty data", "no id", "empty id", "cut head", "short length",
         "length 0", "no kind", "cut data"],
)  # fmt: skip
def test_without_an_id_it_is_0(info):
    """What is missing or cut is no VLAN, and never an error."""
    assert link(text(IFNAME, "x"), info).vlan == 0


def test_an_eni_and_what_it_goes_by():
    """A physical device: no kind; alternative names, of which one is its id."""
    names = attribute(PROPS | NESTED, text(ALTNAME, "enp0s5") + text(ALTNAME, "eni-0a1b2c3d"))
    found = link(text(IFNAME, "ens5"), attribute(ADDRESS, MAC), names, flags=0x1003)
    assert found == Link(7, "ens5", "", "02:4e:11:d0:5b:9c", False, 0, None, 0,
                         ("enp0s5", "eni-0a1b2c3d"))  # fmt: skip
    assert link(text(IFNAME, "lo"), flags=0x49).loopback is True


def test_a_veth_and_where_it_leads():
    """Number 0 is a namespace as good as any other; none at all is this one."""
    parts = (text(IFNAME, "veth1"), number(LINK, 9), number(MASTER, 4), linkinfo("veth", b"x" * 40))
    found = link(*parts, number(NETNSID, 0))
    assert (found.kind, found.link, found.link_netnsid, found.master) == ("veth", 9, 0, 4)
    assert link(*parts).link_netnsid is None


def test_a_name_may_be_any_bytes():
    """Whoever has the right to rename an interface in his namespace chooses it."""
    found = link(attribute(IFNAME, b"\xff\x1b[2J\0"))
    assert found.name == "\ufffd\x1b[2J"


def test_no_message_is_an_error():
    """Whole ones with bytes changed, and cut anywhere."""
    print("seed", SEED)
    rng = random.Random(SEED)
    whole = (
        text(IFNAME, "vlan.eth.100") + attribute(ADDRESS, MAC) + number(LINK, 2)
        + number(NETNSID, 0) + attribute(PROPS | NESTED, text(ALTNAME, "eni-0a1b2c3d"))
        + linkinfo("vlan", vlan_id(100), attribute(2, b"12345678"))
    )  # fmt: skip
    for _ in range(5000):
        data = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(4) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        found = link(bytes(data))
        assert isinstance(found.vlan, int)
        assert found.vlan >= 0
        assert found.kind == "vlan" or not found.vlan
