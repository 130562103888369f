"""Sends an exact number of packets or requests and says how many: the lab's only traffic source.

Stands alone (standard library, one file), so that it runs in a container, a namespace or a task.
The last line on stdout is JSON: {"mode","sent","answered","failed","seconds"}. SIGTERM ends it
early, with that line.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import itertools
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

PORTS = {"udp": 53, "tcp": 53, "ntp": 123, "imds": 80, "icmp": 0}
QTYPES = {"A": 1, "AAAA": 28, "TXT": 16}
IP_RECVERR, IPV6_RECVERR = 11, 25
MAX_SOCKETS = 500
# The packet was not sent: a full queue, an earlier packet's error, an address not yet usable.
RETRY = {
    errno.ENOBUFS, errno.EAGAIN, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
}  # fmt: skip
RETRY_S = 5.0
LATE_S = 0.1
stopped = False


def dns_query(number: int, name: str, qtype: int = 1) -> bytes:
    """One query with recursion desired, class IN and no EDNS; *number* becomes the id."""
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("ascii").split(b"."))
    header = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!2H", qtype, 1)


def icmp_echo(number: int, identifier: int, *, ipv6: bool) -> bytes:
    """An echo request. The kernel fills in ICMPv6's checksum, ICMP's is made here."""
    kind = 128 if ipv6 else 8
    packet = struct.pack("!BBHHH", kind, 0, 0, identifier, number & 0xFFFF) + b"eni53lab"
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    check = 0 if ipv6 else ~(total + (total >> 16)) & 0xFFFF
    return packet[:2] + struct.pack("!H", check) + packet[4:]


def schedule(args: argparse.Namespace) -> Iterator[float]:
    """When each packet is due, in seconds from the start. Full speed: all are due at once."""
    if args.steps:
        begin = 0.0
        for step in args.steps.split(","):
            pps, seconds = (float(part) for part in step.split(":"))
            yield from (begin + i / pps for i in range(round(pps * seconds)))
            begin += seconds
    elif args.burst:
        yield from ((i // args.burst) * args.every for i in range(args.count))
    elif args.rate:
        yield from (i / args.rate for i in range(args.count))
    else:
        yield from itertools.repeat(0.0, args.count)


class Datagrams:
    """K sockets that send datagrams in turn and keep reading, so that no port closes early.

    An answer to a closed port makes an ICMP error, and that is one more packet to the resolver.
    """

    def __init__(self, args: argparse.Namespace, payload: Callable[[int], bytes]) -> None:
        family = socket.AF_INET6 if ":" in args.to else socket.AF_INET
        raw = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
        kind = (socket.SOCK_RAW, raw[family]) if args.mode == "icmp" else (socket.SOCK_DGRAM, 0)
        self.sockets = [socket.socket(family, *kind) for _ in range(args.sockets)]
        self.to = (args.to, args.port)
        self.payload = payload
        self.answered = 0
        self.poll = select.poll()
        self.by_fd = {sock.fileno(): sock for sock in self.sockets}
        # Without RECVERR the kernel drops at a full queue and reports success.
        option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in args.to else (0, IP_RECVERR)
        for sock in self.sockets:
            sock.setsockopt(*option, 1)
            sock.bind((args.source or ("::" if ":" in args.to else ""), 0))
            self.poll.register(sock, select.POLLIN)

    def send(self, number: int) -> bool:
        """Send packet *number*; False when it could not leave within RETRY_S seconds."""
        packet = self.payload(number)
        sock = self.sockets[number % len(self.sockets)]
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                sock.sendto(packet, self.to)
            except OSError as error:
                if error.errno not in RETRY or stopped or time.monotonic() > give_up:
                    return False
                time.sleep(0.001)
            else:
                return True

    def drain(self, seconds: float) -> None:
        """Read answers that are there; wait for the first of them up to *seconds*."""
        for fd, _ in self.poll.poll(seconds * 1000):
            for _ in range(1000):
                try:
                    data = self.by_fd[fd].recv(4096, socket.MSG_DONTWAIT)
                except OSError:
                    break
                self.answered += self.is_answer(data)

    def is_answer(self, data: bytes) -> bool:
        """Raw ICMP sockets hear our own requests and others' errors too."""
        if self.sockets[0].type != socket.SOCK_RAW:
            return True
        start = 20 if data[:1] and data[0] >> 4 == 4 else 0
        ours = data[start + 4 : start + 6] == struct.pack("!H", os.getpid() & 0xFFFF)
        return ours and data[start] in (0, 129)


def send_datagrams(args: argparse.Namespace, payload: Callable[[int], bytes]) -> dict[str, int]:
    """Send on schedule, then keep the sockets open until answered or settled."""
    out = Datagrams(args, payload)
    sent = failed = 0
    begin = time.monotonic()
    for number, due in enumerate(schedule(args)):
        while not stopped and (wait := begin + due - time.monotonic()) > 0:
            out.drain(min(wait, 0.1))
        if stopped:
            break
        if args.no_catch_up and time.monotonic() - begin - due > LATE_S:
            begin = time.monotonic() - due
        ok = out.send(number)
        sent, failed = sent + ok, failed + (not ok)
        if number < len(out.sockets):
            # A gap after each socket's first: its neighbour and NAT entry exist before the rush.
            end = time.monotonic() + (args.warm if number == 0 else 0)
            while not stopped and (wait := end - time.monotonic()) > 0:
                out.drain(wait)
        elif number % 64 == 0:
            out.drain(0)
    end = time.monotonic() + args.settle
    while out.answered < sent and (wait := end - time.monotonic()) > 0:
        before = out.answered
        out.drain(min(wait, 0.1))
        if out.answered > before:  # a resolver that is behind: one of its next would be too late
            end = time.monotonic() + args.settle
    return {"sent": sent, "answered": out.answered, "failed": failed}


def ask_tcp(args: argparse.Namespace, number: int) -> bool:
    """One DNS query over a connection of its own."""
    query = dns_query(number, args.name.replace("{n}", str(number)), QTYPES[args.type])
    source = (args.source, 0) if args.source else None
    with socket.create_connection((args.to, args.port), 5, source) as sock:
        sock.sendall(struct.pack("!H", len(query)) + query)
        with sock.makefile("rb") as answer:
            size = struct.unpack("!H", answer.read(2))[0]
            return answer.read(size)[:2] == query[:2]


def ask_imds(args: argparse.Namespace, token: list[str]) -> bool:
    """One metadata request over a connection of its own; the first fetches the token."""
    connection = http.client.HTTPConnection(args.to, args.port, timeout=5)
    try:
        if not token:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
            connection.request("PUT", "/latest/api/token", headers=ttl)
            token.append(connection.getresponse().read().decode())
        header = {"X-aws-ec2-metadata-token": token[0]}
        connection.request("GET", "/latest/" + args.path, headers=header)
        return connection.getresponse().status == 200
    finally:
        connection.close()


def send_requests(args: argparse.Namespace, ask: Callable[[int], bool]) -> dict[str, int]:
    """Ask on schedule, one request at a time."""
    sent = answered = failed = 0
    begin = time.monotonic()
    for number, due in enumerate(schedule(args)):
        while not stopped and (wait := begin + due - time.monotonic()) > 0:
            time.sleep(min(wait, 0.1))
        if stopped:
            break
        sent += 1
        try:
            answered += ask(number)
        except (OSError, struct.error, http.client.HTTPException):
            failed += 1
    return {"sent": sent, "answered": answered, "failed": failed}


def run(args: argparse.Namespace) -> dict[str, int]:
    """Send what *args* asks for."""
    if args.mode == "tcp":
        return send_requests(args, lambda number: ask_tcp(args, number))
    if args.mode == "imds":
        token: list[str] = []
        return send_requests(args, lambda _: ask_imds(args, token))
    if args.mode == "ntp":
        return send_datagrams(args, lambda _: b"\x23" + bytes(47))
    if args.mode == "icmp":
        ident, ipv6 = os.getpid() & 0xFFFF, ":" in args.to
        return send_datagrams(args, lambda number: icmp_echo(number, ident, ipv6=ipv6))
    qtype, repeat = QTYPES[args.type], args.repeat or sys.maxsize
    return send_datagrams(
        args,
        lambda number: dns_query(number, args.name.replace("{n}", str(number % repeat)), qtype),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    new = argparse.ArgumentParser(description=__doc__)
    new.add_argument("mode", choices=PORTS)
    new.add_argument("--to", required=True, help="address")
    new.add_argument("--port", type=int, help="default: the mode's")
    new.add_argument("--count", type=int, default=1)
    new.add_argument("--rate", type=float, help="packets per second; default: full speed")
    new.add_argument("--burst", type=int, help="this many at full speed, then wait")
    new.add_argument("--every", type=float, default=1.0, help="seconds from burst to burst")
    new.add_argument("--steps", help="PPS:SECONDS,... instead of --count")
    new.add_argument(
        "--no-catch-up", action="store_true",
        help="who stood still goes on at the same rate, and does not send what is overdue at once",
    )  # fmt: skip
    new.add_argument(
        "--sockets", type=int, choices=range(1, MAX_SOCKETS + 1), default=1, metavar="K"
    )
    new.add_argument("--name", default="q{n}.lab.test", help="{n} is the packet's number")
    new.add_argument("--repeat", type=int, metavar="K", help="udp: {n} begins again at 0 after K")
    new.add_argument("--type", choices=QTYPES, default="A")
    new.add_argument("--path", default="meta-data/instance-id", help="imds: below /latest/")
    new.add_argument("--source", help="local address, to choose an ENI")
    new.add_argument("--warm", type=float, default=0.05, help="seconds after the first packet")
    new.add_argument("--settle", type=float, help="seconds after the last answer; 1, waiting 2")
    new.add_argument("--wait-answers", action="store_true")
    new.add_argument("--strict", action="store_true", help="exit 1 unless all were answered")
    return new


def main(argv: list[str]) -> int:
    """Send, and print the report."""
    args = parser().parse_args(argv)
    args.port = PORTS[args.mode] if args.port is None else args.port
    if args.settle is None:
        args.settle = 2.0 if args.wait_answers else 1.0

    def stop(*_: object) -> None:
        global stopped  # noqa: PLW0603 - a signal handler has no other way to the loops
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    begin = time.monotonic()
    report = {"mode": args.mode, **run(args), "seconds": round(time.monotonic() - begin, 3)}
    print(json.dumps(report), flush=True)
    return int(args.strict and report["answered"] < report["sent"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
