"""`eni53 fleet` against a real HTTP server that answers as Prometheus does, or does not."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from eni53 import fleet, fleet_client
from eni53.cli import main
from eni53.errors import NeedError, UsageError
from eni53.fleet_client import Prometheus

NOW_S = 1_714_824_896.789
EVIL = "\x1b[2Jevil\u202e\nrm -rf"
BUILD, UP = "count(eni53_agent_build_info)", "count(up)"

Vector = list[tuple[dict[str, str], str]]


class Server(ThreadingHTTPServer):
    """Answers an expression by the first of `answers` that it contains; else with nothing.

    Attributes:
        raw: (status, body) that is sent instead of any answer.
        asked: (expression, time, path, Authorization) so far.
    """

    daemon_threads = True

    def __init__(self, answers: dict[str, Vector]) -> None:
        self.answers = answers
        self.raw: tuple[int, bytes] | None = None
        self.silent = threading.Event()
        self.asked: list[tuple[str, str | None, str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def of(self, expression: str) -> Vector:
        """The answer to *expression*."""
        return next((v for key, v in self.answers.items() if key in expression), [])


class Handler(BaseHTTPRequestHandler):
    """The one route."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        """Answer an instant query."""
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        expression = asked.get("query", [""])[0]
        at = asked.get("time", [None])[0]
        who = self.headers["Authorization"]
        self.server.asked.append((expression, at, parts.path, who))
        if self.server.silent.is_set():
            time.sleep(1)
            self.close_connection = True
            return
        result = [
            {"metric": labels, "value": [NOW_S, value]}
            for labels, value in self.server.of(expression)
        ]
        data = {"resultType": "vector", "result": result}
        status, body = self.server.raw or (
            200,
            json.dumps({"status": "success", "data": data}).encode(),
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def eni(node: str, name: str, **more: str) -> dict[str, str]:
    """Labels of an ENI's series."""
    return {
        "job": "eni53",
        "instance": node,
        "eni": name,
        "mac": "02:00",
        "interface": "ens5",
    } | more


def who(kind: str, namespace: str, workload: str, **more: str) -> dict[str, str]:
    """Labels of a workload's series."""
    return {"kind": kind, "namespace": namespace, "workload": workload} | more


BATCH = who("ecs_task", "prod", "batch:42/0123456789abcdef0123456789abcdef")
SSM = who("host", "", "ssm.service")
EVIL_POD = who("pod", EVIL, EVIL)


def answers() -> dict[str, Vector]:
    """Two ENIs and three workloads. Longer expressions contain shorter ones: order matters."""
    return {
        BUILD: [({}, "300")],
        "up{job": [({"instance": "n9"}, "0"), ({"instance": EVIL}, "0")],
        "count(workload:eni53": [({}, "9")],
        "eni53_eni_limit_pps": [(eni("n1", "eni-1"), "1024"), (eni("n2", EVIL), "512")],
        "increase(eni53_ena": [(eni("n1", "eni-1"), "17")],
        "topk by (job, instance, eni)": [
            (eni("n1", "eni-1") | BATCH, "700"),
            (eni("n2", EVIL) | EVIL_POD, "NaN"),
        ],
        "count by (kind": [(BATCH, "3"), (SSM, "200")],
        "topk by (kind": [(eni("n1", "eni-1") | BATCH, "700")],
        "topk(20, sum by (kind": [(SSM, "20.5"), (BATCH, "730"), (EVIL_POD, "3")],
        "topk(20, eni53_eni_utilization_ratio": [
            (eni("n2", EVIL), "0.5"),
            (eni("n1", "eni-1"), "1.25"),
        ],
        "eni:eni53_linklocal_packets": [(eni("n1", "eni-1"), "650.25"), (eni("n2", EVIL), "+Inf")],
    }


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with two ENIs."""
    server = Server(answers())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def as_json(url: str, limit: int = 20) -> dict[str, object]:
    """What `--json` prints."""
    out = io.StringIO()
    assert fleet.run(url, as_json=True, limit=limit, stream=out) == 0
    document: dict[str, object] = json.loads(out.getvalue())
    return document


def as_table(url: str) -> str:
    """What is printed into a pipe."""
    out = io.StringIO()
    assert fleet.run(url, as_json=False, limit=20, stream=out) == 0
    return out.getvalue()


def refused(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> str:
    """The one line of the command that ends with exit code 2."""
    assert main(["fleet", "--prometheus", url, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("eni53: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    return err


def test_json_has_what_prometheus_said(server: Server) -> None:
    """Hottest first; unknown is null; names are cleaned."""
    shown = "\\x1b[2Jevil\\u202e\\x0arm -rf"
    found = as_json(server.url)
    batch = {name: BATCH[name] for name in fleet.OWNER_LABELS}

    assert found == {
        "version": 1,
        "time": "2024-05-04T12:14:56.789+00:00",
        "agents": 300,
        "silent": {"count": 2, "nodes": [shown, "n9"]},
        "recorded": True,
        "enis": [
            {"job": "eni53", "node": "n1", "eni": "eni-1", "mac": "02:00", "interface": "ens5",
             "utilization": 1.25, "limit_pps": 1024.0, "peak_pps": 1280.0, "pps": 650.25,
             "drops_1h": 17.0, "busiest": {**batch, "pps": 700.0}},
            {"job": "eni53", "node": "n2", "eni": shown, "mac": "02:00", "interface": "ens5",
             "utilization": 0.5, "limit_pps": 512.0, "peak_pps": 256.0, "pps": None,
             "drops_1h": None, "busiest": None},
        ],
        "workloads": [
            {**batch, "pps": 730.0, "nodes": 3, "node": "n1", "eni": "eni-1"},
            {**SSM, "pps": 20.5, "nodes": 200, "node": None, "eni": None},
            {"kind": "pod", "namespace": shown, "workload": shown, "pps": 3.0, "nodes": None,
             "node": None, "eni": None},
        ],
    }  # fmt: skip


def test_table_is_whole_in_a_pipe_and_harmless(server: Server) -> None:
    """No escape sequence of a label reaches the terminal, no row is cut, no markup is obeyed."""
    server.answers["topk(20, sum by (kind"].append((who("pod", "[red]x", "[/bold]"), "2"))
    text = as_table(server.url)

    assert all(line.isprintable() for line in text.splitlines())
    assert "2 without an answer: \\x1b[2Jevil\\u202e\\x0arm -rf, n9" in text
    assert "[red]x/[/bold]" in text
    lines = [line.split() for line in text.splitlines()]
    hot = next(line for line in lines if "eni-1" in line)
    assert hot[:6] == ["125", "%", "1280", "1024", "650", "17"]
    assert hot[6:9] == ["eni-1", "n1", "prod/batch:42/…89abcdef"]
    cool = next(line for line in lines if line[:2] == ["50", "%"])
    assert cool[2:6] == ["256", "512", "–", "–"]  # noqa: RUF001 - unknown, as everywhere


def test_all_questions_are_put_at_one_moment(server: Server) -> None:
    """What is added up must be of the same second."""
    as_json(server.url)
    times = [at for expression, at, _, _ in server.asked if "topk" in expression]
    assert len(times) == 4
    assert set(times) == {f"{NOW_S:.3f}"}


def test_without_recording_rules_the_raw_series_are_asked(server: Server) -> None:
    """And the table says so."""
    server.answers["count(workload:eni53"] = []
    server.answers["sum by (job, instance, eni) (rate"] = [(eni("n1", "eni-1"), "649")]
    found = as_json(server.url)

    assert not found["recorded"]
    assert not any(":eni53_" in asked[0] for asked in server.asked if "topk" in asked[0])
    assert any("rate(eni53_workload_packets_total" in asked[0] for asked in server.asked)
    assert "rules.yml" in as_table(server.url)


def test_credentials_are_sent_and_never_shown(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Basic authentication from the URL, percent-decoded; no error repeats it."""
    with_password = server.url.replace("//", "//ann:s%40cret@") + "/prom/"
    as_json(with_password)
    _, _, path, said = server.asked[0]
    assert path == "/prom/api/v1/query"
    assert said is not None
    assert base64.b64decode(said.removeprefix("Basic ")) == b"ann:s@cret"
    server.raw = (401, b"no")
    line = refused(capsys, with_password)
    assert "401" in line
    assert "cret" not in line
    line = refused(capsys, "http://ann:s%40cret@127.0.0.1:99999")
    assert "cret" not in line


def test_a_quiet_fleet(server: Server) -> None:
    """Agents that have counted nothing: said in words."""
    for question in ("topk(20, sum by (kind", "topk(20, eni53_eni_utilization_ratio", "up{job"):
        server.answers[question] = []
    text = as_table(server.url)
    assert "300 agents" in text
    assert "No ENI has sent" in text
    assert "without an answer" not in text


# --- failures ---------------------------------------------------------------------------------


def test_nothing_of_eni53(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Three ways to have no numbers, told apart."""
    server.answers = {}
    assert "scrapes nothing yet" in refused(capsys, server.url)
    server.answers = {UP: [({}, "7")]}
    line = refused(capsys, server.url)
    assert "7 targets" in line
    assert "no numbers of eni53" in line
    server.answers = {"up{job": [({"instance": "n1"}, "0")]}
    assert "none of the 1 agents" in refused(capsys, server.url)


def test_server_down(capsys: pytest.CaptureFixture[str]) -> None:
    """The address, and why."""
    line = refused(capsys, "http://127.0.0.1:1", "--json")
    assert "http://127.0.0.1:1" in line
    assert "refused" in line


def success(result: object, kind: str = "vector") -> bytes:
    """A body with *result*."""
    return json.dumps(
        {"status": "success", "data": {"resultType": kind, "result": result}}
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>hello</html>", "not Prometheus"),
        (200, b"", "not Prometheus"),
        (200, b"[" * 100_000, "not Prometheus"),
        (200, b"[]", "not Prometheus"),
        (200, b'{"status":"success"}', "not Prometheus"),
        (200, success([], "matrix"), "not Prometheus"),
        (200, success({}), "not Prometheus"),
        (200, success(["x"]), "not Prometheus"),
        (200, success([{"metric": {}, "value": [1]}]), "not Prometheus"),
        (200, success([{"metric": [], "value": [1, "2"]}]), "not Prometheus"),
        (200, success([{"metric": {}, "value": [1, 2]}]), "not Prometheus"),
        (200, success([{"metric": {}, "value": [True, "2"]}]), "not Prometheus"),
        (200, success([{"metric": {}, "value": [1e300, "2"]}]), "not Prometheus"),
        (200, success([{"metric": {}, "value": [1, "two"]}]), "not Prometheus"),
        (404, b"404 page not found\n", "not Prometheus"),
        (302, b"", "leads to"),
        (403, b"", "status 403"),
        (422, json.dumps({"status": "error", "error": EVIL}).encode(), "refused the query"),
        (503, b'{"status":"error","error":"query timed out"}', "query timed out"),
        (200, b" " * (fleet_client.MAX_BODY_BYTES + 1), "more than"),
        (200, b"[" + b"[]," * 400_000 + b"[]]", "--limit"),
    ],
)
def test_whatever_answers(
    server: Server, capsys: pytest.CaptureFixture[str], status: int, body: bytes, words: str
) -> None:
    """Anything but a vector from Prometheus ends in one line."""
    server.raw = (status, body)
    assert words in refused(capsys, server.url)


def test_a_server_that_never_answers(server: Server) -> None:
    """Bounded in time."""
    server.silent.set()
    with (
        Prometheus(server.url, timeout_s=0.2) as prometheus,
        pytest.raises(NeedError, match=r"0\.2 s"),
    ):
        prometheus.query("up")


@pytest.mark.parametrize(
    "url",
    [
        "", "prometheus", "127.0.0.1:9090", "ftp://127.0.0.1", "http://", "http://127.0.0.1:x",
        "http://127.0.0.1:99999", "http://127.0.0.1/a b", "http://127.0.0.1\n", "http://\u00e9",
        "http://127.0.0.1/?query=up", "http://127.0.0.1/#x", "http://[::1", "http://a..b",
        "http://" + "a" * 64 + ".example",
    ],
)  # fmt: skip
def test_not_a_url(url: str) -> None:
    """Nothing is asked of what is no URL."""
    with pytest.raises(UsageError, match="--prometheus"):
        Prometheus(url)


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "1.5", "²", "9" * 30])
def test_limits(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    """A number from 1 to 500."""
    assert "1 to 500" in refused(capsys, "http://127.0.0.1:1", "--limit", limit)
