"""Which interfaces are ENIs and which lead to workloads: by driver and route, never by name."""

import pytest
from eni53.errors import NeedError
from eni53.inventory.enis import choose_enis, driver, eni_label, workload_veths
from eni53.inventory.links import Link

MAC = "02:4E:11:d0:5b:9c"


def link(index, name, kind="", *, loopback=False, netnsid=None, altnames=(), mac=MAC):
    """An interface as netlink describes it."""
    return Link(index, name, kind, mac, loopback, 0, netnsid, 0, altnames)


LO = link(1, "lo", loopback=True)
ENS5 = link(2, "ens5", altnames=("enp0s5", "eni-0a1b2c3d4e5f60718"))
ENS6 = link(3, "ens6")
DOCKER0 = link(4, "docker0", "bridge")
VETH = link(5, "veth12", "veth", netnsid=0)
PAIR = link(6, "vethlocal", "veth")
DRIVERS = {"ens5": "ena", "ens6": "ena", "eth0": "virtio_net", "xen0": "vif", "old0": "ixgbevf"}


def choose(links, route=(), wanted=()):
    """Names of the ENIs among *links*."""
    return [found.name for found in choose_enis(links, route, wanted, DRIVERS.get)]


@pytest.mark.parametrize(
    ("links", "route", "expected"),
    [
        ((ENS6, VETH, ENS5, LO, DOCKER0), (2,), ["ens5", "ens6"]),
        ((LO, link(2, "xen0"), link(3, "old0")), (), ["xen0", "old0"]),
        ((LO, link(2, "eth0"), DOCKER0), (2,), ["eth0"]),
        ((LO, link(7, "eni0", "veth", netnsid=3), VETH), (7,), ["eni0"]),
        ((link(2, "ens5", "vlan"), link(3, "ens6")), (), ["ens6"]),
    ],
    ids=["by driver", "xen and older", "default route", "the lab's veth", "never a VLAN on top"],
)
def test_enis_are_found(links, route, expected):
    """The driver tells; without one, the default route; in order of index."""
    assert choose(links, route) == expected


@pytest.mark.parametrize("kind", ["bridge", "dummy", "ifb", "bond", "tun", "wireguard", "vxlan"])
def test_what_is_never_an_eni(kind):
    """A default route through a tunnel or a bridge does not make it one; the message helps."""
    with pytest.raises(NeedError, match="--eni IFACE") as caught:
        choose((LO, link(2, "x0", kind)), (2,))
    assert len(str(caught.value).splitlines()) == 1


def test_wanted_names_end_all_guessing():
    """By name or alternative name, once each, in order of index."""
    wanted = ("eth0", "eni-0a1b2c3d4e5f60718", "ens5")
    assert choose((link(9, "eth0"), ENS5, ENS6), (), wanted) == ["ens5", "eth0"]


def test_a_wanted_name_that_is_not_there_is_said():
    """With what there is instead."""
    with pytest.raises(NeedError, match=r"'eth9' does not exist .* there: ens5, ens6"):
        choose((LO, ENS5, ENS6), (), ("eth9",))
    with pytest.raises(NeedError, match="there: none"):
        choose((LO,), (), ("eth9",))


def test_workload_veths_lead_elsewhere():
    """A pair within this namespace leads to nobody, and one chosen as an ENI is no workload's."""
    assert workload_veths((ENS5, DOCKER0, VETH, PAIR), ()) == (VETH,)
    assert workload_veths((VETH,), {5}) == ()


@pytest.mark.parametrize(
    ("found", "ids", "expected"),
    [
        (ENS5, {}, "eni-0a1b2c3d4e5f60718"),
        (ENS6, {"02:4e:11:d0:5b:9c": "eni-0ff1ce0ff1ce0ff1c"}, "eni-0ff1ce0ff1ce0ff1c"),
        (ENS6, {}, "mac:02:4e:11:d0:5b:9c"),
        (link(2, "x", altnames=("eni-", "eni-XYZ", "eni-0a1b2c3d4e5f60718\n")), {},
         "mac:02:4e:11:d0:5b:9c"),
    ],
    ids=["altname", "imds", "mac", "no id at all"],
)  # fmt: skip
def test_an_enis_label(found, ids, expected):
    """Its id where anybody knows it, else its hardware address in small letters."""
    assert eni_label(found, ids) == expected


def test_an_interface_without_a_driver_has_none():
    """Absent, too long a name, or one that ethtool knows nothing of."""
    assert driver("no-such-iface0") is None
    assert driver("x" * 100) is None
