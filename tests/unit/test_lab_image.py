"""The lab's parts that need no namespace: image, packets, schedule, rules, metadata."""

import argparse
import io
import json
import re
import struct
import tarfile
from pathlib import Path

import pytest

from tests.lab import image, load, metadata, nft, remains, send, vpc
from tests.lab.imds import listing
from tests.lab.shell import LabError


def options(**given: object) -> argparse.Namespace:
    """The sender's options, with *given* over what it does by default."""
    args = send.parser().parse_args(["udp", "--to", "10.53.0.2"])
    return argparse.Namespace(**{**vars(args), **given})


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of one file of *tar*."""
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def test_archive_names_one_image_with_its_layer() -> None:
    """Docker load takes the archive: manifest, config and layer agree on their digests."""
    with tarfile.open(fileobj=io.BytesIO(image.archive(b"\x7fELF", "x86_64"))) as tar:
        (manifest,) = json.loads(member(tar, "manifest.json"))
        config = json.loads(member(tar, manifest["Config"]))
        layer = member(tar, manifest["Layers"][0])
    assert manifest["RepoTags"] == [image.NAME]
    assert config["architecture"] == "amd64"
    assert [f"sha256:{Path(manifest['Layers'][0]).parent}"] == config["rootfs"]["diff_ids"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert tar.getmember("bin/sleep").linkname == "busybox"


def test_archive_is_the_same_every_time() -> None:
    """One input is one image id, so loading it twice leaves one image."""
    assert image.archive(b"x", "aarch64") == image.archive(b"x", "aarch64")


def test_query_bytes() -> None:
    """A query is what RFC 1035 says: header, labels, type, class, and nothing behind."""
    expected = bytes.fromhex(
        "0007 0100 0001 0000 0000 0000 027131 036c6162 0474657374 00 001c 0001"
    )
    assert send.dns_query(7, "q1.lab.test", 28) == expected
    assert send.dns_query(65536 + 7, "q1.lab.test", 28) == expected


def test_icmp_checksum_sums_to_ones() -> None:
    """The receiver's sum over an ICMPv4 request is 0xffff, or it is dropped uncounted."""
    total = sum(struct.unpack("!8H", send.icmp_echo(3, 0xFFFE, ipv6=False)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": 3}, [0, 0, 0]),
        ({"count": 3, "rate": 2.0}, [0, 0.5, 1]),
        ({"count": 5, "burst": 2, "every": 3.0}, [0, 0, 3, 3, 6]),
        ({"steps": "2:1,1:2"}, [0, 0.5, 1, 2]),
    ],
)
def test_schedule(given: dict[str, object], expected: list[float]) -> None:
    """Each profile sends exactly its number of packets, when it says."""
    assert list(send.schedule(options(**given))) == expected


def test_sender_report_is_read_back() -> None:
    """The report is the last line; anything else is an error and not a zero."""
    line = '{"mode": "udp", "sent": 5, "answered": 4, "failed": 0, "seconds": 0.1}\n'
    assert load.parse_sent("noise\n" + line) == load.Sent("udp", 5, 4, 0, 0.1)
    with pytest.raises(LabError):
        load.parse_sent("Killed\n")


def test_every_eni_has_its_own_counters_and_bucket() -> None:
    """AWS limits per ENI: a shared bucket would drop one ENI's packets for another's."""
    rules = nft.ruleset([vpc.eni(0), vpc.eni(1)], limit_pps=1024, resolver=True)
    declared = re.findall(r"^(?:counter|limit) (\S+) {", rules, re.MULTILINE)
    assert len(declared) == len(set(declared))
    for interface in ("ens5", "ens6"):
        assert f"limit {interface}_limit {{ rate over 1024/second" in rules
        assert f"counter {interface}_ip6_tcp_resolver {{" in rules
    # The counters come first: what the limiter drops was still sent.
    assert rules.index("counter name ens5_all") < rules.index("limit name ens5_limit")


def test_no_limit_drops_nothing_on_an_eni() -> None:
    """Exact counts need a lab that never drops."""
    rules = nft.ruleset([vpc.eni(0)], limit_pps=None, resolver=True)
    assert "limit" not in rules.replace("linklocal", "")


def test_metadata_lists_and_leaves() -> None:
    """The service answers lists as EC2 does: LF separated, "/" behind what has more below it."""
    tree = metadata.tree([vpc.eni(0), vpc.eni(1)])
    macs = "meta-data/network/interfaces/macs/"
    assert listing(tree, macs) == "02:53:00:00:00:01/\n02:53:00:00:00:02/"
    assert listing(tree, macs + "02:53:00:00:00:02/device-number") == "1"
    assert "interface-id\n" in (listing(tree, macs + "02:53:00:00:00:02") or "")
    assert listing(tree, "meta-data/nothing") is None


def test_eni_ids_have_the_shape_of_real_ones() -> None:
    """An id is eni- and 17 hex digits, for every ENI a lab can have."""
    enis = [vpc.eni(number) for number in range(vpc.MAX_ENIS)]
    assert all(re.fullmatch(r"eni-[0-9a-f]{17}", eni.eni_id) for eni in enis)
    assert len({eni.mac for eni in enis}) == len({eni.ipv4 for eni in enis}) == vpc.MAX_ENIS


def test_a_lab_without_a_readable_owner_counts_as_dead(tmp_path: Path) -> None:
    """A lab killed while it was being made has no state yet, and must be swept."""
    assert not remains.owned_by_living(tmp_path)
    (tmp_path / "state.json").write_text('{"pid": 1')
    assert not remains.owned_by_living(tmp_path)
