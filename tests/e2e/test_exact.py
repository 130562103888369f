"""Counts against a counter that knows nothing of us, to the packet."""

from __future__ import annotations

import pytest

from tests.lab.agent import Agent, rows
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.tally import at_rest

MODES = ("tcx", "clsact")
RESOLVER = "10.53.0.2"
RESOLVER6 = "fd00:ec2::253"


def task(container: Container, family: str) -> tuple[str, str, str, str]:
    """The row of a container that `Lab.run_task` started."""
    return ("ecs_task", "prod", f"{family}:42/{container.task_id}", "app")


def nft(lab: Lab, before: dict[str, int], *names: str) -> int:
    """What the VPC's own counters have counted since *before*."""
    after = lab.counters()
    return sum(after[f"ens5_{name}"] - before[f"ens5_{name}"] for name in names)


def finish(*senders: object) -> list[int]:
    """Wait for senders; what each says it has sent."""
    return [parse_sent(sender.communicate()[0]).sent for sender in senders]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
def test_a_hundred_thousand_at_full_speed(lab: Lab, mode: str) -> None:
    """Two tasks and the host at once, UDP at full speed, IPv4 and IPv6: every packet counted once,
    on the right one, as an nftables counter in the VPC saw it.
    """
    one, two = lab.run_task("checkout"), lab.run_task("search")
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        before = lab.counters()
        sent = finish(
            one.start_send("udp", "--to", RESOLVER, "--count", "40009"),
            two.start_send("udp", "--to", RESOLVER6, "--count", "30011"),
            lab.start_send("udp", "--to", RESOLVER, "--count", "30013"),
        )
        assert sent == [40009, 30011, 30013]
        seen = nft(lab, before, "ip_udp_resolver", "ip6_udp_resolver")
        assert seen == sum(sent)
        # On a busy machine answers find their socket closed; to those the kernel sends ICMP errors.
        whole = nft(lab, before, "ip_linklocal", "ip6_linklocal")
        snapshot = agent.settled(packets=whole)

        assert snapshot["enis"][0]["classes"]["resolver"]["packets"] == seen
        assert snapshot["enis"][0]["packets"] == whole
        found = rows(snapshot)
        assert found[task(one, "checkout")] == 40009
        assert found[task(two, "search")] == 30011
        assert sum(found.values()) == whole
        host = sum(packets for (kind, *_), packets in found.items() if kind == "host")
        assert host == 30013 + whole - seen
        assert agent.total("eni53_eni_packets_total", **{"class": "resolver"}) == seen
        assert agent.total("eni53_workload_packets_total", **{"class": "resolver"}) == seen
        assert agent.total("eni53_workload_sent_packets_total") == 40009 + 30011
    one.remove()
    two.remove()


@pytest.mark.parametrize("mode", MODES)
def test_tcp_and_every_class(lab: Lab, mode: str) -> None:
    """TCP is counted packet by packet, and each service in its class, as nftables saw them."""
    one = lab.run_task("checkout")
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        before = lab.counters()
        imds_before = agent.total("eni53_eni_packets_total", **{"class": "imds"})
        imds_nft = lab.counters()["ens5_ip_imds"]
        one.send("tcp", "--to", RESOLVER, "--count", "53")
        lab.send("tcp", "--to", RESOLVER6, "--count", "29")
        one.send("udp", "--to", "10.53.9.9", "--count", "31")
        one.send("ntp", "--to", "169.254.169.123", "--count", "37")
        lab.send("udp", "--to", "169.254.169.250", "--port", "1688", "--count", "41")
        one.send("icmp", "--to", RESOLVER, "--count", "43")
        lab.send("imds", "--to", "169.254.169.254", "--count", "11")
        tcp = ("ip_tcp_resolver", "ip6_tcp_resolver", "ip_imds")
        at_rest(lambda: nft(lab, before, *tcp))  # the last ACK of a connection comes late
        expected = {
            ("resolver", "tcp"): nft(lab, before, "ip_tcp_resolver", "ip6_tcp_resolver"),
            ("dns_other", "udp"): 31,
            ("ntp", "udp"): 37,
            ("linklocal_other", "udp"): 41,
            ("linklocal_other", "icmp"): 43,
            ("imds", "tcp"): lab.counters()["ens5_ip_imds"] - imds_nft + imds_before,
        }
        agent.settled(packets=sum(int(n) for n in expected.values()))
        counted = {
            (its["class"], its["protocol"]): value
            for name, its, value in agent.metrics()
            if name == "eni53_eni_packets_total"
        }

        assert counted == expected
        assert expected["resolver", "tcp"] > 53 * 5
        assert agent.total("eni53_workload_packets_total") == sum(expected.values())
    one.remove()


@pytest.mark.parametrize("mode", MODES)
def test_first_packet_of_a_new_container(lab: Lab, mode: str) -> None:
    """A container whose first act is to ask is charged for that very packet, also when it has
    ended before anybody could look at it twice.
    """
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        before = lab.counters()
        started = []
        for _ in range(5):
            command = ["/usr/bin/python3", "-I", "/lab/send.py", "udp", "--to", RESOLVER]
            started.append(lab.run_task("batch", command=[*command, "--count", "23"]))
        for container in started:
            lab.docker("wait", container.id)
        assert nft(lab, before, "ip_udp_resolver") == 5 * 23
        found = rows(agent.settled(packets=5 * 23))

        assert found == {task(container, "batch"): 23 for container in started}
        assert agent.total("eni53_agent_tag_lost_packets_total") == 0
        for container in started:
            container.remove()


def test_embedded_resolver_of_a_user_defined_network(lab: Lab) -> None:
    """Docker's own resolver asks from the container's namespace with dockerd's cgroup; the task it
    asks for is charged.
    """
    lab.docker("network", "create", "shop")
    try:
        one = lab.run_task("checkout", network="shop")
        with Agent(lab) as agent:
            before = lab.counters()
            for number in range(17):
                script = "import socket,sys; socket.gethostbyname(sys.argv[1])"
                one.exec(["/usr/bin/python3", "-I", "-c", script, f"n{number}.lab.test"])
            seen = nft(lab, before, "ip_udp_resolver")
            assert seen >= 17
            found = rows(agent.settled(packets=seen))

            assert found == {task(one, "checkout"): seen}
        one.remove()
    finally:
        lab.docker("network", "rm", "shop")


def test_burst_of_300_ms_is_seen(lab: Lab) -> None:
    """700 packets within a moment are a window of 700, although the agent looks once a second."""
    one = lab.run_task("burst")
    with Agent(lab) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "700", "--rate", "2400")
        snapshot = agent.settled(packets=700)
        eni = snapshot["enis"][0]

        assert eni["packets"] == 700
        assert eni["peak_pps"] == 700
        assert eni["eni"] == lab.enis[0].eni_id
        assert eni["state"] == "ok"
    one.remove()
