"""Weight files: the types, shapes and values of the architecture, or a refusal before anything is built."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError
from common.layout import State
from common.models import allow_network
from common.models.description import BaseNetwork
from dac.files import Member, load_architecture, load_member, save_member

BASE = BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25)


@pytest.fixture
def member(tmp_path: Path) -> Path:
    architecture = Architecture.full(BASE)
    path = tmp_path / "one.json"
    state = dict(architecture.build(0).state_dict())
    save_member(path, Member(architecture, DeviceBudget(), state, 0.5), name="one", parent=None, seed=0)
    return path


def rewrite(path: Path, change: Callable[[State], None]) -> None:
    """Change the weights, with a checksum that is right again."""
    weights = path.with_suffix(".search.safetensors")
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    data = json.loads(path.read_text())
    data["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(json.dumps(data))


def test_what_was_written_comes_back(member: Path) -> None:
    state = load_file(member.with_suffix(".search.safetensors"))
    loaded = load_member(member).state
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("part", ["whole", "reduced"])
def test_buffers_of_whole_numbers_and_truth_values_come_back(tmp_path: Path, part: str) -> None:
    architecture = ordered(part)
    state = architecture.build(0).state_dict()
    path = tmp_path / "one.json"
    save_member(path, Member(architecture, DeviceBudget(), dict(state), 0.5), name="one", parent=None, seed=0)
    loaded = load_member(path).state
    assert loaded["order"].tolist() == list(range(7, -1, -1))
    assert {one.dtype for one in loaded.values()} == {torch.float32, torch.int64, torch.bool}
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("name", "value"), [("order", torch.arange(9)), ("used", torch.ones(8, dtype=torch.int64))], ids=["shape", "type"]
)
def test_such_a_buffer_of_another_type_or_shape_is_refused(tmp_path: Path, name: str, value: torch.Tensor) -> None:
    def change(state: State) -> None:
        state[name] = value

    architecture, path = ordered("whole"), tmp_path / "one.json"
    state = dict(architecture.build(0).state_dict())
    save_member(path, Member(architecture, DeviceBudget(), state, 0.5), name="one", parent=None, seed=0)
    rewrite(path, change)
    with pytest.raises(ArchitectureError, match=f"does not fit its architecture: {name} is"):
        load_member(path)


def ordered(part: str) -> Architecture:
    """Of a user's network with such buffers."""
    model = "tests.common.models.users:ordered"
    allow_network(model)
    return Architecture.with_kept(BaseNetwork(model, (1, 8, 8), 4), {"head": range(3)} if part == "reduced" else {})


@pytest.mark.parametrize("kind", [torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_no_other_type_is_cast(member: Path, kind: torch.dtype) -> None:
    def change(state: State) -> None:
        state["stem_conv.weight"] = state["stem_conv.weight"].to(kind)

    rewrite(member, change)
    with pytest.raises(ArchitectureError, match=r"stem_conv\.weight is .* where \('F32'"):
        load_member(member)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("running_var", -1.0, "negative"),
        ("running_var", float("nan"), "not finite"),
        ("weight", float("inf"), "not finite"),
    ],
)
def test_values_that_no_network_has(member: Path, name: str, value: float, message: str) -> None:
    def change(state: State) -> None:
        key = next(key for key in state if key.endswith(name))
        state[key] = torch.full_like(state[key], value)

    rewrite(member, change)
    with pytest.raises(ArchitectureError, match=message):
        load_member(member)


def test_missing_further_and_misshaped_tensors(member: Path) -> None:
    rewrite(member, lambda state: state.update(more=torch.zeros(3)))
    with pytest.raises(ArchitectureError, match="holds 'more'"):
        load_member(member)
    rewrite(member, lambda state: [state.pop("more"), state.update({"stem_conv.weight": torch.zeros(3, 3)})])  # type: ignore[arg-type,return-value]
    with pytest.raises(ArchitectureError, match=r"stem_conv\.weight is .*\[3, 3\]"):
        load_member(member)
    rewrite(member, lambda state: state.pop("stem_conv.weight"))  # type: ignore[arg-type,return-value]
    with pytest.raises(ArchitectureError, match=r"lacks 'stem_conv\.weight'"):
        load_member(member)


def test_an_architecture_of_two_hundred_gigabytes_is_never_built(member: Path) -> None:
    data = json.loads(member.read_text())
    data["base"] = {**data["base"], "model": "mlp", "input_shape": [4096, 4096, 4096], "classes": 4096, "width": 4.0}
    data["kept"] = {}
    member.write_text(json.dumps(data))
    start = time.process_time()
    for load in (load_architecture, load_member):
        with pytest.raises(ArchitectureError, match="would have more than 268,435,456 parameters"):
            load(member)
    assert time.process_time() - start < 1
