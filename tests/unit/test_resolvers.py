"""Which addresses count as the VPC's resolver."""

from pathlib import Path

import pytest
from eni53.inventory.resolvers import ALWAYS, Resolvers, read_resolv_confs, resolver_addresses


def test_configured_addresses_decide_alone():
    """What a person set is not mixed with what was found, but for the fixed addresses."""
    text = "nameserver 10.0.0.2"
    found = resolver_addresses(["10.9.0.2"], ["10.0.0.0/16"], [text], ["10.0.0.0/24"])
    assert found == Resolvers(("10.9.0.2", *ALWAYS), True, "configured")


def test_configuring_a_fixed_address_does_not_make_vpc_plus_two_known():
    """Repeating 169.254.169.253 leaves VPC+2 unknown, and that must be said."""
    found = resolver_addresses(["169.254.169.253"], [], [], [])
    assert found.vpc_plus_two_known is False
    assert (sorted(found.addresses), found.source) == (sorted(ALWAYS), "configured")


def test_imds_gives_base_plus_two_of_each_vpc():
    """The resolver sits in the VPC's primary block, whatever the subnet; VPCs are not repeated."""
    found = resolver_addresses([], ["10.0.0.0/16", "10.0.0.0/16", "172.31.16.0/20"], [], [])
    assert found == Resolvers(("10.0.0.2", "172.31.16.2", *ALWAYS), True, "imds")


@pytest.mark.parametrize(
    ("server", "prefix"),
    [
        ("10.0.0.2", "10.0.64.0/18"),  # VPC /16, a subnet in its middle
        ("10.0.64.2", "10.0.64.17/18"),  # VPC and subnet the same; host bits set
        ("172.31.0.2", "172.31.9.9/32"),  # an address of the CNI
        ("10.0.1.130", "10.0.1.128/28"),  # the smallest VPC
        ("192.168.0.2", "192.168.0.0/16"),
    ],
)
def test_resolv_conf_counts_where_the_number_proves_it(server, prefix):
    """Base+2 of a block around a connected subnet can only be Amazon's within the VPC."""
    found = resolver_addresses([], [], [f"search x\nnameserver\t{server} # vpc\n"], [prefix])
    assert found == Resolvers((server, *ALWAYS), True, "resolv.conf")


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("nameserver 10.0.5.5", "10.0.0.0/16"),  # somebody's unbound
        ("nameserver 10.1.0.2", "10.0.0.0/16"),  # a neighbour's resolver
        ("nameserver 127.0.0.53", "10.0.0.0/16"),
        ("#nameserver 10.0.0.2", "10.0.0.0/16"),
        ("# nameserver 10.0.0.2", "10.0.0.0/16"),
        ("nameservers 10.0.0.2", "10.0.0.0/16"),
        ("nameserver", "10.0.0.0/16"),
        ("nameserver 10.0.0.2x\nnameserver fd00::2", "10.0.0.0/16"),
        ("nameserver 10.0.0.2", "fd00::/64"),
        ("nameserver 10.0.0.2", "nonsense"),
        ("nameserver 10.0.0.2", "10.0.0.0/8"),  # no VPC is that wide
        ("nameserver 0.0.0.2", "0.0.0.0/0"),
        ("\0\ufffd nameserver 10.0.0.2", "10.0.0.0/16"),
    ],
)
def test_other_name_servers_do_not_count(text, prefix):
    """Nothing silently counts as the resolver: unknown is said to be unknown."""
    assert resolver_addresses([], [], [text], [prefix]) == Resolvers(ALWAYS, False, "unknown")


def test_all_files_are_read_in_order():
    """The list systemd really asks names the resolver where /etc only names the stub."""
    texts = ["nameserver 10.0.0.2\n", "nameserver 127.0.0.53\nnameserver 10.0.0.2\n"]
    assert resolver_addresses([], [], texts, ["10.0.1.0/24"]).addresses == ("10.0.0.2", *ALWAYS)


def _root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    return tmp_path


def test_systemds_real_file_comes_first(tmp_path):
    """Both files are read, systemd's own list first; bytes that are no text do not matter."""
    root = _root(tmp_path)
    (root / "etc/resolv.conf").write_bytes(b"etc \xff")
    (root / "run/systemd/resolve/resolv.conf").write_text("real")
    assert read_resolv_confs(root) == ("real", "etc \ufffd")


@pytest.mark.parametrize("target", ["/run/systemd/resolve/stub", "../run/systemd/resolve/stub"])
def test_links_stay_under_the_root(tmp_path, target):
    """With the host's root mounted elsewhere, its links must not lead to the container's files."""
    root = _root(tmp_path)
    (root / "run/systemd/resolve/stub").write_text("stub")
    (root / "etc/resolv.conf").symlink_to(target)
    assert read_resolv_confs(root) == ("stub",)


def test_absent_and_odd_files_are_left_out(tmp_path):
    """No file, a directory and a dangling link are simply no information."""
    assert read_resolv_confs(tmp_path) == ()
    root = _root(tmp_path)
    (root / "etc/resolv.conf").mkdir()
    (root / "run/systemd/resolve/resolv.conf").symlink_to("/nowhere")
    assert read_resolv_confs(root) == ()


def test_a_huge_file_is_cut(tmp_path):
    """A file that never ends does not fill the agent's memory."""
    (_root(tmp_path) / "etc/resolv.conf").write_text("x" * 100_000)
    assert [len(text) for text in read_resolv_confs(tmp_path)] == [65536]
