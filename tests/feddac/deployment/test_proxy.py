"""Devices reach the device interface alone: a stranger and a registered device, against real proxy and SuperLink.

What the proxy refuses it answers itself, so besides the answers the SuperLink's own access log is asked what arrived.
"""

import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common.config import Config
from common.errors import FederationError
from feddac.cli.main import run
from feddac.deployment.bundle import app_bundle
from feddac.deployment.certificates import write_certificates
from feddac.deployment.control import Control
from feddac.deployment.processes import Process, flower_environment, program, stop
from tests.feddac.deployment.conftest import Deployment
from tests.feddac.deployment.proxy import needs_caddy, start_proxy

pytestmark = needs_caddy

OF_A_DEVICE = {
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages"),
    *("get-run", "get-fab", "push-object", "pull-object", "confirm-message-received"),
}
PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}
DETOURS = [
    "//v1/control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet%2f..%2fcontrol%2fstart-run",
    "/v1/fleet/..%5ccontrol/start-run",
    "/v1/fleet/pull-messages;/../../control/start-run",
    "/v1/control/start-run#/v1/fleet/pull-messages",
    "/v1/control/start-run%23/v1/fleet/pull-messages",
    "/v1/control/start-run?/v1/fleet/pull-messages",
    "/v1/control/start-run%00/v1/fleet/pull-messages",
    "/v1/%63ontrol/start-run",
    "/V1/CONTROL/START-RUN",
    "/v1/fleet/pull-messages%0a",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/PULL-MESSAGES",
    "https://127.0.0.1/v1/control/start-run",
    "*",
    "/",
]
HEADERS = [
    "X-Original-URL: /v1/control/start-run",
    "X-Rewrite-URL: /v1/control/start-run",
    "X-Forwarded-Prefix: /v1/control",
    "X-HTTP-Method-Override: POST",
    "Host: superlink",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
]


@dataclass
class Door:
    """A federation behind the proxy, and what a visitor is given: the address for devices and ca.crt."""

    deployment: Deployment
    proxy: Process
    address: str
    trusted: Path

    def context(self) -> ssl.SSLContext:
        """How a visitor speaks TLS."""
        return ssl.create_default_context(cafile=str(self.trusted))

    def visitors(self, stranger: Path) -> dict[str, ec.EllipticCurvePrivateKey]:
        """A key nobody has registered, and the one of the federation's first device."""
        keys = {"stranger": stranger, "registered": self.trusted.parent / "device-00"}
        result = {}
        for name, path in keys.items():
            key = serialization.load_ssh_private_key(path.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            result[name] = key
        return result

    def arrived(self, status: int | None = None) -> Counter[str]:
        """How often the SuperLink was asked for which path, by whomever; with `status` only what it answered so."""
        assert self.deployment.federation.superlink is not None
        log = self.deployment.federation.superlink.log.read_text(errors="replace")
        lines = re.findall(r'"[A-Z]+ (\S+) HTTP/[\d.]+"\D*(\d+)', re.sub(r"\x1b\[[0-9;]*m", "", log))
        return Counter(path for path, answer in lines if status in (None, int(answer)))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    tmp_path = tmp_path_factory.mktemp("door")
    deployment = Deployment(tmp_path, {"rounds": 1}, ["honest"], tls=True)
    federation = deployment.federation
    proxies: list[Process] = []
    first = federation.start_supernode

    def through_the_proxy(number: int) -> Process:
        assert federation.root_certificates is not None
        proxy, federation.device_address = start_proxy(
            tmp_path / "deployment", federation.address, federation.root_certificates.parent
        )
        proxies.append(proxy)
        return first(number)

    federation.start_supernode = through_the_proxy  # type: ignore[method-assign]
    try:
        federation.__enter__()
        federation.wait_until_connected()
        assert federation.root_certificates is not None
        yield Door(deployment, proxies[0], federation.device_address, federation.root_certificates)
    finally:
        stop(proxies)
        federation.__exit__()


def signed(key: ec.EllipticCurvePrivateKey, message: ActivateNodeRequest | RegisterNodeFleetRequest) -> dict[str, str]:
    """The headers with which a SuperNode of this key would send `message`."""
    request = httpx.Request("POST", "https://127.0.0.1/")
    context = ProtobufRequestContext("/flwr.proto.Fleet/ActivateNode", message, request)
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda one: httpx.Response(200))
    return {name: value for name, value in request.headers.items() if name.startswith("flwr")}


def all_paths(door: Door) -> dict[str, set[str]]:
    """Every path that the SuperLink serves, by its own description, with the methods."""
    federation = door.deployment.federation
    described = httpx.get(f"https://{federation.address}/openapi.json", verify=door.context()).json()["paths"]
    paths = {path: {method.upper() for method in methods} for path, methods in described.items()}
    return {**paths, "/docs": {"GET"}, "/openapi.json": {"GET"}, "/docs/oauth2-redirect": {"GET"}}


def ours(requests: Counter[str]) -> bool:
    """Whether all that arrived was a device's, or the runtime interface's from the federation's own server process."""
    device = {f"/v1/fleet/{one}" for one in OF_A_DEVICE}
    others = Counter({path: count for path, count in requests.items() if path not in device})
    assert set(others) <= {"/v1/runtime/acquire-task"}, others
    return True


def raw(door: Door, request: str) -> int:
    """The status of the answer to a request that no client library would send; 0 if there is no answer."""
    host, port = door.address.split(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        door.context().wrap_socket(plain, server_hostname=host) as connection,
    ):
        connection.sendall(request.encode("latin-1"))
        connection.settimeout(3)
        try:
            answer = connection.recv(4096).decode("latin-1")
        except TimeoutError:  # the request announced more than it sent
            return 0
    found = re.match(r"HTTP/1\.[01] (\d+)", answer)
    return int(found[1]) if found else 0


def test_a_stranger_and_a_registered_device_reach_no_path_that_is_not_a_devices(door: Door, tmp_path: Path) -> None:
    write_certificates(tmp_path / "other", [], ["stranger"])
    visitors = door.visitors(tmp_path / "other" / "stranger")
    paths = all_paths(door)
    kinds = {path.split("/")[2] for path in paths if path.startswith("/v1/")}
    assert kinds == {"control", "fleet", "runtime"}
    assert {f"/v1/fleet/{name}" for name in OF_A_DEVICE} < set(paths)
    forbidden = {path: methods for path, methods in paths.items() if path.removeprefix("/v1/fleet/") not in OF_A_DEVICE}
    assert len(forbidden) > 60
    before = door.arrived()
    with httpx.Client(verify=door.context(), base_url=f"https://{door.address}") as client:
        for name, key in visitors.items():
            message = RegisterNodeFleetRequest(public_key=b"anything")
            headers = {**PROTOBUF, **signed(key, message)}
            for path, methods in forbidden.items():
                for method in {"GET", "POST", "HEAD", "PUT", "OPTIONS", *methods}:
                    answer = client.request(method, path, content=message.SerializeToString(), headers=headers)
                    expected = 200 if path == "/health" else 404  # the proxy's own answer, to this machine alone
                    assert answer.status_code == expected, (name, method, path)
            for path in sorted(f"/v1/fleet/{one}" for one in OF_A_DEVICE):
                assert client.get(path, headers=headers).status_code == 404, (name, path)
    assert ours(door.arrived() - before)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_spelling_of_a_path_and_no_header_leads_elsewhere(door: Door, method: str) -> None:
    before = door.arrived()
    body = "\r\nContent-Type: application/protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    for target in DETOURS:
        assert raw(door, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1{body}") in (0, 400, 401, 404, 405), target
    for header in HEADERS:
        raw(door, f"{method} /v1/fleet/pull-messages HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}{body}")
        assert raw(door, f"{method} /v1/control/start-run HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}{body}") != 200, header
    smuggled = "POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    raw(
        door,
        "POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"0\r\n\r\n{smuggled}",
    )
    assert ours(door.arrived() - before)


def test_nobody_submits_or_registers_through_the_proxy_and_a_device_still_trains(
    door: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_certificates(tmp_path / "other", [], ["stranger"])
    stranger = tmp_path / "other" / "stranger.pub"
    bundle = app_bundle(Config.from_mapping({"out": str(tmp_path / "stolen")}))
    with Control(door.address, door.trusted) as control:
        for attempt in (
            lambda: control.start_run(bundle),
            lambda: control.register(stranger, "stranger"),
            lambda: control.nodes_online(),
            lambda: control.status(1),
            lambda: list(control.log(1)),
        ):
            with pytest.raises(FederationError, match="only the interface for devices is open here"):
                attempt()
    trust = ["--superlink", door.address, "--root-certificates", str(door.trusted)]
    assert run(["submit", *trust, "--devices", "1", "--out", str(tmp_path / "stolen")]) == 1
    assert run(["register", str(stranger), *trust]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 2
    assert all("on the SuperLink's own machine" in line for line in shown)
    assert not (tmp_path / "stolen").exists()
    # the same requests, past the proxy: what a deployment without it lets anybody do
    with Control(door.deployment.federation.address, door.trusted) as control:
        assert control.register(stranger, "stranger")
    door.deployment.start()
    assert door.deployment.finish().completed, door.deployment.log
    door.deployment.require_whole(rounds=1)


def test_who_lacks_the_secret_runs_no_server_app(door: Door, tmp_path: Path) -> None:
    folder = tmp_path / "rogue"
    folder.mkdir()
    command = [program("flower-superexec"), "--root-certificates", str(door.trusted)]
    command += ["--runtime-api-address", door.deployment.federation.address]
    rogue = Process("rogue", command, folder, flower_environment(folder / "flower"))
    try:
        rogue.wait(60)
    finally:
        stop([rogue])
    assert door.deployment.federation.server is not None
    assert door.deployment.federation.server.exit_code is None
    refused = door.arrived(status=401)
    assert refused["/v1/runtime/acquire-task"] == 1


def test_a_request_larger_than_any_piece_of_a_model_is_cut_off(door: Door) -> None:
    with httpx.Client(verify=door.context(), base_url=f"https://{door.address}") as client:
        small, large = (
            client.post("/v1/fleet/push-object", content=bytes(size), headers=PROTOBUF).status_code
            for size in (8 * 2**20, 20 * 10**6)
        )
    assert (small, large) == (400, 413)  # read and found to be no message; not read


class _Reader(BaseHTTPRequestHandler):
    """Stands for a SuperLink: reads whatever it is sent, and answers 200."""

    most = 0
    """Bytes of the largest request."""

    def do_POST(self) -> None:
        left, read = int(self.headers["Content-Length"]), 0
        while left and (piece := self.rfile.read(min(left, 2**16))):
            left, read = left - len(piece), read + len(piece)
        _Reader.most = max(_Reader.most, read)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def reader() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Reader)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_without_tls_every_request_is_cut_off_there(reader: str, tmp_path: Path) -> None:
    proxy, address = start_proxy(tmp_path, reader, None)
    try:
        for name in sorted(OF_A_DEVICE | {"register-node", "unregister-node"}):
            with httpx.Client(base_url=f"http://{address}") as client:
                small, large = (
                    client.post(f"/v1/fleet/{name}", content=bytes(size)).status_code for size in (10, 20 * 10**6)
                )
            assert small == 200, name
            assert large in (413, 502), name  # the limit, or that the SuperLink got less than was announced
        assert _Reader.most <= 16 * 10**6
    finally:
        stop([proxy])


def test_the_keys_may_lie_in_a_folder_with_a_space(tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    write_certificates(keys, [], [])
    proxy, address = start_proxy(tmp_path, "127.0.0.1:9", keys)
    try:
        context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        assert httpx.get(f"https://{address}/health", verify=context).status_code == 200
    finally:
        stop([proxy])
