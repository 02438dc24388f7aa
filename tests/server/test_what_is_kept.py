"""What a run folder keeps of the models that devices sent: their mean, which of one device alone is its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common.arrays import Vector
from common.config import Config
from common.messages import WEIGHTS
from tests.server.test_faulty_clients import faulty_app

PIECE = 16
"""So many values in a row are looked for."""


def own_pieces(models: list[Vector]) -> list[bytes]:
    """Pieces of the first model in which no value is also one of the other models."""
    pieces = [model[: model.size // PIECE * PIECE].reshape(-1, PIECE) for model in models]
    own = np.ones(len(pieces[0]), bool)
    for other in pieces[1:]:
        own &= (pieces[0] != other).all(axis=1)
    return [piece.tobytes() for piece in pieces[0][own]]


@pytest.mark.parametrize(("devices", "fraction"), [(2, 1.0), (1, 1.0), (2, 0.5)])
def test_no_device_of_several_that_answer_can_be_read_from_the_run_folder(
    devices: int,
    fraction: float,
    run_federation: Callable[..., Any],
    small_config: Callable[..., Config],
    tmp_path: Path,
) -> None:
    heard: list[Vector] = []
    config = small_config(devices=devices, fraction=fraction, min_devices=1, rounds=1, device_evaluation=False)
    answer = round(devices * fraction)

    def listen(request: Message, reply: Message) -> Message:
        heard.append(reply.content.array_records["arrays"][WEIGHTS].numpy().copy())
        return reply

    run_federation(config, tmp_path / "run", client_app=faulty_app(listen, range(devices)))
    assert len(heard) == answer
    pieces = own_pieces(heard)
    assert len(pieces) > 100
    kept = b"\n".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    found = sum(piece in kept for piece in pieces)
    assert found == (0 if answer > 1 else len(pieces))
