"""The sidecar's parts that need no packet: what it reads, how it sums, and who it chooses to be."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from eni53.config import load
from eni53.errors import NeedError
from eni53.inventory.cgroups import CgroupTree
from eni53.kernel.layout import SLOT_NS
from eni53.model import UNCLASSIFIED, Eni, Workload
from eni53.pipeline import Pipeline
from eni53.sidecar import choice, metadata
from eni53.sidecar.classic import JEQ, MAX_INSTRUCTIONS, RET, Program
from eni53.sidecar.filter import MOST, build
from eni53.sidecar.findings import sidecar_findings
from eni53.sidecar.heard import Heard
from eni53.sidecar.interface import default_route, find_interface, prefixes
from eni53.sidecar.owner import OneTask
from eni53.sidecar.tally import Tally
from eni53.sidecar.udp import UdpCounter, out_datagrams, out_datagrams6

from tests.lab import vpc
from tests.lab.task_metadata import task as described

URI = "http://169.254.170.2/v4/0123"
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0140000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t0040000A\t00000000\t0001\t0\t0\t0\t00C0FFFF\t0\t0\t0
eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
Udp: 10 2 0 4711 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
UdpLite: 0 0 0 3 0
"""
SNMP6 = "Ip6InReceives\t8\nUdp6InDatagrams\t9\nUdp6OutDatagrams\t100\nUdpLite6OutDatagrams\t1\n"


# --- where we are --------------------------------------------------------------------------


def test_the_eni_is_that_of_the_default_route() -> None:
    """On Fargate eth0 leads to the platform and eth1 is the ENI; the lowest metric wins."""
    assert default_route(ROUTES, "") == "eth1"
    assert prefixes(ROUTES, "eth1") == ("10.0.64.0/18",)
    other = ROUTES + "eth9\t00000000\t0140000A\t0003\t0\t0\t9\t00000000\t0\t0\t0\n"
    assert default_route(other, "") == "eth1"


def test_ipv6_alone_names_one_too() -> None:
    """The kernel's own "unreachable" default route, on lo, is none."""
    zero = "0" * 32
    rejected = f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
    route = f"{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003     ens5\n"
    assert default_route("", rejected) is None
    assert default_route("", rejected + route) == "ens5"


def test_no_eni_is_one_line(tmp_path: Path) -> None:
    """Without a default route, with a name that is not there, with two names."""
    for wanted in ((), ("nowhere0",), ("a", "b")):
        with pytest.raises(NeedError) as raised:
            find_interface(wanted, tmp_path)
        assert "\n" not in str(raised.value)


# --- UDP counters --------------------------------------------------------------------------


def test_udp_counters_of_both_families() -> None:
    """By the columns' names: kernels add some."""
    assert out_datagrams(SNMP) == 4714
    assert out_datagrams6(SNMP6) == 101


@pytest.mark.parametrize("text", ["", "Udp: OutDatagrams\n", "Udp: 1 2\nUdp: 1 2\n", "x\n\n"])
def test_no_udp_counters_is_not_zero(text: str) -> None:
    """What does not say is an error."""
    with pytest.raises(OSError, match="UDP"):
        out_datagrams(text)


def test_only_what_was_sent_since(tmp_path: Path) -> None:
    """Not what the namespace sent before; without IPv6 IPv4 alone; garbage is an error."""
    (tmp_path / "snmp").write_text(SNMP)
    counter = UdpCounter(tmp_path)
    assert counter.read() == []
    (tmp_path / "snmp").write_text(SNMP.replace("4711", "4811"))
    (heard,) = counter.read()
    assert (heard.packet_class, heard.protocol, heard.packets) == (UNCLASSIFIED, "udp", 100)
    (tmp_path / "snmp").write_text(SNMP.replace("4711", "many"))
    with pytest.raises(OSError, match="no number"):
        counter.read()


# --- task metadata -------------------------------------------------------------------------


def test_what_the_platform_says_of_a_task() -> None:
    """Cluster's name, family:revision/id, no container; subnet and name server."""
    said = described("ab12", "prod", "web", 7, vpc.task_eni(1))
    facts = metadata.facts(said)
    assert facts.workload == Workload("ecs_task", "prod", "web:7/ab12", "")
    assert facts.modes == {"awsvpc"}
    assert facts.prefixes == (vpc.SUBNET,)
    assert facts.nameservers == (vpc.RESOLVER,)


def test_hostile_metadata_is_refused_or_cut() -> None:
    """Wrong types, control characters, thousands of networks."""
    for wrong in (None, [], "x", {}, {"TaskARN": 1}, {"TaskARN": "arn:a/b/c", "Family": []}):
        with pytest.raises(ValueError):
            metadata.facts(wrong)
    network = {
        "NetworkMode": "awsvpc\x1b[2J",
        "IPv4SubnetCIDRBlock": "10.0.0.0/99",
        "DomainNameServers": ["not one", 7, "10.0.0.2"] * 1000,
    }
    said = {
        "TaskARN": "arn:aws:ecs:r:1:task/c/\x1b[31m" + "x" * 5000,
        "Containers": [7, {"Networks": "x"}, {"Networks": [None, network] * 1000}] * 1000,
    }
    facts = metadata.facts(said)
    assert "\x1b" not in facts.workload.workload + "".join(facts.modes)
    assert len(facts.workload.workload) <= 256
    assert (facts.prefixes, facts.nameservers) == ((), ("10.0.0.2",))


# --- the choice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attach", "uri", "held", "sidecar"),
    [
        ("auto", "", 0x0, False),  # a node without rights keeps its error
        ("auto", URI, 0xA80425FB, True),  # Docker's default
        ("auto", URI, 0x0, True),
        ("auto", URI, 0x1FFFFFFFFFF, False),  # the privileged daemon on EC2
        ("auto", URI, 1 << 39 | 1 << 38 | 1 << 12, False),
        ("auto", URI, 1 << 21 | 1 << 12, False),
        ("auto", URI, 1 << 21, True),
        ("packet", "", 0x1FFFFFFFFFF, True),
        ("udp", "", 0x0, True),
        ("tcx", URI, 0x0, False),
        ("clsact", URI, 0x0, False),
    ],
)
def test_who_counts(tmp_path: Path, attach: str, uri: str, held: int, *, sidecar: bool) -> None:
    """BPF where it may be; without it in a task, or when told to."""
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapEff:\t{held:016x}\n")
    config = load(None, {"ENI53_ATTACH": attach}, {})
    environ = {metadata.VARIABLE: uri} if uri else {}
    assert choice.wants_sidecar(config, environ, status) is sidecar


# --- the filter ----------------------------------------------------------------------------


def test_a_program_is_no_longer_than_the_kernel_takes() -> None:
    """With as many resolvers as may be configured; what it returns fits into every frame."""
    four, six = [f"10.0.0.{n}" for n in range(8)], [f"fd00::{n}" for n in range(8)]
    assert len(build([*four, *six])) // 8 < MAX_INSTRUCTIONS / 2
    assert MOST < 34


def test_a_jump_leads_forward_or_is_refused() -> None:
    """To a label that is not there, or behind."""
    for labelled in (False, True):
        program = Program()
        if labelled:
            program.label("here")
        program.when(JEQ, 1, "here")
        program.do(RET, 0)
        with pytest.raises(ValueError, match="here"):
            program.assemble()


# --- sums ----------------------------------------------------------------------------------


def pipeline(owner: OneTask, limit: int = 100) -> Pipeline:
    """Over one ENI."""
    config = load(None, {"ENI53_LIMIT_PPS": str(limit)}, {})
    made = Pipeline(config, owner, CgroupTree(None), 0)
    made.present = {2}
    made.add_eni(Eni("mac:02:00:00:00:00:01", "02:00:00:00:00:01", "eth1", "net:[1]", 2))
    return made


def tally(limit: int = 100) -> Tally:
    """With the usual levels."""
    return Tally(2, (0.7, 0.9), limit, "linklocal")


def test_unclassified_counts_on_either_basis() -> None:
    """And only that does, besides the resolver's own."""
    one, made = tally(), pipeline(OneTask())
    one.add([
        Heard(UNCLASSIFIED, "udp", 5, 10), Heard("resolver", "udp", 3, 10),
        Heard("imds", "tcp", 2, 10), Heard("dns_other", "udp", 1, 10),
    ])  # fmt: skip
    _, (eni,) = made.update(one.sample(11 * SLOT_NS, 11, {}), (), since_start=True, last=False)
    assert [(s.number, s.linklocal, s.dns) for s in eni.slots] == [(10, 10, 9)]
    assert eni.packets == 11 == sum(count.packets for count in eni.classes.values())
    (row,) = eni.workloads
    assert row.packets == 11
    assert row.share == 1.0


def test_a_packet_that_comes_late_is_in_the_next_slot() -> None:
    """The window has gone past its own: it is moved, not lost."""
    one, made = tally(), pipeline(OneTask())
    one.add([Heard("resolver", "udp", 4, 20)])
    made.update(one.sample(22 * SLOT_NS, 22, {}), (), since_start=False, last=False)
    one.add([Heard("resolver", "udp", 3, 21)])
    one.add([Heard("resolver", "udp", 2, 22)])
    _, (eni,) = made.update(one.sample(25 * SLOT_NS, 25, {}), (), since_start=False, last=False)
    assert [(s.number, s.linklocal) for s in eni.slots] == [(20, 4), (22, 5)]
    assert eni.window_pps["linklocal"] == 9


def test_no_packet_is_lost_however_it_comes() -> None:
    """Random slots, looks and lateness: the sum of all windows' slots is the sum of packets."""
    dice = random.Random(53)
    for _ in range(50):
        one, made, total, now = tally(10**6), pipeline(OneTask(), 10**6), 0, 100
        over: dict[int, int] = {}
        for _ in range(200):
            now += dice.randrange(3)
            batch = [Heard("resolver", "udp", dice.randrange(1, 9), now - dice.randrange(4))
                     for _ in range(dice.randrange(3))]  # fmt: skip
            total += sum(one_heard.packets for one_heard in batch)
            one.add(batch)
            if dice.random() < 0.4:
                sample = one.sample(now * SLOT_NS, now, {})
                _, (eni,) = made.update(sample, (), since_start=False, last=False)
                for slot in eni.slots:
                    assert over.setdefault(slot.number, slot.linklocal) == slot.linklocal
        sample = one.sample((now + 5) * SLOT_NS, now + 5, {})
        _, (eni,) = made.update(sample, (), since_start=False, last=True)
        assert eni.packets == total
        over |= {slot.number: slot.linklocal for slot in eni.slots}
        assert sum(over.values()) == total


def test_levels_are_told_once_a_second_each() -> None:
    """70, 90 and more than 100 of 100; what is older than a second does not count."""
    one = tally()
    assert one.crossed(50) == 0
    one.add([Heard("resolver", "udp", 69, 50)])
    assert one.crossed(50) == 0
    one.add([Heard("ntp", "udp", 1, 51)])
    assert one.crossed(51) == 70
    assert one.crossed(52) == 0
    one.add([Heard("dns_other", "udp", 500, 52)])
    assert one.crossed(52) == 0
    one.add([Heard("resolver", "udp", 30, 53)])
    assert one.crossed(53) == 100  # critical, not exceeded
    one.add([Heard("resolver", "udp", 1, 54)])
    assert one.crossed(54) == 101
    assert one.crossed(59) == 0
    one.add([Heard("resolver", "udp", 200, 64)])
    assert one.crossed(64) == 200


def test_old_slots_are_forgotten() -> None:
    """A ring's worth stays."""
    one = tally()
    for number in range(1000):
        one.add([Heard("resolver", "udp", 1, number)])
    sample = one.sample(1000 * SLOT_NS, 1000, {})
    slots = sample.enis[2, 0].slots
    assert (slots[0].number, slots[-1].number) == (937, 999)
    assert sum(sample.senders.values()) == 1000


def test_a_task_whose_name_comes_late() -> None:
    """Before, packets are the host name's; after, the task's; none changes hands."""
    owner, one = OneTask(), tally()
    made = pipeline(owner)
    one.add([Heard("resolver", "udp", 4, 10)])
    made.update(one.sample(11 * SLOT_NS, 11, {}), (), since_start=False, last=False)
    owner.learn(Workload("ecs_task", "prod", "web:7/ab"))
    one.add([Heard("resolver", "udp", 5, 12)])
    _, (eni,) = made.update(one.sample(13 * SLOT_NS, 13, {}), (), since_start=False, last=False)
    assert {row.workload.kind: row.packets for row in eni.workloads} == {
        "container": 4, "ecs_task": 5,
    }  # fmt: skip
    later = one.sample(13 * SLOT_NS + 301 * 10**9, 3023, {})
    _, (eni,) = made.update(later, (), since_start=False, last=False)
    assert [row.workload.kind for row in eni.workloads] == ["ecs_task"]
    assert eni.ended_packets == 4


def test_findings_of_the_sidecar() -> None:
    """The bound is said as long as it is one; packets nobody read only if there are any."""
    one = tally()
    quiet = one.sample(SLOT_NS, 1, {})
    assert [f.code for f in sidecar_findings("udp-counters", "mac:x", quiet)] == ["upper-bound"]
    assert list(sidecar_findings("packet", "mac:x", quiet)) == []
    one.add([Heard(UNCLASSIFIED, "other", 7, 1)])
    (found,) = sidecar_findings("packet", "mac:x", one.sample(SLOT_NS, 1, {}))
    assert (found.code, found.evidence) == ("packets-unread", {"packets": 7})


def test_it_needs_neither_bcc_nor_netlink() -> None:
    """An image without them will do, and their memory is not spent."""
    said = "import sys, eni53.daemon, eni53.sidecar.node; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "eni53" in loaded
    assert not loaded & {"bcc", "pyroute2", "h2", "rich", "textual"}
