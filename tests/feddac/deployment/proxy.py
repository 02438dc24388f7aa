"""The proxy that a deployment ships with, as a process in front of a federation's SuperLink.

Needs the program caddy (Debian: apt-get install caddy); a test that uses this is skipped where there is none.
"""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from feddac.deployment.processes import Process, free_ports
from tests.e2e.conftest import ROOT

CADDY = shutil.which("caddy")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="no caddy here, the proxy of deployments: apt-get install caddy")


def start_proxy(folder: Path, superlink: str, certificates: Path | None) -> tuple[Process, str]:
    """Start the shipped proxy before `superlink`; return it and the address for devices once it accepts connections."""
    assert CADDY is not None
    port = free_ports(1)[0]
    name = "Caddyfile.insecure" if certificates is None else "Caddyfile"
    keys = {} if certificates is None else {"KEYS": str(certificates), "SSL_CERT_FILE": str(certificates / "ca.crt")}
    environment = {**os.environ, **keys, "SUPERLINK": superlink, "PORT": str(port), "HOME": str(folder)}
    command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(ROOT / "deploy" / name)]
    process = Process("proxy", command, folder, environment)
    deadline = time.monotonic() + 30
    while True:
        assert process.exit_code is None, process.last_lines()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"127.0.0.1:{port}"
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
