"""Over TLS with authentication, only a registered key gets in."""

import signal
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, verify_signature
from flwr.superlink.routers.fleet import node_auth
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from feddac.cli.main import run
from feddac.deployment import certificates
from feddac.deployment.certificates import write_certificates
from feddac.deployment.control import Control
from feddac.deployment.processes import Process, flower_environment, free_ports, program
from tests.feddac.deployment.conftest import Deployment


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two devices over TLS, one of which is shut out in the course of these tests."""
    started = Deployment(tmp_path_factory.mktemp("intruders"), {}, ["honest", "stolen"], tls=True)
    with started.federation:
        started.federation.wait_until_connected()
        yield started


@pytest.fixture
def intrude(tmp_path: Path) -> Callable[..., Process]:
    """Start a SuperNode with these arguments and wait until it gives up."""

    def start(address: str, *arguments: str) -> Process:
        folder = tmp_path / "intruder"
        process = Process(
            "intruder",
            [program("flower-supernode"), "--superlink", address, "--port", str(free_ports(1)[0]), *arguments],
            folder,
            flower_environment(folder / "flower"),
        )
        assert process.wait(60) != 0
        return process

    (tmp_path / "intruder").mkdir()
    return start


def test_unknown_keys_missing_keys_and_other_authorities_are_turned_away(
    deployment: Deployment, intrude: Callable[..., Process], tmp_path: Path
) -> None:
    federation = deployment.federation
    trusted = federation.root_certificates
    assert trusted is not None
    with Control(federation.address, trusted) as control:
        before = control.nodes_online()
    write_certificates(tmp_path / "other", [], ["stranger"])

    unknown_key = ["--auth-supernode-private-key", str(tmp_path / "other" / "stranger")]
    stranger = intrude(federation.address, "--root-certificates", str(trusted), *unknown_key)
    assert "Failed to activate" in stranger.log.read_text()

    anonymous = intrude(federation.address, "--root-certificates", str(trusted))
    assert "must be registered" in anonymous.log.read_text()

    own_key = ["--auth-supernode-private-key", str(trusted.parent / "device-00")]
    own_key += ["--max-retries", "1"]
    misled = intrude(federation.address, "--root-certificates", str(tmp_path / "other" / "ca.crt"), *own_key)
    assert "certificate" in misled.log.read_text().lower()

    with Control(federation.address, trusted) as control:
        assert control.nodes_online() == before != set()
    assert deployment.federation.supernodes["honest"].exit_code is None


def test_an_unregistered_device_is_shut_out_at_once_and_for_good(
    deployment: Deployment, intrude: Callable[..., Process], capsys: pytest.CaptureFixture[str]
) -> None:
    federation = deployment.federation
    trusted = federation.root_certificates
    assert trusted is not None
    key = trusted.parent / "device-01"
    to_superlink = ["--superlink", federation.address, "--root-certificates", str(trusted)]
    assert run(["unregister", f"{key}.pub", *to_superlink]) == 0
    assert run(["unregister", f"{key}.pub", *to_superlink]) == 0
    assert capsys.readouterr().out == "device-01 is unregistered\ndevice-01 is not registered\n"
    federation.supernodes["stolen"].wait(60)
    assert federation.supernodes["honest"].exit_code is None
    own_key = ["--auth-supernode-private-key", str(key)]
    again = intrude(federation.address, "--root-certificates", str(trusted), *own_key)
    assert "Failed to activate" in again.log.read_text()
    assert run(["register", f"{key}.pub", *to_superlink]) == 1
    assert "make a new key" in capsys.readouterr().err


def signed_headers(private: Any, public: Any) -> Mapping[str, str]:
    """The headers that a SuperNode with these keys puts into a request at this moment."""
    sent: list[Mapping[str, str]] = []
    interceptor: Any = NodeAuthHttpInterceptor(private, public)
    request = httpx.Request("POST", "http://x/", content=b"anything")
    interceptor.intercept(SimpleNamespace(request=request), lambda context: sent.append(context.request.headers))
    [headers] = sent
    return headers


def test_a_device_signs_the_time_and_nothing_else() -> None:
    """So that whoever saw a request's headers can send another body with them; docs/threat-model.md says so."""
    private, public = generate_key_pairs()
    headers = signed_headers(private, public)
    signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER])
    assert verify_signature(public, headers[TIMESTAMP_HEADER].encode(), signature)


@pytest.mark.parametrize(("ahead", "accepted"), [(4.9, True), (5, False), (-304.9, True), (-305, False)])
def test_a_devices_clock_may_be_five_seconds_fast_and_five_minutes_slow(
    ahead: float, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = generate_key_pairs()
    headers = signed_headers(private, public)
    here = datetime.fromisoformat(headers[TIMESTAMP_HEADER]) - timedelta(seconds=ahead)
    monkeypatch.setattr(node_auth, "now", lambda: here)
    asked = ActivateNodeRequest(public_key=public_key_to_bytes(public))
    request: Any = SimpleNamespace(headers=headers, state=SimpleNamespace(protobuf_request=asked))
    with nullcontext() if accepted else pytest.raises(HTTPException):
        node_auth.authenticate_node(request)


def test_who_registers_or_submits_is_warned_of_certificates_that_end(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = deployment.federation
    trusted = federation.root_certificates
    assert trusted is not None
    command = ["register", str(trusted.parent / "device-00.pub"), "--superlink", federation.address]
    assert run([*command, "--root-certificates", str(trusted)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(certificates, "EXPIRY_WARNING_DAYS", 400)
    assert run([*command, "--root-certificates", str(trusted)]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: the certificate of {federation.address} expires on ")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_crashed_supernode_with_a_key_is_back_after_a_minute_of_trying(deploy: Callable[..., Deployment]) -> None:
    federation = deploy(devices=["honest"], tls=True).federation
    first = federation.supernodes["honest"]
    first.signal(signal.SIGKILL)
    first.wait(10)
    began, refused = time.monotonic(), 0
    while True:  # what the loop in docs/deployment.md does
        again = federation.start_supernode(0)
        deadline = time.monotonic() + 20
        while again.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.2)
        if again.exit_code is None:
            break
        refused += 1
        assert time.monotonic() - began < 180
        time.sleep(5)
    assert refused >= 1
    assert "Failed to activate" in again.log.read_text()
    with Control(federation.address, federation.root_certificates) as control:
        assert len(control.nodes_online()) == 1
