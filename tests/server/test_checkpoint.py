"""Checkpoints: what is saved comes back bit for bit, and nothing unsound is ever resumed from."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import CheckpointError
from common.models.description import BaseNetwork
from server.checkpoint import load_checkpoint, save_checkpoint
from server.cohorts import Cohort, Evaluation, FederationState

BASE = BaseNetwork("mlp", (1, 8, 8), 10)
Make = Callable[..., Config]


def state_after(round: int) -> FederationState:
    cohorts = []
    for number, channels in enumerate((64, 16)):
        architecture = Architecture.with_kept(BASE, {"hidden": range(channels)})
        weights = architecture.layout.flatten(architecture.build(round).state_dict())
        evaluation = Evaluation(round, 1 / 3, 0.1, 2 / 3)
        devices = [f"device-{number}"]
        cohorts.append(Cohort(f"cohort-{number}", architecture, weights, 0.7, devices, 10, 20, evaluation))
    budgets = {"device-0": DeviceBudget(macs=10**6), "device-1": DeviceBudget(params=9, peak_memory_bytes=10**12)}
    return FederationState(cohorts, round, 2 / 3, 1, 0, {"search": 1.5}, 1234, strikes={"device-1": 2}, budgets=budgets)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, small_config: Make) -> None:
    saved = state_after(3)
    save_checkpoint(tmp_path, saved, small_config())
    loaded = load_checkpoint(tmp_path, small_config())
    assert loaded is not None
    for before, after in zip(saved.cohorts, loaded.cohorts, strict=True):
        assert before.weights.tobytes() == after.weights.tobytes()
        before.weights = after.weights = np.zeros(0, np.float32)
    assert loaded == saved


def test_before_the_first_checkpoint_there_is_nothing_to_load(tmp_path: Path, small_config: Make) -> None:
    assert load_checkpoint(tmp_path, small_config()) is None


def test_only_the_latest_round_is_kept(tmp_path: Path, small_config: Make) -> None:
    for round in range(3):
        save_checkpoint(tmp_path, state_after(round), small_config())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "round-00002"]
    loaded = load_checkpoint(tmp_path, small_config())
    assert loaded is not None
    assert loaded.round == 2


def test_a_crash_before_the_last_step_leaves_the_round_before(tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    before = (tmp_path / "latest").read_bytes()
    earlier = {path.name: path.read_bytes() for path in (tmp_path / "round-00001").iterdir()}
    save_checkpoint(tmp_path, state_after(2), small_config())
    (tmp_path / "latest").write_bytes(before)
    (tmp_path / "round-00001").mkdir()
    for name, data in earlier.items():
        (tmp_path / "round-00001" / name).write_bytes(data)
    loaded = load_checkpoint(tmp_path, small_config())
    assert loaded is not None
    assert loaded.round == 1
    save_checkpoint(tmp_path, state_after(2), small_config())  # over the folder that the crash left
    again = load_checkpoint(tmp_path, small_config())
    assert again is not None
    assert again.round == 2


@pytest.mark.parametrize("name", ["latest", "round-00001/state.json", "round-00001/cohort-1.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
def test_damage_is_found(name: str, damage: str, tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    path = tmp_path / name
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"truncated": data[:-7], "flipped": flipped, "empty": b"", "garbage": b"\xff" * 99}[damage])
    with pytest.raises(CheckpointError, match=r"damaged|cannot read"):
        load_checkpoint(tmp_path, small_config())


@pytest.mark.parametrize("name", ["round-00001/state.json", "round-00001/cohort-0.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=Path(name).name):
        load_checkpoint(tmp_path, small_config())


def test_a_pointer_cannot_lead_out_of_the_folder(tmp_path: Path, small_config: Make) -> None:
    (tmp_path / "secret").mkdir()
    save_checkpoint(tmp_path / "checkpoint", state_after(1), small_config())
    (tmp_path / "checkpoint/latest").write_text(json.dumps({"folder": "../secret", "sha256": "0"}))
    with pytest.raises(CheckpointError, match=r"checkpoint/secret/state\.json"):
        load_checkpoint(tmp_path / "checkpoint", small_config())


def test_another_configuration_is_refused_and_the_setting_named(tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    with pytest.raises(CheckpointError, match=r"learning-rate = 0.01, not 0.5"):
        load_checkpoint(tmp_path, small_config(learning_rate=0.5))
    with pytest.raises(CheckpointError, match="seed"):
        load_checkpoint(tmp_path, small_config(seed=1))


def test_a_run_may_go_on_for_longer_or_elsewhere(tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    loaded = load_checkpoint(tmp_path, small_config(rounds=50, out="/elsewhere", round_timeout=5))
    assert loaded is not None
    assert loaded.round == 1


def test_an_older_schema_is_refused(tmp_path: Path, small_config: Make) -> None:
    save_checkpoint(tmp_path, state_after(1), small_config())
    state = tmp_path / "round-00001/state.json"
    old = state.read_bytes().replace(b'"version": 2', b'"version": 1')
    state.write_bytes(old)
    pointer = {"folder": "round-00001", "sha256": hashlib.sha256(old).hexdigest()}
    (tmp_path / "latest").write_text(json.dumps(pointer))
    with pytest.raises(CheckpointError, match="version 1 of feddac-checkpoint"):
        load_checkpoint(tmp_path, small_config())
