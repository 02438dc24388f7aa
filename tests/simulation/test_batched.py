"""Whole federations under the batched engine end as under the inline engine, and what goes wrong costs one device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from safetensors.numpy import load_file
from torch import nn

from client.app import app as real_client
from client.batched.ahead import Ahead
from common.config import Config
from common.errors import FederationError
from common.messages import WEIGHTS
from common.methods import contract_of
from common.progress import Progress, Silent
from server.federation import federate
from server.run_folder import RunFolder
from simulation.engines import run_federation
from tests.altered_client import altered_client
from tests.examples import slow

DEVICES = 5
ROUNDS = 3
TOLERANCE = 1e-5
"""Largest difference of a weight of the perceptron after three rounds, as a share of the largest."""

SMALL: dict[str, Any] = {
    "model": "mlp",
    "devices": DEVICES,
    "rounds": ROUNDS,
    "fleet": "phone",
    "partition": "dirichlet:1",
    "train-images": 300,
    "test-images": 40,
    "max-params": "11k",
    "warmup-epochs": 1,
    "epochs-per-step": 0,
    "fine-tune-epochs": 1,
    "accelerator": "cpu",
}


def config_of(**changes: Any) -> Config:
    given = {name.replace("_", "-"): value for name, value in changes.items()}
    contract = contract_of(given.get("method", "dac"))
    small = {key: value for key, value in SMALL.items() if contract.reads_setting(key)}
    return Config.from_mapping({**small, **given})


def run(
    config: Config,
    folder: Path,
    engine: str = "batched",
    app: ClientApp = real_client,
    progress: Progress | None = None,
    resume: bool = False,
    **how: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """The models that a whole federation ends with, by name."""
    with RunFolder.open(folder) if resume else RunFolder.create(folder) as open_folder:
        open_folder.write_config(config.to_mapping())

        def serve(grid: Grid, context: Context) -> None:
            federate(grid, config, open_folder, progress or Silent(), resume)

        run_federation(engine, serve, app, config.to_mapping(), config.fleet.devices, **how)
    return {path.name: load_file(path) for path in sorted((folder / "models").iterdir())}


def require_near(ours: dict[str, dict[str, np.ndarray]], theirs: dict[str, dict[str, np.ndarray]]) -> None:
    assert ours.keys() == theirs.keys() != set()
    for name, tensors in theirs.items():
        largest = max(np.abs(tensor).max() for tensor in tensors.values())
        assert ours[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert np.abs(ours[name][key] - tensor).max() <= TOLERANCE * largest, (name, key)


Corrupt = Callable[[Message], Message]


class Watched:
    """The real client, and of every training whether it was done beside others."""

    def __init__(self) -> None:
        self.together: list[bool] = []
        self.app = altered_client(self._watch)

    def _watch(self, request: Message, reply: Message, context: Context) -> Message:
        self.together.append(isinstance(context, Ahead))
        return reply


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *slow({"method": "fedavg"}),
        {"method": "fedprox", "proximal_coefficient": 1.0},
        {"method": "heterofl", "model": "cnn", "max_params": "11k"},
        {"aggregation": "overlap", "masked_loss": "exclude", "max_gradient_norm": 1.0, "fraction": 0.7},
        {"local_epochs": "1-2", "optimizer": "adam", "learning_rate": 0.001, "momentum": 0.9},
    ],
    ids=str,
)
def test_a_federation_ends_as_one_by_one(settings: dict[str, Any], tmp_path: Path) -> None:
    config, notes, client = config_of(**settings), Notes(), Watched()
    ours = run(config, tmp_path / "batched", app=client.app, note=notes.note)
    require_near(ours, run(config, tmp_path / "inline", "inline"))
    assert notes.lines == []
    # with a range of epochs a device may be the only one that has as many
    assert (any if "local_epochs" in settings else all)(client.together)


def test_what_cannot_be_done_together_is_done_one_by_one_and_said_once(tmp_path: Path) -> None:
    """Exploration ends when the device's loss does not fall any more; what follows is trained together."""
    config, notes, client = config_of(method="autoflip", autoflip_exploration_epochs=2), Notes(), Watched()
    ours = run(config, tmp_path / "batched", app=client.app, note=notes.note)
    require_near(ours, run(config, tmp_path / "inline", "inline"))
    assert notes.lines == ["devices do step explore of autoflip one by one: the batched engine does not know it"]
    assert client.together == [False] * DEVICES + [True] * DEVICES * (ROUNDS - 1)


class Joins(nn.Module):
    """A network that joins channels, whose stacked form would be another network."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(input_shape[0], 4, 3)
        self.last = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu().mean(dim=(2, 3))
        result: torch.Tensor = self.last(torch.cat([x, x], 1))
        return result


def test_a_network_that_cannot_be_stacked_trains_one_by_one(tmp_path: Path) -> None:
    config, notes = config_of(model=f"{__name__}:Joins", max_params="", method="fedavg"), Notes()
    ours = run(config, tmp_path / "batched", note=notes.note)
    theirs = run(config, tmp_path / "inline", "inline")
    assert all(np.array_equal(ours[name][key], theirs[name][key]) for name in theirs for key in theirs[name])
    [line] = notes.lines
    assert line.startswith("devices train one by one, for their network cannot be stacked: it does")


class Hungry(nn.Module):
    """A network that needs more memory than there is once more than two devices train together."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.channels = input_shape[0]
        self.first = nn.Conv2d(input_shape[0], 4, 3)
        self.last = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 2 * self.channels:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        result: torch.Tensor = self.last(self.first(x).relu().mean(dim=(2, 3)))
        return result


def test_too_many_devices_for_the_memory_are_told_what_helps(tmp_path: Path) -> None:
    config = config_of(model=f"{__name__}:Hungry", max_params="", method="fedavg", device_evaluation=False)
    with pytest.raises(FederationError, match=r"5 devices at once need more memory than .* a smaller --together"):
        run(config, tmp_path / "five")
    require_near(run(config, tmp_path / "two", together=2), run(config, tmp_path / "inline", "inline"))


def faulty(corrupt: Corrupt) -> ClientApp:
    """The real client, but that device 1's training goes through `corrupt`."""
    return altered_client(
        lambda request, reply, context: corrupt(reply) if context.node_config["partition-id"] == 1 else reply
    )


def raises(reply: Message) -> Message:
    raise ValueError("out of battery")


def sends_nan(reply: Message) -> Message:
    weights = reply.content.array_records["arrays"][WEIGHTS].numpy().copy()
    weights[3] = np.nan
    reply.content["arrays"] = ArrayRecord({WEIGHTS: Array(weights)})
    return reply


@pytest.mark.parametrize(
    ("corrupt", "status", "reason"), [(raises, "failed", "battery"), (sends_nan, "rejected", "not finite")]
)
def test_a_device_that_fails_costs_its_own_reply(corrupt: Corrupt, status: str, reason: str, tmp_path: Path) -> None:
    config = config_of(device_evaluation=False)
    ours = run(config, tmp_path / "batched", app=faulty(corrupt))
    require_near(ours, run(config, tmp_path / "inline", "inline", faulty(corrupt)))
    found = [one for one in RunFolder(tmp_path / "batched").events("device") if one["status"] == status]
    assert [one["device"] for one in found] == ["device-01"] * ROUNDS
    assert all(reason in one["reason"] for one in found)


def test_devices_that_diverge_are_named_each(tmp_path: Path) -> None:
    config = config_of(learning_rate=1e30, device_evaluation=False)
    with pytest.raises(FederationError, match="diverged"):
        run(config, tmp_path / "batched")
    found = RunFolder(tmp_path / "batched").events("device")
    assert {one["device"] for one in found if "diverged in epoch 1" in one["reason"]} == {
        f"device-{number:02}" for number in range(DEVICES)
    }


class Cut(Silent):
    """A run that is interrupted while its last round goes on."""

    def advance(self, stage: str, units: int, message: str) -> None:
        if stage == "rounds" and units and "2" in message:
            raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config = config_of()
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", progress=Cut())
    resumed = run(config, tmp_path / "cut", resume=True)
    assert all(np.array_equal(resumed[name][key], whole[name][key]) for name in whole for key in whole[name])


def test_local_differential_privacy_is_around_what_was_trained_together(tmp_path: Path) -> None:
    """Clipped to next to nothing, an update is the noise alone: as little as the clipping norm."""
    settings = {"rounds": 1, "device_evaluation": False, "method": "fedavg", "learning_rate": 0.2}
    moves = []
    for name, norm in (("private", 1e-6), ("free", 0.0)):
        [model] = run(config_of(local_dp_clipping_norm=norm, **settings), tmp_path / name).values()
        sent = load_file(tmp_path / name / "architectures" / "cohort-0.before-federation.safetensors")
        moves.append(max(float(np.abs(model[key] - sent[key]).max()) for key in sent))
    assert moves[0] < 1e-4 < 100 * moves[0] < moves[1]
