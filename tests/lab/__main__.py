"""``python -m tests.lab up`` holds a lab up until Ctrl-C; ``sweep`` removes what dead ones left."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from . import remains
from .lab import Lab
from .shell import LabError
from .stopping import Terminated, held_back


def main(argv: list[str]) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="hold a lab up until Ctrl-C")
    up.add_argument("--enis", type=int, default=1)
    up.add_argument("--id", dest="lab_id", help="name of the lab; random by default")
    up.add_argument("--no-docker", action="store_true")
    up.add_argument("--docker-ipv6", action="store_true")
    up.add_argument("--pods", action="store_true", help="containerd with CRI, wired as on EKS")
    up.add_argument("--no-limit", action="store_true", help="drop nothing above 1024 pps")
    commands.add_parser("sweep", help="remove what labs with a dead owner left behind")
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("the lab makes network namespaces: run it as root", file=sys.stderr)
        return 2
    try:
        if args.command == "sweep":
            with held_back(), remains.locked():
                swept = remains.sweep()
            print("swept " + " ".join(swept) if swept else "nothing to sweep")
            return 0
        return hold(args)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


def hold(args: argparse.Namespace) -> int:
    """Keep a lab up until a signal ends it."""
    limit = None if args.no_limit else 1024
    with Lab(
        enis=args.enis,
        docker=not args.no_docker,
        docker_ipv6=args.docker_ipv6,
        pods=args.pods,
        limit_pps=limit,
        lab_id=args.lab_id,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    ) as lab:
        print(f"lab {lab.id} is up, Ctrl-C ends it")
        print(f"  enter the node  nsenter --net=/run/netns/{lab.node_ns} bash")
        print(f"  enter the vpc   nsenter --net=/run/netns/{lab.vpc_ns} bash")
        if not args.no_docker:
            print(f"  docker          export DOCKER_HOST=unix://{lab.docker_socket}")
            print(f"  eni53 there     .venv/bin/eni53 top --docker-socket {lab.docker_socket}")
        if args.pods:
            print(f"  containerd      ctr -a {lab.containerd_socket} -n k8s.io containers list")
        print(f"  logs            {lab.directory}", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
