"""Start every service of a compose file as a process of this machine; started by test_compose.py in namespaces.

    python compose_local.py SPECIFICATION.json

The specification holds per service `command`, `environment`, `folder`, `address`, `healthcheck` and `depends_on`.
Every service has a loopback address of its own, and its name in /etc/hosts, which only this mount namespace sees. When
the service `run` has ended, `result.json` beside the specification tells its exit code, and which health checks hold.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 240.0
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def main() -> None:
    """Start services in the order of their dependencies, wait for `run`, check health, and stop."""
    specification = Path(sys.argv[1])
    services: dict[str, dict[str, Any]] = json.loads(specification.read_text())
    bring_loopback_up()
    hosts = specification.with_name("hosts")
    hosts.write_text("".join(f"{one['address']} {name}\n" for name, one in services.items()) + "127.0.0.1 localhost\n")
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    started: dict[str, subprocess.Popen[bytes]] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "run" not in started or started["run"].poll() is None:
        if time.monotonic() > deadline:
            break
        for name, service in services.items():
            if name not in started and all(
                met(one, condition["condition"], services, started) for one, condition in service["depends_on"].items()
            ):
                started[name] = start(name, service)
        time.sleep(0.5)
    healthy = {name: is_healthy(one) for name, one in services.items() if one["healthcheck"]}
    result = {
        "started": sorted(started),
        "exit_codes": {name: one.poll() for name, one in started.items() if one.poll() is not None},
        "healthy": healthy,
    }
    specification.with_name("result.json").write_text(json.dumps(result))
    for process in started.values():
        process.terminate()


def bring_loopback_up() -> None:
    """A new network namespace begins with its loopback device down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))


def met(name: str, condition: str, services: dict[str, Any], started: dict[str, subprocess.Popen[bytes]]) -> bool:
    """Whether a dependency is as far as compose would require."""
    if name not in started:
        return False
    if condition == "service_healthy":
        return is_healthy(services[name])
    return condition == "service_started" or started[name].poll() == 0


def is_healthy(service: dict[str, Any]) -> bool:
    """Run the service's health check once."""
    check = service["healthcheck"]
    assert check[0] == "CMD"
    done = subprocess.run(check[1:], env=service["environment"], capture_output=True, check=False)
    return done.returncode == 0


def start(name: str, service: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a service; what it prints goes to a log in its folder."""
    folder = Path(service["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            service["command"], cwd=folder, env=service["environment"], stdout=log, stderr=subprocess.STDOUT
        )


if __name__ == "__main__":
    main()
