"""The VPC CNI's introspection, against a real server on 127.0.0.1 that behaves, or does not."""

import socket

import pytest
from eni53.errors import SourceError
from eni53.inventory.cni import CniFacts, CniIntrospection, PodAddress

from tests.fixtures.json_server import NOT_HERE, serving

PRIMARY, TRUNK, OTHER = "eni-0248f7351c1dab6b4", "eni-0aaaaaaaaaaaaaaaa", "eni-1234abcd"
NEVER = "0001-01-01T00:00:00Z"
NOON, LATER = "2025-07-15T03:13:54.380533479Z", "2025-07-15T03:13:55.1Z"


def address(ip, namespace="kyverno", pod="x", assigned=NOON, released=NEVER, **changes):
    """One address as the CNI shows it; its sandbox is scrubbed, as newer versions do."""
    return {
        "Address": ip,
        "IPAMKey": {"networkName": "aws-cni", "containerID": "", "ifName": ""},
        "IPAMMetadata": {"k8sPodNamespace": namespace, "k8sPodName": pod},
        "AssignedTime": assigned,
        "UnassignedTime": released,
    } | changes


def block(cidr, *addresses, prefix=False):
    """One CIDR with the addresses that were ever given out of it."""
    return {
        cidr: {
            "Cidr": {"IP": cidr.partition("/")[0], "Mask": "/////w=="},
            "IPAddresses": {found["Address"]: found for found in addresses},
            "IsPrefix": prefix,
            "AddressFamily": "",
        }
    }


def eni(eni_id, v4=None, v6=None, **changes):
    """One ENI."""
    return {
        eni_id: {
            "ID": eni_id,
            "IsPrimary": False,
            "IsTrunk": False,
            "IsEFA": False,
            "DeviceNumber": 0,
            "AvailableIPv4Cidrs": v4 or {},
            "IPv6Cidrs": v6 or {},
            "RouteTableID": 0,
            "SubnetID": "subnet-1",
        }
        | changes
    }


def card(*enis):
    """What one network card has; once it was the whole answer."""
    return {"TotalIPs": 28, "AssignedIPs": 5, "ENIs": {k: v for e in enis for k, v in e.items()}}


CARD = card(
    eni(PRIMARY, block("10.50.63.106/32", address("10.50.63.106")), IsPrimary=True),
    eni(
        TRUNK,
        block(
            "10.50.64.16/28",
            address("10.50.64.17", "kube-system", "coredns-57ff979f67-qqbdh"),
            address("10.50.64.18", assigned=LATER, released=NOON),
            prefix=True,
        ),
        block("2001:db8::/80", address("2001:db8:0:0::53", "shop", "web-0"), prefix=True),
        IsTrunk=True,
        DeviceNumber=1,
    ),
)
FACTS = CniFacts(
    frozenset({TRUNK}),
    PRIMARY,
    {
        "10.50.63.106": PodAddress(PRIMARY, "kyverno", "x"),
        "10.50.64.17": PodAddress(TRUNK, "kube-system", "coredns-57ff979f67-qqbdh"),
        "10.50.64.18": PodAddress(TRUNK, "kyverno", "x"),
        "2001:db8::53": PodAddress(TRUNK, "shop", "web-0"),
    },
)


@pytest.fixture
def ipamd():
    """The CNI's daemon on a node with a trunk."""
    with serving({"/v1/enis": {"0": CARD}}) as server:
        yield server


def facts(ipamd, answer):
    """What is made of this answer."""
    ipamd.answers["/v1/enis"] = answer
    return CniIntrospection(ipamd.url).enis()


def refusal(url, timeout_s=2.0):
    """The one line a call fails with."""
    with pytest.raises(SourceError) as caught:
        CniIntrospection(url, timeout_s).enis()
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("VPC CNI")
    return str(caught.value)


@pytest.mark.parametrize("answer", [{"0": CARD}, CARD], ids=["by card", "older"])
def test_enis_and_addresses_of_either_version(ipamd, answer):
    """Trunk, primary, and whose each address is; prefixes and IPv6 included."""
    assert facts(ipamd, answer) == FACTS
    assert ipamd.asked == ["/v1/enis"]


def test_every_network_card_counts(ipamd):
    """Large instances have several; an idle one has no ENIs."""
    second = card(eni(OTHER, block("10.1.0.9/32", address("10.1.0.9", "ml", "train-0"))))
    found = facts(ipamd, {"0": CARD, "1": second, "2": {"ENIs": None}})
    assert found.addresses == dict(FACTS.addresses) | {
        "10.1.0.9": PodAddress(OTHER, "ml", "train-0")
    }
    assert (found.trunks, found.primary) == (FACTS.trunks, PRIMARY)


@pytest.mark.parametrize(
    "unassigned",
    [
        address("10.1.0.9", IPAMMetadata={}),
        address("10.1.0.9", IPAMMetadata=None),
        address("10.1.0.9", namespace=""),
        address("10.1.0.9", pod=""),
        address("10.1.0.9", assigned=NOON, released=LATER),
        address("10.1.0.9", assigned=LATER, released="2025-07-15T05:13:55.2+02:00"),
        address("10.1.0.9", assigned="", released=LATER),
        address("10.1.0.9", released="soon"),
        address("10.1.0.9", released="2025-07-15"),
        address("10.1.0.9", pod=7),
        address("not-an-address"),
        address("fe80::1%\x1b[2J"),
        {"Address": "10.1.0.9"},
    ],
)
def test_an_address_that_no_pod_has_is_left_out(ipamd, unassigned):
    """It rests for half a minute and goes to another pod: the last owner must not be charged."""
    found = facts(ipamd, card(eni(OTHER, block("10.1.0.8/29", unassigned, address("10.1.0.10")))))
    assert found.addresses == {"10.1.0.10": PodAddress(OTHER, "kyverno", "x")}


def test_versions_without_times_and_names_made_safe(ipamd):
    """Only the owner is needed; an escape sequence in its name is not passed on."""
    bare = {"Address": "10.1.0.9", "IPAMMetadata": {"k8sPodNamespace": "a\x1b", "k8sPodName": "b"}}
    found = facts(ipamd, card(eni(OTHER, block("10.1.0.9/32", bare))))
    assert found.addresses == {"10.1.0.9": PodAddress(OTHER, "a\\x1b", "b")}


def test_the_primary_is_one_or_unknown(ipamd):
    """Two that are both called so tell nothing; nor does none."""
    two = card(eni(PRIMARY, IsPrimary=True), eni(OTHER, IsPrimary=True))
    assert facts(ipamd, two).primary is None
    assert facts(ipamd, card(eni(OTHER))) == CniFacts(frozenset(), None, {})


@pytest.mark.parametrize("bad", ["eni-XYZ", "eni-1234", "eni-1234abcd\n", "", "../eni-1234abcd"])
def test_what_is_no_eni_id_is_left_out(ipamd, bad):
    """It would become a label."""
    odd = eni(bad, block("10.1.0.9/32", address("10.1.0.9")), IsTrunk=True)
    assert facts(ipamd, card(odd, {OTHER: None})) == CniFacts(frozenset(), None, {})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "not its list of ENIs: no network card"),
        ([], "list instead of dict"),
        ({"0": {}}, "no ENIs in it"),
        ({"0": 7}, "int instead of dict"),
        ({"error": "no"}, "str instead of dict"),
        ({"ENIs": []}, "list instead of dict"),
        (card(eni(OTHER, IsTrunk="yes")), "str instead of bool"),
        (card(eni(OTHER, ["10.0.0.1"])), "list instead of dict"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"{}," * 200_000 + b"{}]", "more than 200000 values"),
        (card(*[eni(f"eni-{n:08x}") for n in range(257)]), "more than 256 ENIs"),
        (
            card(eni(OTHER, block("10.0.0.0/16", *[
                address(f"10.0.{n // 250}.{n % 250}") for n in range(4097)
            ]))),
            "more than 4096 addresses",
        ),
    ],
)  # fmt: skip
def test_what_is_no_list_of_enis_is_one_line(ipamd, answer, says):
    """Unknown is not "no pods"."""
    ipamd.answers["/v1/enis"] = answer
    assert says in refusal(ipamd.url)


@pytest.mark.parametrize(
    ("mood", "says"),
    [
        ("silent", "no full answer within 0.2 s"),
        ("drip", "no full answer within 0.2 s"),
        ("cut", "the answer was cut short"),
        (503, "status 503 for /v1/enis"),
    ],
)
def test_a_bad_day_of_the_daemon_is_one_line(ipamd, mood, says):
    """Time is bounded, whatever comes."""
    ipamd.mood = mood
    assert says in refusal(ipamd.url, 0.2)


@pytest.mark.parametrize("url", NOT_HERE)
def test_only_an_address_is_asked(url, monkeypatch):
    """A name would cost a query on the very ENI; it is refused before anybody resolves it."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert refusal(url)


def test_turned_off_means_no_request():
    """An empty URL is a choice, not a failure."""
    assert CniIntrospection("").enis() == CniFacts(frozenset(), None, {})
