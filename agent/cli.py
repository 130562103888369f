"""The `eni53` command: flags in, one command run, an exit code out.

Whatever goes wrong ends in one line on stderr that says what, why and what to do. Commands import
what they need when they run: the agent must not pay for the terminal's libraries.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .config import Config, load
from .errors import Eni53Error, UsageError
from .text import clean

DEFAULT_CONFIG = Path("/etc/eni53/eni53.toml")
MAX_SECONDS = 3600.0
MAX_RECORDED_S = 600.0
MAX_FLEET_ROWS = 500
SORT_KEYS = ("pps", "share", "packets", "name", "kind")


class _Parser(argparse.ArgumentParser):
    """argparse, but in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{clean(message, 400)}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="eni53",
        description="Counts the packets that every container sends to the VPC's DNS resolver and"
        " the other link-local services, per network interface, and warns before 1024 a second.",
    )
    parser.add_argument("--version", action="version", version=f"eni53 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    agent = commands.add_parser("agent", help="count until stopped; serve metrics")
    _common(agent)
    agent.add_argument(
        "--eni", action="append", metavar="IFACE", help="count on this interface; may be repeated"
    )
    agent.add_argument("--listen", metavar="ADDR:PORT", help="default 127.0.0.1:9153")
    top = commands.add_parser("top", help="who sends how much, now")
    _common(top)
    top.add_argument(
        "--eni", action="append", metavar="IFACE", help="show only this interface; may be repeated"
    )
    top.add_argument("--once", action="store_true", help="print once and end")
    top.add_argument(
        "--seconds",
        type=_seconds,
        default=5.0,
        metavar="N",
        help="seconds to count when no agent runs (default 5)",
    )
    top.add_argument("--json", action="store_true", help="print once, as JSON")
    top.add_argument("--sort", choices=SORT_KEYS, default="pps", help="order of workloads")
    top.add_argument("--filter", default="", metavar="TEXT", help="only workloads with TEXT")
    top.add_argument("--replay", type=Path, metavar="FILE", help="play a recording")
    record = commands.add_parser("record", help="record every ENI at a tenth of a second")
    _common(record)
    record.add_argument(
        "--eni", action="append", metavar="IFACE", help="only this interface; may be repeated"
    )
    record.add_argument(
        "--seconds",
        type=_recorded,
        default=60.0,
        metavar="N",
        help="seconds to record (default 60)",
    )
    record.add_argument(
        "--no-names", action="store_true", help="numbers in the place of names and addresses"
    )
    record.add_argument(
        "--from", type=Path, dest="source", metavar="OLD", help="copy a recording, make none"
    )
    record.add_argument("file", type=Path, metavar="FILE", help="written; must not be there yet")
    doctor = commands.add_parser("doctor", help="why the load is there, and what would help")
    _common(doctor)
    doctor.add_argument(
        "--eni", action="append", metavar="IFACE", help="only this interface; may be repeated"
    )
    doctor.add_argument(
        "--seconds", type=_seconds, default=5.0, metavar="N", help="seconds to look (default 5)"
    )
    doctor.add_argument("--json", action="store_true", help="print as JSON")
    doctor.add_argument("--fail", action="store_true", help="exit 1 on a warning or worse")
    check = commands.add_parser("check", help="can this node run it, and how is it wired?")
    _common(check)
    check.add_argument("--json", action="store_true", help="print as JSON")
    fleet = commands.add_parser("fleet", help="the hottest ENIs and workloads over all nodes")
    fleet.add_argument(
        "--prometheus", required=True, metavar="URL", help="the server that scrapes the agents"
    )
    fleet.add_argument("--json", action="store_true", help="print as JSON")
    fleet.add_argument(
        "--limit", type=_limit, default=20, metavar="N", help="how many of each (default 20)"
    )
    remedy = commands.add_parser(
        "remedy", help="a local cache fitted to this node; none: list them"
    )
    _common(remedy)
    remedy.add_argument("name", nargs="?", metavar="NAME", help="which; without it, the list")
    remedy.add_argument("--resolver", metavar="ADDR", help="the VPC's resolver (VPC+2)")
    remedy.add_argument("--gateway", metavar="ADDR", help="the Docker bridge's own address")
    remedy.add_argument("--cluster-ip", metavar="ADDR", help="of the service kube-dns")
    remedy.add_argument("--cluster-domain", metavar="NAME", help="default: the kubelet's")
    remedy.add_argument("--ipvs", action="store_true", help="kube-proxy is in IPVS mode")
    remedy.add_argument("--image", metavar="IMAGE", help="what the cache's container runs")
    remedy.add_argument(
        "--no-fallback", action="store_true", help="no second name server: for musl (Alpine)"
    )
    remedy.add_argument(
        "--output", default="-", metavar="DIR", help="write files there (default -: print)"
    )
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default {DEFAULT_CONFIG}")
    parser.add_argument("--runtime-dir", metavar="DIR", help="default /run/eni53")
    parser.add_argument("--docker-socket", metavar="PATH", help="default: the usual place")
    parser.add_argument(
        "--containerd-socket",
        metavar="PATH",
        help="default: the usual places",
    )


def _seconds(text: str, least: float = 0.1, most: float = MAX_SECONDS) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not least <= seconds <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
    return seconds


def _recorded(text: str) -> float:
    return _seconds(text, 1.0, MAX_RECORDED_S)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_FLEET_ROWS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_FLEET_ROWS}")
    return int(text)


def _config(arguments: argparse.Namespace) -> Config:
    path = arguments.config
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    flags = {
        "runtime_dir": arguments.runtime_dir,
        "runtime.docker_socket": arguments.docker_socket,
        "runtime.containerd_socket": arguments.containerd_socket,
        "eni.interfaces": getattr(arguments, "eni", None),
        "listen": getattr(arguments, "listen", None),
    }
    given = {key: value for key, value in flags.items() if value is not None}
    return load(path, os.environ, given)


def _agent(config: Config) -> int:
    from contextlib import nullcontext  # noqa: PLC0415

    from .kernel.child import CompilerChild  # noqa: PLC0415
    from .sidecar.choice import wants_sidecar  # noqa: PLC0415

    sidecar = wants_sidecar(config, os.environ)
    # The compiler before the imports, which take half as long as it does.
    with nullcontext() if sidecar else CompilerChild() as child:
        import asyncio  # noqa: PLC0415

        from . import log  # noqa: PLC0415
        from .daemon import Daemon  # noqa: PLC0415

        log.setup()
        asyncio.run(Daemon(config, child).run())
    return 0


def _top(config: Config, arguments: argparse.Namespace) -> int:
    from .top.command import TopOptions, run  # noqa: PLC0415

    return run(
        config,
        TopOptions(
            once=arguments.once or arguments.json,
            as_json=arguments.json,
            seconds=arguments.seconds,
            sort=arguments.sort,
            filter=arguments.filter,
            replay=arguments.replay,
            replayed=tuple(arguments.eni or ()),
        ),
    )


def _record(config: Config, arguments: argparse.Namespace) -> int:
    from .record import RecordOptions, run  # noqa: PLC0415

    if arguments.source is not None and arguments.eni:
        raise UsageError("--eni narrows a new recording: it cannot be given with --from")
    return run(
        config,
        RecordOptions(
            path=arguments.file,
            seconds=arguments.seconds,
            names=not arguments.no_names,
            source=arguments.source,
        ),
    )


def _doctor(config: Config, arguments: argparse.Namespace) -> int:
    from .doctor import run  # noqa: PLC0415

    return run(config, seconds=arguments.seconds, as_json=arguments.json, fail=arguments.fail)


def _check(config: Config, arguments: argparse.Namespace) -> int:
    from .check import run  # noqa: PLC0415

    return run(config, as_json=arguments.json)


def _remedy(config: Config, arguments: argparse.Namespace) -> int:
    from .remedy import run  # noqa: PLC0415
    from .remedy_values import Given  # noqa: PLC0415

    given = Given(
        resolver=arguments.resolver,
        gateway=arguments.gateway,
        cluster_ip=arguments.cluster_ip,
        cluster_domain=arguments.cluster_domain,
        image=arguments.image,
        ipvs=arguments.ipvs,
        fallback=not arguments.no_fallback,
    )
    return run(config, arguments.name, given, arguments.output)


def _fleet(arguments: argparse.Namespace) -> int:
    from .fleet import run  # noqa: PLC0415

    return run(
        arguments.prometheus, as_json=arguments.json, limit=arguments.limit, stream=sys.stdout
    )


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.command == "fleet":
        return _fleet(arguments)  # asks no node: what is configured here does not matter
    config = _config(arguments)
    if arguments.command == "agent":
        return _agent(config)
    if arguments.command == "top":
        return _top(config, arguments)
    if arguments.command == "doctor":
        return _doctor(config, arguments)
    if arguments.command == "record":
        return _record(config, arguments)
    if arguments.command == "remedy":
        return _remedy(config, arguments)
    return _check(config, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a locale that is not UTF-8: what it has no letter for ends no command.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:  # it may be closed
                sys.stdout.flush()  # here, where what cannot be written ends in one line
    except Eni53Error as error:
        print(f"eni53: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; do not complain again at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if sys.stdout is not None:  # nor complain of what is still in its buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"eni53: cannot go on: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
