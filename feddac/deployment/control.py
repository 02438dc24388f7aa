"""What FedDAC asks of a SuperLink: register a key, list nodes, start a run, follow its log and its status.

Flower's own command line reports success when a run failed, so the status is asked for here. The client behind it is
not part of Flower's documented interface; `pyproject.toml` pins Flower for that reason.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from common.errors import ConfigurationError, FederationError
from common.reading import Unreadable, read_limited
from feddac.deployment.certificates import MAX_KEY_BYTES, certificate_of_server, expiry_warning, read_certificate

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DOOR = "only the interface for devices is open here"  # what deploy/fleet.caddy answers
_LEVEL = re.compile(r"^(INFO|WARNING|ERROR|DEBUG)\s*:\s*")


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands: pending, starting, running or finished, and if finished, how and why."""

    stage: str
    outcome: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.stage == "finished"

    @property
    def completed(self) -> bool:
        """Whether the run is finished and well."""
        return self.finished and self.outcome == "completed"

    def __str__(self) -> str:
        reason = " ".join(self.details.split()).removeprefix("ServerApp failed with exception: ")
        return f"the run {self.outcome or 'is ' + self.stage}" + (f": {reason}" if reason else "")


class Control:
    """A connection to the SuperLink at `address` ("host:port"); a context manager.

    With `root_certificates` (a PEM file) the connection is by TLS. Every method raises FederationError when the
    SuperLink cannot be reached or refuses.
    """

    def __init__(self, address: str, root_certificates: Path | None = None) -> None:
        self.address = address
        self._root_certificates = root_certificates
        if root_certificates is not None and not root_certificates.is_file():
            raise ConfigurationError(f"there is no file of root certificates at {root_certificates}")
        try:
            httpx.URL(f"https://{address}")
            self._client = ControlHttpClient.from_server_address(
                address,
                insecure=root_certificates is None,
                root_certificates=None if root_certificates is None else read_limited(root_certificates),
                interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            )
        except httpx.InvalidURL:
            raise ConfigurationError(
                f"there is no SuperLink at {address!r:.200}: give HOST:PORT, an IPv6 address as [::1]:8000"
            ) from None
        except (Unreadable, OSError, ValueError) as error:
            raise ConfigurationError(f"{root_certificates} does not hold certificates in PEM form: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def expiring(self) -> list[str]:
        """One line for each certificate of this connection that has expired, or soon will."""
        if self._root_certificates is None:
            return []
        shown = {
            str(self._root_certificates): read_certificate(self._root_certificates),
            f"the certificate of {self.address}": certificate_of_server(self.address),
        }
        lines = [expiry_warning(name, one) for name, one in shown.items() if one is not None]
        return [line for line in lines if line is not None]

    def register(self, public_key: Path, name: str) -> bool:
        """Allow the SuperNode that has the private half of this SSH public key; False if it was allowed before.

        FederationError for a key that was unregistered: Flower never takes it again.
        """
        wanted = _public_key(public_key)
        request = RegisterNodeRequest(public_key=wanted, name=name)
        try:
            with self._errors(f"register {public_key}"):
                self._client.RegisterNode(request)
        except FederationError as error:
            if "already" not in str(error).lower():
                raise
            if not self._registered(wanted):
                raise FederationError(f"{public_key} was unregistered, which is for good: make a new key") from None
            return False
        return True

    def unregister(self, public_key: Path) -> bool:
        """Shut the SuperNode out that has the private half of this key, for good; False if it was not let in."""
        wanted = _public_key(public_key)
        found = self._registered(wanted)
        with self._errors(f"unregister {public_key}"):
            for node_id in found:
                self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))
        return bool(found)

    def nodes_online(self) -> set[int]:
        """The node ids of the SuperNodes that are connected now."""
        with self._errors("list the SuperNodes"):
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {node.node_id for node in nodes if node.status == "online"}

    def start_run(self, bundle: bytes) -> int:
        """Start a run of this app bundle and return its id."""
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        with self._errors("start the run"):
            response = self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
        if not response.HasField("run_id"):
            raise FederationError(f"the SuperLink at {self.address} did not start the run")
        return int(response.run_id)

    def status(self, run_id: int) -> RunStatus:
        """Where the run stands."""
        with self._errors("tell the run's status"):
            runs = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict
        if run_id not in runs:
            raise FederationError(f"the SuperLink at {self.address} does not know run {run_id}")
        status = runs[run_id].status
        return RunStatus(status.status, status.sub_status, status.details)

    def traffic(self, run_id: int) -> tuple[int, int]:
        """Bytes that the SuperLink has sent and received for the run, by Flower's own count."""
        with self._errors("tell the run's traffic"):
            run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        return int(run.bytes_sent), int(run.bytes_recv)

    def log(self, run_id: int, after: float = 0.0) -> Iterator[tuple[float, list[str]]]:
        """The server app's log in pieces, each with the time to continue `after` should the connection break."""
        request = StreamLogsRequest(run_id=run_id, after_timestamp=after)
        with self._errors("stream the log"):
            for piece in self._client.StreamLogs(request):
                lines = [_plain(line) for line in piece.log_output.splitlines()]
                yield piece.latest_timestamp, [line for line in lines if line]

    def _registered(self, key: bytes) -> list[int]:
        """The node ids that this public key has."""
        with self._errors("list the SuperNodes"):
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [node.node_id for node in nodes if node.public_key == key and node.status != "unregistered"]

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            if error.response.text.strip() == _DOOR:
                raise FederationError(
                    f"cannot {what} through {self.address}: {_DOOR}; do it on the SuperLink's own machine and port"
                ) from None
            known = FlowerError.from_json(error.response.text)
            reason = " ".join(filter(None, [known.message, known.public_details])) if known else str(error)
            raise FederationError(f"the SuperLink at {self.address} did not {what}: {reason}") from None
        except (httpx.HTTPError, ValueError, OSError) as error:
            raise FederationError(f"cannot reach the SuperLink at {self.address}: {error}") from None


def _plain(line: str) -> str:
    """A log line without colours and without the level that most lines have."""
    return _LEVEL.sub(lambda level: "" if level[1] == "INFO" else f"{level[1].lower()}: ", _ANSI.sub("", line)).rstrip()


def _public_key(path: Path) -> bytes:
    try:
        key = serialization.load_ssh_public_key(read_limited(path, MAX_KEY_BYTES))
    except (Unreadable, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is not an SSH public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigurationError(f"{path} is not an elliptic-curve key; feddac certificates makes such keys")
    return public_key_to_bytes(key)
