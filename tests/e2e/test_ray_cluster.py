"""A federation on a Ray cluster that was there before: two nodes, of which each has one processor."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Finished, feddac, weights_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes whose processes do not find our code by themselves."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
    try:
        yield str(nodes.address)
    finally:
        nodes.shutdown()


def free_processors(address: str) -> float:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="critical")
    try:
        return float(ray.available_resources()["CPU"])
    finally:
        ray.shutdown()


def on_cluster(arguments: list[str], home: Path, **variables: str) -> str:
    """What `feddac simulate` on the ray engine said about the devices, which ended well."""
    done = feddac(["simulate", *arguments, "--engine", "ray", "--workers", "0"], home, variables)
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("devices:") and "started in" in line)


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_process_and_go_on_without_us(
    cluster: str, finished_run: Finished, small_run: list[str], tmp_path: Path
) -> None:
    told = on_cluster([*small_run, "--ray-address", cluster, "--out", "run"], tmp_path)
    assert cluster in told
    assert weights_of(tmp_path / "run") == weights_of(finished_run.folder)
    assert free_processors(cluster) == 2


@pytest.mark.slow
def test_the_environment_names_the_cluster_as_ray_has_it(cluster: str, small_run: list[str], tmp_path: Path) -> None:
    assert cluster in on_cluster([*small_run, "--rounds", "1", "--out", "run"], tmp_path, RAY_ADDRESS=cluster)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ray-address", "nowhere"], "--ray-address 'nowhere' is no address of a Ray cluster"),
        (["--ray-address", "auto", "--engine", "inline"], "--ray-address is for the ray engine, not for inline"),
    ],
)
def test_a_wrong_address_is_told_before_anything_is_written(arguments: list[str], told: str, tmp_path: Path) -> None:
    done = feddac(["simulate", *arguments, "--out", "run"], tmp_path)
    assert done.returncode == 2
    assert told in done.stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_an_address_where_nothing_answers_names_the_command_that_starts_a_cluster(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = feddac(["simulate", "--ray-address", f"127.0.0.1:{port}", "--out", "run"], tmp_path)
    assert done.returncode == 2
    assert f"ray start --head --port {port}" in done.stderr.replace(os.linesep, " ")
    assert not (tmp_path / "run").exists()
