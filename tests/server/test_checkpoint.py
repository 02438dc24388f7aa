"""Checkpoints: what is saved comes back bit for bit, and nothing unsound is ever resumed from."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget, LocalTraining
from common.config import Config
from common.errors import CheckpointError
from common.fleet import PROFILES
from common.models.description import BaseNetwork
from server.checkpoint import load_federation, save_federation
from server.cohorts import Cohort, Evaluation, FederationState, Spent
from server.methods.averaged import Averaged
from server.methods.dac import DACServer
from server.methods.method import Snapshot
from server.run import Run

BASE = BaseNetwork("mlp", (1, 8, 8), 10)
Make = Callable[..., Config]


def cohorts_after(round: int) -> list[Cohort]:
    cohorts = []
    for number, channels in enumerate((64, 16)):
        architecture = Architecture.with_kept(BASE, {"hidden": range(channels)})
        weights = architecture.layout.flatten(architecture.build(round).state_dict())
        evaluation = Evaluation(round, 1 / 3, 0.1, 2 / 3)
        spent = {"train": Spent(10, 20, 10**15, round), "evaluate": Spent(1, 2, 3, 4)}
        cohorts.append(Cohort(f"cohort-{number}", architecture, weights, 0.7, [f"device-{number}"], spent, evaluation))
    return cohorts


def state_after(round: int) -> FederationState:
    budgets = {"device-0": DeviceBudget(macs=10**6), "device-1": DeviceBudget(params=9, peak_memory_bytes=10**12)}
    budgets["device-2"] = replace(PROFILES["phone"].budget(2.5, LocalTraining(8)), training_memory_bytes=10**6)
    return FederationState(
        round, 2 / 3, 1, 0, {"search": 1.5}, 0.25, 99, 1234, strikes={"device-1": 2}, budgets=budgets
    )


class Remembering(DACServer):
    """A method with a state of its own."""

    remembered = Snapshot({"genotype": ["a", 1, 0.1]}, {"alphas": np.float32([[0.1, -3e-9]]), "mask": np.uint8([1, 0])})

    def snapshot(self) -> Snapshot:
        return self.remembered


@pytest.fixture
def save(make_run: Callable[..., Run], small_config: Make) -> Callable[..., None]:
    """Save the state after a round as a checkpoint in the run's folder, or in `folder`."""

    def write(round: int, folder: Path | None = None, method: type[Averaged] = DACServer) -> None:
        run = make_run()
        if folder is not None:
            run.folder.checkpoint_folder = folder
        kept = method(run)
        kept.restore(cohorts_after(round), Snapshot())
        save_federation(run, kept, state_after(round))

    return write


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    save(3, tmp_path)
    loaded = load_federation(tmp_path, small_config())
    assert loaded is not None
    assert loaded.state == state_after(3)
    before = cohorts_after(3)
    for mine, theirs in zip(before, loaded.cohorts, strict=True):
        assert mine.weights.tobytes() == theirs.weights.tobytes()
        mine.weights = theirs.weights = np.zeros(0, np.float32)
    assert loaded.cohorts == before
    assert loaded.method == Snapshot()


def test_a_methods_own_state_comes_back_bit_for_bit(
    tmp_path: Path, small_config: Make, save: Callable[..., None]
) -> None:
    save(3, tmp_path, Remembering)
    loaded = load_federation(tmp_path, small_config())
    assert loaded is not None
    assert loaded.method.facts == Remembering.remembered.facts
    for name, values in Remembering.remembered.arrays.items():
        assert loaded.method.arrays[name].dtype == values.dtype
        assert loaded.method.arrays[name].tobytes() == values.tobytes()
    assert set(loaded.method.arrays) == {"alphas", "mask"}


def test_before_the_first_checkpoint_there_is_nothing_to_load(tmp_path: Path, small_config: Make) -> None:
    assert load_federation(tmp_path, small_config()) is None


def test_only_the_latest_round_is_kept(tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    for round in range(3):
        save(round, tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["latest", "round-00002"]
    loaded = load_federation(tmp_path / "kept", small_config())
    assert loaded is not None
    assert loaded.state.round == 2


def test_a_crash_before_the_last_step_leaves_the_round_before(
    tmp_path: Path, small_config: Make, save: Callable[..., None]
) -> None:
    save(1, tmp_path)
    before = (tmp_path / "latest").read_bytes()
    earlier = {path.name: path.read_bytes() for path in (tmp_path / "round-00001").iterdir()}
    save(2, tmp_path)
    (tmp_path / "latest").write_bytes(before)
    (tmp_path / "round-00001").mkdir()
    for name, data in earlier.items():
        (tmp_path / "round-00001" / name).write_bytes(data)
    loaded = load_federation(tmp_path, small_config())
    assert loaded is not None
    assert loaded.state.round == 1
    save(2, tmp_path)  # over the folder that the crash left
    again = load_federation(tmp_path, small_config())
    assert again is not None
    assert again.state.round == 2


@pytest.mark.parametrize(
    "name", ["latest", "round-00001/state.json", "round-00001/cohort-1.safetensors", "round-00001/method.safetensors"]
)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
def test_damage_is_found(name: str, damage: str, tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    save(1, tmp_path, Remembering)
    path = tmp_path / name
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"truncated": data[:-7], "flipped": flipped, "empty": b"", "garbage": b"\xff" * 99}[damage])
    with pytest.raises(CheckpointError, match=r"damaged|cannot read"):
        load_federation(tmp_path, small_config())


@pytest.mark.parametrize(
    "name", ["round-00001/state.json", "round-00001/cohort-0.safetensors", "round-00001/method.safetensors"]
)
def test_a_missing_file_is_named(name: str, tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    save(1, tmp_path, Remembering)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=Path(name).name):
        load_federation(tmp_path, small_config())


def test_a_pointer_cannot_lead_out_of_the_folder(tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    (tmp_path / "secret").mkdir()
    save(1, tmp_path / "checkpoint")
    (tmp_path / "checkpoint/latest").write_text(json.dumps({"folder": "../secret", "sha256": "0"}))
    with pytest.raises(CheckpointError, match=r"checkpoint/secret/state\.json"):
        load_federation(tmp_path / "checkpoint", small_config())


def test_another_configuration_is_refused_and_the_setting_named(
    tmp_path: Path, small_config: Make, save: Callable[..., None]
) -> None:
    save(1, tmp_path)
    with pytest.raises(CheckpointError, match=r"learning-rate = 0.01, not 0.5"):
        load_federation(tmp_path, small_config(learning_rate=0.5))
    with pytest.raises(CheckpointError, match="seed"):
        load_federation(tmp_path, small_config(seed=1))


def test_a_run_may_go_on_for_longer_or_elsewhere(tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    save(1, tmp_path)
    loaded = load_federation(tmp_path, small_config(rounds=50, out="/elsewhere", round_timeout=5))
    assert loaded is not None
    assert loaded.state.round == 1


def test_an_older_schema_is_refused(tmp_path: Path, small_config: Make, save: Callable[..., None]) -> None:
    save(1, tmp_path)
    state = tmp_path / "round-00001/state.json"
    old = state.read_bytes().replace(b'"version": 3', b'"version": 2')
    state.write_bytes(old)
    pointer = {"folder": "round-00001", "sha256": hashlib.sha256(old).hexdigest()}
    (tmp_path / "latest").write_text(json.dumps(pointer))
    with pytest.raises(CheckpointError, match="version 2 of feddac-checkpoint"):
        load_federation(tmp_path, small_config())
