"""The annotation of a pod that has a branch ENI."""

import json

import pytest
from eni53.inventory.pod_eni import BranchEni, parse_pod_eni

ENTRY = {
    "eniId": "eni-0aaaaaaaaaaaaaaaa",
    "ifAddress": "0E:10:E2:01:BD:91",
    "privateIp": "192.168.0.15",
    "ipv6Addr": "",
    "vlanId": 1,
    "subnetCidr": "192.168.0.0/16",
    "subnetV6Cidr": "",
    "associationID": "trunk-assoc-0aaaaaaaaaaaaaaaa",
}
BRANCH = BranchEni("eni-0aaaaaaaaaaaaaaaa", "0e:10:e2:01:bd:91", 1, "192.168.0.15")


def parsed(*entries):
    """What is read from these entries."""
    return parse_pod_eni(json.dumps(entries))


def test_a_branch_eni_is_read():
    """With its MAC in small letters, as the kernel writes it."""
    assert parsed(ENTRY) == (BRANCH,)


@pytest.mark.parametrize("key", ["vlanID", "VLANID", "vlanid"])
def test_keys_are_read_in_any_case(key):
    """AWS's own two components do not agree on vlanId."""
    other = {name.swapcase(): value for name, value in ENTRY.items() if name != "vlanId"}
    assert parsed(other | {key: 7}) == (BranchEni(BRANCH.eni_id, BRANCH.mac, 7, "192.168.0.15"),)


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({"privateIp": "", "ipv6Addr": "2001:DB8:0::1"}, "2001:db8::1"),
        ({"ipv6Addr": "2001:db8::1"}, "192.168.0.15"),
        ({"privateIp": "", "ipv6Addr": ""}, None),
        ({"privateIp": "x", "ipv6Addr": 7}, None),
        ({"privateIp": "fe80::1%\x1b[2J"}, None),
        ({"privateIp": 3232235535}, None),
    ],
)
def test_an_address_is_one_or_unknown(changes, address):
    """A pod of an IPv6 cluster has no IPv4 address; what is none at all is not passed on."""
    assert parsed(ENTRY | changes)[0].address == address


@pytest.mark.parametrize(
    "changes",
    [
        {"eniId": "eni-XYZ"}, {"eniId": "eni-0aaaaaaaaaaaaaaaa\n"}, {"eniId": 7}, {"eniId": None},
        {"eniId": "eni-" + "0" * 18}, {"eniId": "eni-1234567"},
        {"ifAddress": "0e:10:e2:01:bd"}, {"ifAddress": "0e-10-e2-01-bd-91"}, {"ifAddress": None},
        {"ifAddress": "0e:10:e2:01:bd:91\n"}, {"vlanId": 0}, {"vlanId": 4095}, {"vlanId": -1},
        {"vlanId": "1"}, {"vlanId": True}, {"vlanId": 1.0}, {"vlanId": None},
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_true_is_left_out(changes):
    """And nothing but that entry."""
    assert parsed(ENTRY | changes, ENTRY) == (BRANCH,)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", '"x"', "{}", json.dumps(ENTRY), "[null, 7, [], \"x\", {}]", "[", "\x00",
        "[" * 60_000, "[" + "9" * 5000 + "]", "\ud800", "[NaN]",
        json.dumps([ENTRY]) + " " * 70_000,
    ],
)  # fmt: skip
def test_hostile_text_is_no_eni_and_no_error(text):
    """Whoever may edit the pod may write anything."""
    assert parse_pod_eni(text) == ()


def test_their_number_is_bounded():
    """A pod has one."""
    assert len(parsed(*[ENTRY] * 100)) == 64
