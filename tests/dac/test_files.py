"""Architecture files are written whole, read back exactly, and refused in one sentence when damaged."""

import json
from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError
from common.models.description import BaseNetwork
from dac.files import Member, load_architecture, load_member, save_member

ARCHITECTURE = Architecture.with_kept(BaseNetwork("cnn", (1, 8, 8), 10), {"conv2": (0, 1, 2, 9), "hidden1": range(60)})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cohort-0.json"
    state = ARCHITECTURE.build(0).state_dict()
    member = Member(ARCHITECTURE, DeviceBudget(macs=10**6), state, 0.75)
    save_member(path, member, name="cohort-0", parent=None, seed=3)
    return path


def test_what_is_saved_is_loaded(saved: Path) -> None:
    member = load_member(saved)
    assert member.architecture == load_architecture(saved) == ARCHITECTURE
    assert (member.budget, member.validation_accuracy) == (DeviceBudget(macs=10**6), 0.75)
    assert all(torch.equal(value, member.state[name]) for name, value in ARCHITECTURE.build(0).state_dict().items())


def test_the_file_says_what_a_reader_wants_to_know(saved: Path) -> None:
    data = json.loads(saved.read_text())
    assert data["kept"] == {"conv2": "0-2,9", "hidden1": "0-59"}
    assert data["sizes"]["conv2"] == 4
    assert data["base_sizes"]["conv2"] == 16
    assert data["costs"]["params"] == sum(p.numel() for p in ARCHITECTURE.build(0).parameters())
    assert data["budget"] == {"macs": 10**6, "params": None, "peak_memory_bytes": None}
    assert data["seed"] == 3


def test_damaged_weights_are_found(saved: Path) -> None:
    weights = saved.with_suffix(".search.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArchitectureError, match="is damaged"):
        load_member(saved)


def test_missing_weights_are_named(saved: Path) -> None:
    saved.with_suffix(".search.safetensors").unlink()
    with pytest.raises(ArchitectureError, match=r"cohort-0\.search\.safetensors"):
        load_member(saved)


def test_a_weights_name_never_leaves_the_folder(saved: Path) -> None:
    data = json.loads(saved.read_text())
    data["weights"]["file"] = "../../etc/passwd"
    saved.write_text(json.dumps(data))
    with pytest.raises(ArchitectureError, match="passwd"):
        load_member(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[]", "not a FedDAC architecture"),
        ('{"format": "feddac-architecture", "version": 2}', "version 2"),
        ('{"format": "feddac-architecture", "version": 1}', "not an architecture"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ArchitectureError, match=message):
        load_architecture(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"nowhere\.json"):
        load_architecture(tmp_path / "nowhere.json")
