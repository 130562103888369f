"""Events on the Node, against a small TLS server with a certificate authority of its own."""

import ssl
import subprocess
from dataclasses import replace

import pytest
from eni53.errors import NeedError, SourceError
from eni53.sinks.kube_event import KubernetesEvents, to_event

from tests.fixtures.alerts import alert
from tests.fixtures.hostile import hostile
from tests.fixtures.receiver import receiving


def openssl(*args, cwd):
    """Run the command."""
    subprocess.run(["openssl", *args], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A directory with ca.crt, and server.crt and server.key for 127.0.0.1."""
    there = tmp_path_factory.mktemp("ca")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        "2",
        "-subj",
        "/CN=throw-away",
        "-addext",
        "keyUsage=critical,keyCertSign",
        cwd=there,
    )
    openssl(
        "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=api", cwd=there
    )
    (there / "ext").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-out", "server.crt", "-extfile", "ext", cwd=there)  # fmt: skip
    return there


@pytest.fixture
def account(authority, tmp_path):
    """A service account's directory."""
    (tmp_path / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    (tmp_path / "token").write_text("first-token\n")
    return tmp_path


@pytest.fixture
def api(authority):
    """The server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    with receiving(context) as server:
        server.mood = 201
        yield server


def events(api, account):
    """As a pod finds it."""
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.server_port),
        "NODE_NAME": "ip-10-0-1-23.internal",
    }
    return KubernetesEvents(environ, account)


def test_an_event_on_the_node(api, account):
    """Where Events of a Node belong, in the name of the service account."""
    events(api, account).send((alert("critical", at_s=0.5),))
    ((path, headers, body),) = api.posts
    assert path == "/api/v1/namespaces/default/events"
    assert headers["Authorization"] == "Bearer first-token"
    name = body["metadata"].pop("name")
    message = body.pop("message")
    assert body == {
        "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "ip-10-0-1-23.internal",
                           "uid": "ip-10-0-1-23.internal"},
        "type": "Warning", "reason": "Eni53Critical", "count": 1,
        "source": {"component": "eni53", "host": "ip-10-0-1-23.internal"},
        "reportingComponent": "eni53", "reportingInstance": "ip-10-0-1-23.internal",
        "firstTimestamp": "2024-05-04T12:14:57Z", "lastTimestamp": "2024-05-04T12:14:57Z",
    }  # fmt: skip
    assert name.isascii()
    assert name.replace("-", "").isalnum()
    assert message.startswith("eni-1 (eth0): 1000 of 1024 packets a second")
    assert "checkout-api:42/9b1fd2c07a3e4c5db6a80c3a11f2e9d4 60%" in message


def test_the_same_event_twice_has_one_name(api, account):
    """Another attempt after a lost answer makes no second Event: 409 says that it is there."""
    api.moods = [409]
    events(api, account).send((alert(),))
    events(api, account).send((alert(),))
    events(api, account).send((alert("warning", "cleared", at_s=1),))
    first, second, third = (body["metadata"]["name"] for body in api.bodies)
    assert first == second != third
    assert [(body["type"], body["reason"]) for body in api.bodies[1:]] == [
        ("Warning", "Eni53Warning"), ("Normal", "Eni53WarningCleared"),
    ]  # fmt: skip


def test_a_token_that_was_replaced_is_read_again(api, account):
    """The kubelet does that while the pod runs."""
    receiver = events(api, account)
    receiver.send((alert(),))
    (account / "token").write_text("second-token")
    receiver.send((alert(),))
    assert [headers["Authorization"] for _, headers, _ in api.posts] == [
        "Bearer first-token", "Bearer second-token",
    ]  # fmt: skip


def test_another_authority_is_not_trusted(api, account, authority):
    """Nor is the token shown to it."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "other.key", "-out", "ca.crt", "-days", "2",
            "-subj", "/CN=other", cwd=account)  # fmt: skip
    with pytest.raises(SourceError, match=r"kubernetes_events at 127\.0\.0\.1: .*verif"):
        events(api, account).send((alert(),))
    assert api.posts == []


@pytest.mark.parametrize("status", [401, 403, 422, 500])
def test_a_refusal_is_one_line(api, account, status):
    """The status says which right is missing."""
    api.mood = status
    with pytest.raises(SourceError, match=f"kubernetes_events at 127.0.0.1: status {status}"):
        events(api, account).send((alert(),))


@pytest.mark.parametrize("text", [None, b"\xff\xfe", b"in\nside"])
def test_a_token_that_is_none_costs_one_attempt(api, account, text):
    """Gone, or not what a header can hold; and it is not shown."""
    receiver = events(api, account)
    if text is None:
        (account / "token").unlink()
    else:
        (account / "token").write_bytes(text)
    with pytest.raises(SourceError) as caught:
        receiver.send((alert(),))
    assert "side" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "word"),
    [("token", "token"), ("ca.crt", "ca.crt"), ("host", "KUBERNETES_SERVICE_HOST")],
)
def test_without_a_service_account_it_does_not_start(account, missing, word):
    """One line that names what is missing, and what to do."""
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    if missing == "host":
        environ = {}
    else:
        (account / missing).unlink()
    with pytest.raises(NeedError, match=r"kubernetesEvents\.enabled") as caught:
        KubernetesEvents(environ, account)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_ipv6_service_address(account):
    """A cluster of IPv6 alone."""
    receiver = KubernetesEvents({"KUBERNETES_SERVICE_HOST": "fd00::1"}, account)
    assert receiver._url == "https://[fd00::1]:443/api/v1/namespaces/default/events"


def test_hostile_names_are_cleaned_and_cut():
    """The server takes 1024 characters of message."""
    snapshot = hostile()
    (one,) = snapshot.enis
    many = replace(alert(), eni=one.eni, workloads=one.workloads * 3, node=snapshot.node)
    event = to_event(many, "node-1")
    assert len(event["message"]) <= 1024
    assert event["message"].isprintable()


def test_nobody_sends():
    """No workloads is no empty list of them."""
    event = to_event(replace(alert("warning", "cleared"), workloads=()), "node-1")
    assert event["message"].endswith("over for now; nobody")
