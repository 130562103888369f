"""Settings: what may be set, from where, and the one line that says what is wrong."""

from pathlib import Path

import pytest
from eni53.config import Config, Listen, describe, load
from eni53.errors import UsageError


def write(tmp_path: Path, text: str | bytes) -> Path:
    """A configuration file."""
    path = tmp_path / "eni53.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path | None = None, environ=None, flags=None) -> str:
    """The one line that `load` fails with."""
    with pytest.raises(UsageError) as caught:
        load(path, environ or {}, flags or {})
    line = str(caught.value)
    assert line.isprintable()  # one line, and nothing a terminal would obey
    return line


def test_defaults_are_those_of_the_design():
    """With nothing set, the agent watches AWS's own limit and warns at seven tenths of it."""
    config = load(None, {"PATH": "/bin"}, {})
    assert config == Config()
    limit = config.limit
    assert (limit.pps, limit.basis, limit.per_eni) == (1024, "linklocal", {})
    alerts = config.alerts
    thresholds = (alerts.clear_below, alerts.warning, alerts.critical, alerts.clear_after)
    assert thresholds == (0.6, 0.7, 0.9, 5.0)
    assert (config.runtime.imds, config.metrics.max_workloads) == ("http://169.254.169.254", 200)
    assert (str(config.listen), config.runtime_dir) == ("127.0.0.1:9153", Path("/run/eni53"))
    assert (config.names.enabled, config.names.max, config.attach) == (True, 2000, "auto")


def test_every_setting_can_be_written_in_a_file(tmp_path):
    """Every key of the documentation is a key of the file, with the type it is documented with."""
    path = write(
        tmp_path,
        """
        [eni]
        interfaces = ["ens5", "ens6", "ens5"]
        [limit]
        pps = 500
        basis = "dns"
        per_eni = { "eni-0a" = 9, "mac:02:00:00:00:00:01" = 1_000_000 }
        [alerts]
        warning = 0.5
        critical = 1
        clear_below = 0.25
        clear_after = 0
        webhook = "https://hooks.example/x?y=1"
        alertmanager = "http://[::1]:9093"
        emf = true
        kubernetes_events = true
        [resolver]
        addresses = ["10.0.0.2", "FD00:EC2:0::253"]
        [runtime]
        docker_socket = "/a"
        containerd_socket = "/b"
        ecs_introspection = ""
        cni_introspection = ""
        imds = ""
        [metrics]
        max_workloads = 0
        [names]
        enabled = false
        max = 100000
        export = ["DB.Example.com.", "db.example.com", "_x.internal"]
        """,
    )
    config = load(path, {}, {})
    assert config.eni.interfaces == ("ens5", "ens6")
    assert dict(config.limit.per_eni) == {"eni-0a": 9, "mac:02:00:00:00:00:01": 1_000_000}
    assert (config.alerts.critical, config.alerts.clear_after) == (1.0, 0.0)
    assert (config.alerts.emf, config.alerts.kubernetes_events) == (True, True)
    assert config.resolver.addresses == ("10.0.0.2", "fd00:ec2::253")
    assert config.names.export == ("db.example.com", "_x.internal")
    assert (config.runtime.imds, config.names.enabled) == ("", False)
    named = path.read_text()
    assert [s.key for s in describe() if s.key.rpartition(".")[2] not in named] == [
        "listen", "runtime_dir", "attach"
    ]  # fmt: skip


@pytest.mark.parametrize("setting", describe(), ids=lambda setting: setting.key)
def test_the_table_tells_the_truth_about_each_setting(setting):
    """What `describe` calls the default is what `Config` has, passes its own rule, and has help."""
    value = Config()
    for part in setting.key.split("."):
        value = getattr(value, part)
    assert value == setting.default
    shown = str(value) if setting.key == "listen" else value
    assert setting.rule.take(dict(shown) if setting.kind == "table" else shown) == value
    assert setting.help
    assert setting.allowed
    assert setting.variable or setting.flag


def test_flags_win_over_environment_over_file(tmp_path):
    """The nearer to the person, the stronger; a flag that was not given changes nothing."""
    path = write(tmp_path, '[limit]\npps = 1\nbasis = "dns"\n[names]\nmax = 1\n')
    environ = {"ENI53_LIMIT_PPS": "2", "ENI53_NAMES_MAX": "2"}
    config = load(path, environ, {"limit.pps": 3, "names.max": None})
    assert (config.limit.pps, config.names.max, config.limit.basis) == (3, 2, "dns")


def test_environment_gives_lists_tables_and_switches():
    """Lists go by comma, tables as k=v by comma, switches as true, false, 1 or 0."""
    config = load(
        None,
        {
            "ENI53_ENI_INTERFACES": "ens5, ens6",
            "ENI53_LIMIT_PER_ENI": "eni-0a=9, mac:02:00:00:00:00:01=10",
            "ENI53_NAMES_ENABLED": "0",
            "ENI53_ALERTS_WARNING": "0.65",
            "ENI53_RESOLVER_ADDRESSES": "",
            "ENI53_ATTACH": "clsact",
        },
        {},
    )
    assert config.eni.interfaces == ("ens5", "ens6")
    assert dict(config.limit.per_eni) == {"eni-0a": 9, "mac:02:00:00:00:00:01": 10}
    assert (config.names.enabled, config.alerts.warning) == (False, 0.65)
    assert (config.resolver.addresses, config.attach) == ((), "clsact")


def test_flags_take_text_and_values():
    """The parser of flags may hand over text, lists or paths; all mean the same."""
    flags = {
        "eni.interfaces": ["a", "b"],
        "limit.pps": "7",
        "runtime_dir": Path("/tmp/x"),  # noqa: S108
        "listen": "[::1]:0",
        "runtime.docker_socket": Path("/d"),
    }
    config = load(None, {}, flags)
    assert (config.eni.interfaces, config.limit.pps) == (("a", "b"), 7)
    assert (config.runtime_dir, config.runtime.docker_socket) == (Path("/tmp/x"), "/d")  # noqa: S108
    assert config.listen == Listen("::1", 0)
    assert str(config.listen) == "[::1]:0"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LIMIT_PPS", "0"), ("LIMIT_PPS", "1000001"), ("LIMIT_PPS", "1_0"), ("LIMIT_PPS", "1e3"),
        ("LIMIT_PPS", ""), ("LIMIT_PPS", "9" * 5000), ("LIMIT_BASIS", "DNS"),
        ("LIMIT_PER_ENI", "eni-1"), ("LIMIT_PER_ENI", "eni-1=0"), ("LIMIT_PER_ENI", "ens5=10"),
        ("LIMIT_PER_ENI", "eni-1=1,eni-1=2"), ("LIMIT_PER_ENI", "eni-1=1,"),
        ("ALERTS_WARNING", "nan"), ("ALERTS_CRITICAL", "1.01"), ("ALERTS_CRITICAL", "inf"),
        ("ALERTS_CLEAR_BELOW", "0"), ("ALERTS_CLEAR_AFTER", "-1"), ("ALERTS_CLEAR_AFTER", "3601"),
        ("ALERTS_WEBHOOK", "hooks.example"), ("ALERTS_WEBHOOK", "ftp://x/"),
        ("ALERTS_WEBHOOK", "http://"), ("ALERTS_WEBHOOK", "http://x:99999/"),
        ("ALERTS_WEBHOOK", "http://x/a b"), ("ALERTS_WEBHOOK", "http://x/\r\nX: y"),
        ("ALERTS_ALERTMANAGER", "http://[::1"), ("RUNTIME_IMDS", "169.254.169.254"),
        ("RUNTIME_IMDS", "http://metadata.example/"), ("RUNTIME_IMDS", "https://127.0.0.1/"),
        ("RUNTIME_ECS_INTROSPECTION", "http://localhost:51678"),
        ("RUNTIME_CNI_INTROSPECTION", "http://[fe80::1%25eth0]/"),
        ("NAMES_EXPORT", "a..b"), ("NAMES_EXPORT", "a b"), ("NAMES_EXPORT", "x" * 64),
        ("NAMES_EXPORT", ",".join(f"n{n}" for n in range(51))), ("NAMES_EXPORT", "."),
        ("RESOLVER_ADDRESSES", "10.0.0"), ("RESOLVER_ADDRESSES", "fe80::1%eth0"),
        ("RESOLVER_ADDRESSES", ",".join(f"10.0.0.{n}" for n in range(7))),
        ("RESOLVER_ADDRESSES", ",".join(f"::{n}" for n in range(7))),
        ("ENI_INTERFACES", "a/b"), ("ENI_INTERFACES", "ens5,,ens6"), ("ENI_INTERFACES", "a b"),
        ("RUNTIME_DOCKER_SOCKET", "docker.sock"), ("RUNTIME_DOCKER_SOCKET", "unix:///x"),
        ("RUNTIME_CONTAINERD_SOCKET", "/" + "x" * 107), ("METRICS_MAX_WORKLOADS", "100001"),
        ("NAMES_ENABLED", "yes"), ("NAMES_MAX", "-1"), ("ATTACH", "xdp"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(variable, text):
    """The line names the variable, the key, the value and what is allowed."""
    line = refusal(environ={f"ENI53_{variable}": text})
    setting = next(s for s in describe() if s.variable == f"ENI53_{variable}")
    assert line.startswith(f"variable ENI53_{variable}: {setting.key} = '")
    assert line.endswith(f": must be {setting.allowed}")
    assert len(line) < 300


@pytest.mark.parametrize(
    "line",
    [
        "limit.pps = true", "limit.pps = 10.0", 'limit.pps = "10"', "limit.pps = []",
        "alerts.warning = true", "names.enabled = 1", "limit.basis = 1", "limit.per_eni = []",
        'limit.per_eni = {"eni-1" = true}', 'eni.interfaces = "ens5"', "eni.interfaces = [1]",
        "eni.interfaces = [[]]", "resolver.addresses = [167772162]", "limit.basis = 1979-05-27",
        "alerts.webhook = {}", f"limit.pps = 0x{'f' * 5000}", f"alerts.warning = 0x{'f' * 5000}",
    ],
)  # fmt: skip
def test_a_wrong_type_in_the_file_is_refused(tmp_path, line):
    """TOML has types, and no value is bent into another one."""
    path = write(tmp_path, line)
    assert refusal(path).startswith(f"{path}: {line.split()[0]} = ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\npps=1", "unknown section [limits]: did you mean limit?"),
        ("[limit]\npsp=1", "unknown key limit.psp: did you mean limit.pps?"),
        ("[alerts]\npps=1", "unknown key alerts.pps: did you mean limit.pps?"),
        ("limit = 5", "limit = 5: must be a section, as in [limit]"),
        ('listen = "127.0.0.1:1"', "listen cannot be set in a file: use --listen"),
        ('attach = "tcx"', "attach cannot be set in a file: use the variable ENI53_ATTACH"),
        ('"a\\u001b[2J" = 1', "unknown section [a\\x1b[2J]: known are eni, limit, alerts, "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path, text, says):
    """A misspelt key never passes for a default."""
    path = write(tmp_path, text)
    assert refusal(path).startswith(f"{path}: {says}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ENI53_LIMIT_PSP", "unknown variable ENI53_LIMIT_PSP: did you mean ENI53_LIMIT_PPS?"),
        ("ENI53_ALERT_WARNING", "unknown variable ENI53_ALERT_WARNING: did you mean ENI53_ALERTS"),
        ("ENI53_ATACH", "unknown variable ENI53_ATACH: did you mean ENI53_ATTACH?"),
        ("ENI53_LISTEN", "variable ENI53_LISTEN: not read from the environment: use --listen"),
        ("ENI53_RUNTIME_DIR", "variable ENI53_RUNTIME_DIR: not read from the environment: use --r"),
    ],
)
def test_a_misspelt_variable_is_refused(name, says):
    """A variable that looks like a setting and is none is a mistake, not somebody else's."""
    assert refusal(environ={name: "1"}).startswith(says)


@pytest.mark.parametrize(
    "name",
    [
        "ENI53_METRICS_PORT", "ENI53_METRICS_SERVICE_HOST", "ENI53_METRICS_SERVICE_PORT_HTTP",
        "ENI53_METRICS_PORT_9153_TCP_ADDR", "ENI53_PORT_9153_TCP", "ENI53_SERVICE_HOST",
        "ENI53_LAB_ROOT", "ENI5", "eni53_limit_psp",
    ],
)  # fmt: skip
def test_other_peoples_variables_are_left_alone(name):
    """Kubernetes describes a Service named eni53-metrics in ENI53_METRICS_…: no reason to die."""
    assert load(None, {name: "tcp://10.0.0.1:9153"}, {}) == Config()


def test_an_unknown_flag_key_is_refused():
    """Flags use the same keys, and ENI53_ATTACH stays a variable."""
    assert refusal(flags={"limit.pp": 1}) == "flag: unknown key limit.pp: did you mean limit.pps?"
    assert refusal(flags={"attach": "tcx"}).startswith("flag: unknown key attach")


def test_a_wrong_flag_is_named_as_it_is_typed():
    """The line says --docker-socket, not the key behind it alone."""
    line = refusal(flags={"runtime.docker_socket": "x"})
    assert line.startswith("flag --docker-socket: runtime.docker_socket = 'x': must be an absolute")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:0", Listen("0.0.0.0", 0)),
        ("[::1]:9153", Listen("::1", 9153)),
        ("[0:0::1]:1", Listen("::1", 1)),
        ("127.0.0.1:65535", Listen("127.0.0.1", 65535)),
    ],
)
def test_listen_takes_addresses_and_ports(text, expected):
    """IPv6 goes in brackets; port 0 means any free one."""
    assert load(None, {}, {"listen": text}).listen == expected


@pytest.mark.parametrize(
    "text",
    ["", "9153", ":9153", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:9153", "[::1]",
     "[127.0.0.1]:1", "localhost:1", "1.2.3:4", "1.2.3.4:٣", "127.0.0.1:-1", "127.0.0.1:1\n"],
)  # fmt: skip
def test_listen_refuses_the_rest(text):
    """Nothing is guessed: a name would need the resolver that is being watched."""
    assert refusal(flags={"listen": text}).startswith("flag --listen: listen = '")


@pytest.mark.parametrize(
    "text", ["warning = 0.95", "warning = 0.6", "critical = 0.7", "clear_below = 0.8"]
)
def test_thresholds_must_rise(tmp_path, text):
    """Raised high and cleared lower; the line shows all three and where each came from."""
    path = write(tmp_path, f"[alerts]\n{text}\n")
    line = refusal(path)
    assert f"alerts.{text} ({path})" in line
    assert "(default)" in line
    assert line.endswith(": must be 0 < clear_below < warning < critical <= 1")


def test_a_wrong_value_is_an_error_even_where_a_flag_hides_it(tmp_path):
    """The file must be right by itself, or it fails the day the flag goes."""
    path = write(tmp_path, "[limit]\npps = 0\n")
    line = refusal(path, {"ENI53_LIMIT_PPS": "5"}, {"limit.pps": 5})
    assert line.startswith(f"{path}: limit.pps = 0: must be ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limit]\npps = \n", "line 2, column 7"),
        ("[limit]\npps = 1\npps = 2\n", "line 3, column 8"),
        ("[limit]\npps = [1,\n", "line 3, column 1"),
        ("[limit]\na = 1\n[limit]\n", "line 3, column"),
        (b"[limit]\n# \xff\n", "not UTF-8: byte 10, line 2"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("#" * (1 << 20) + "#", "larger than 1048576 bytes"),
    ],
    ids=["no value", "twice", "open end", "section twice", "latin-1", "deep", "large"],
)
def test_a_broken_file_says_where(tmp_path, text, says):
    """Line and column, in one line, whatever the file holds."""
    path = write(tmp_path, text)
    line = refusal(path)
    assert line.startswith(f"{path}: ")
    assert says in line


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    """Editors on Windows write one."""
    assert load(write(tmp_path, b"\xef\xbb\xbf[limit]\npps = 5\n"), {}, {}).limit.pps == 5


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    """Absent, a directory, an impossible name: one line each, no traceback."""
    absent = tmp_path / "absent\n.toml"
    assert refusal(absent).endswith("cannot read the configuration file: No such file or directory")
    assert refusal(tmp_path).endswith("cannot read the configuration file: Is a directory")
    assert "null byte" in refusal(Path("a\0b"))
