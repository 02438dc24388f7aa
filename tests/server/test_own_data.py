"""Devices with images of their own learn the run's classes from the server, in the handshake and in every task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run
from PIL import Image

from client.app import app
from client.asked import asked
from common.config import Config
from common.errors import FederationError
from common.progress import Silent
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid

GREYS = {"cats": 20, "dogs": 100, "owls": 180}


def animals(folder: Path, **counts: int) -> Path:
    """A folder of so many images of each kind, every kind in greys of its own."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), GREYS.get(name, 0) + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def train(tmp_path: Path, small_config: Callable[..., Config]) -> Callable[[Path], set[tuple[str, int]]]:
    """Which kind of animal a device with this folder trains under which label, in a run of all three."""
    seen: set[tuple[str, int]] = set()
    watched = ClientApp()

    @watched.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        return app(message, context)

    @watched.train()
    def trained(message: Message, context: Context) -> Message:
        images = asked(message, context).data.train
        for grey, label in zip(images.images[:, 0, 0, 0].tolist(), images.labels.tolist(), strict=True):
            seen.add((max(GREYS, key=lambda name: GREYS[name] * (GREYS[name] <= grey)), label))
        return app(message, context)

    def run(own: Path) -> set[tuple[str, int]]:
        whole = str(animals(tmp_path / "whole", cats=30, dogs=30, owls=30))
        cache, quick = str(tmp_path / "cache"), {"rounds": 1, "devices": 1, "local_batch_size": 8}
        config = small_config(data=whole, data_folder=cache, method="fedavg", device_evaluation=False, **quick)
        node: dict[str, Any] = {"device-name": "barn", "data": str(own), "max-params": "1M"}
        with RunFolder.create(tmp_path / "run") as folder:
            grid = InlineGrid(watched, [node], config.to_mapping(), Run.create_empty(1))
            federate(grid, config, folder, Silent(), False)
        return seen

    return run


def test_a_device_that_lacks_a_class_trains_on_the_labels_of_the_run(train: Callable[..., Any], tmp_path: Path) -> None:
    assert train(animals(tmp_path / "own", dogs=9, owls=9)) == {("dogs", 1), ("owls", 2)}


def test_a_device_with_a_class_that_the_run_does_not_have_is_refused_in_the_handshake(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    expected = "no device can take part: .* has images of foxes, but the run's classes are cats, dogs, owls"
    with pytest.raises(FederationError, match=expected):
        train(animals(tmp_path / "own", dogs=9, foxes=9))
