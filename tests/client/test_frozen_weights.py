"""Weights that a network's author froze leave every device as they came, under every method and optimizer."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from client.data import DeviceData
from client.methods import autoflip, dac, fedprox
from client.steps import Step, run_step
from common.architecture import Architecture
from common.arrays import Vector
from common.budget import OPTIMIZERS
from common.data.augment import Preprocessor
from common.data.images import Images
from common.initial_weights import fresh
from common.messages import Task
from common.methods.autoflip import SPARSE
from common.methods.fedprox import ProximalOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models import allow_network
from common.models.description import BaseNetwork
from common.sparse import packed

PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
FROZEN = BaseNetwork("tests.common.models.users:frozen_backbone", (1, 8, 8), 3)
allow_network(FROZEN.model)
SMALL = Architecture.with_kept(FROZEN, {"stem": (1, 3, 6), "body": (0, 2, 5)})
MODULE = fresh(SMALL, 0)
SENT = SMALL.layout.flatten(MODULE.state_dict())


def returned(steps: Mapping[str, Step], task: Task) -> Vector:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (9, 1, 8, 8), generator=generator, dtype=torch.uint8)
    data = DeviceData(Images(pixels, torch.arange(9) % 3), None, PLAIN)
    (array,) = run_step(steps, task, data, "device-00", torch.device("cpu")).arrays.values()
    return array


def assert_untouched(weights: Vector) -> None:
    state = SMALL.layout.unflatten(weights)
    for name, value in MODULE.named_parameters():
        assert torch.equal(state[name], value) != value.requires_grad, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_local_training_leaves_them(optimizer: str) -> None:
    order = TrainingOrder(batch_size=4, learning_rate=0.05, optimizer=optimizer, momentum=0.5, weight_decay=0.1)
    task = Task("dac", TRAIN, 1, SMALL, order.to_mapping(), {"weights": SENT})
    assert_untouched(returned(dac.STEPS, task))


def test_the_distance_from_what_was_sent_leaves_them() -> None:
    order = ProximalOrder(batch_size=4, learning_rate=0.05, proximal_coefficient=0.1).to_mapping()
    assert_untouched(returned(fedprox.STEPS, Task("fedprox", TRAIN, 1, SMALL, order, {"weights": SENT})))


def test_training_under_a_mask_leaves_them() -> None:
    everything = packed(np.ones(len(SENT), bool))
    order = TrainingOrder(batch_size=4, learning_rate=0.05).to_mapping()
    task = Task("autoflip", SPARSE, 1, SMALL, order, {"values": SENT, "mask": everything})
    assert_untouched(returned(autoflip.STEPS, task))
