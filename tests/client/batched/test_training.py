"""Devices that train together end with what each comes to alone, but for rounding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client.batched.jobs import JOBS
from client.batched.training import Member, Outcome, train_members
from client.batched.trial import template_of
from client.data import DeviceData
from client.methods import autoflip, fedavg, fedprox, heterofl
from client.models import _module
from client.steps import Step, Work, dropout_seed, here_of, run_step
from common.architecture import Architecture
from common.arrays import Arrays
from common.budget import OPTIMIZERS
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import FederationError
from common.messages import WEIGHTS, Result, Task
from common.methods.autoflip import MASK, SPARSE, VALUES
from common.methods.fedprox import ProximalOrder
from common.methods.heterofl import ScaledOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from common.sparse import packed

CPU = torch.device("cpu")
CLASSES = 4
ORDER = TrainingOrder(epochs=2, batch_size=8, learning_rate=0.05, momentum=0.5)
COUNTS = (20, 33, 8, 9, 41)
"""Images of the devices: last batches of 4, 9 (one joins the batch before), 8, 9 and 9, and one to five of them."""

TOLERANCE = 2e-5
"""Largest difference of a weight, as a share of the largest: float32 sums in another order, over at most ten steps."""


def images(count: int, shape: tuple[int, int, int], classes: int = CLASSES, seed: int = 0) -> Images:
    """Images whose brightness tells their class, so that training goes somewhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    pixels = torch.randint(100, (count, *shape), generator=generator) + 50 * labels.view(-1, 1, 1, 1)
    return Images(pixels.clamp(max=255).to(torch.uint8), labels)


def network(model: str, shape: tuple[int, int, int] = (1, 8, 8), width: float = 0.5) -> Architecture:
    return Architecture.full(BaseNetwork(model, shape, CLASSES, width))


def task_of(
    architecture: Architecture, order: TrainingOrder = ORDER, method: str = "fedavg", arrays: Arrays | None = None
) -> Task:
    sent = {WEIGHTS: architecture.layout.flatten(architecture.build(0).state_dict())} if arrays is None else arrays
    return Task(method, TRAIN, 1, architecture, order.to_mapping(), sent)


def devices(task: Task, counts: Sequence[int] = COUNTS, augment: str = "crop", **how: Any) -> dict[str, DeviceData]:
    shape = task.network.input_shape
    preprocessor = Preprocessor(torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25), augment)
    return {
        f"device-{number:02}": DeviceData(images(count, shape, seed=number, **how), None, preprocessor)
        for number, count in enumerate(counts)
    }


def together(task: Task, data: Mapping[str, DeviceData], step: Step) -> list[Outcome]:
    template = template_of(task.network)
    assert not isinstance(template, str), template
    members = [
        Member(JOBS[step](task), here_of(task, own, name, CPU, lambda: None), dropout_seed(task, name))
        for name, own in data.items()
    ]
    return train_members(template, task.network.layout, task.network.classes, members)


def alone(task: Task, data: Mapping[str, DeviceData], step: Step) -> list[Result]:
    return [run_step({task.step: step}, task, own, name, CPU) for name, own in data.items()]


def require_equal(task: Task, data: Mapping[str, DeviceData], step: Step = fedavg.STEPS[TRAIN]) -> list[Work]:
    """The works of those that train together, all of which are as if each were alone."""
    works = []
    for result, outcome in zip(alone(task, data, step), together(task, data, step), strict=True):
        assert isinstance(outcome, Work), outcome
        assert outcome.loss == pytest.approx(result.loss, rel=1e-4)
        assert outcome.arrays.keys() == result.arrays.keys()
        for name, expected in result.arrays.items():
            assert outcome.arrays[name].dtype == expected.dtype
            assert outcome.arrays[name].shape == expected.shape
            distance = np.abs(outcome.arrays[name] - expected).max()
            assert distance <= TOLERANCE * np.abs(expected).max(), distance / np.abs(expected).max()
        works.append(outcome)
    return works


@pytest.mark.parametrize(
    "architecture",
    [
        network("mlp"),
        network("cnn"),
        network("two_cnn", (3, 12, 12)),
        network("resnet8", (3, 8, 8)),
    ],
    ids=lambda one: one.base.model,
)
def test_every_network_of_ours(architecture: Architecture) -> None:
    task = task_of(architecture)
    works = require_equal(task, devices(task))
    sent = task.weights
    assert all(np.abs(work.arrays[WEIGHTS] - sent).max() > 100 * TOLERANCE * np.abs(sent).max() for work in works)


class InDoublePrecision(Preprocessor):
    def train_batch(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return super().train_batch(images, generator).double()


def test_a_network_that_magnifies_rounding_in_double_precision() -> None:
    """MobileNetV2 with random weights and maps of a pixel: in float32 a last bit elsewhere grows to a tenth of the way.

    Both sides compute in double precision here, in which the same differences are far below what float32 can hold.
    """
    task = task_of(network("mobilenet_v2", (3, 16, 16), 0.25))
    preprocessor = InDoublePrecision(torch.full((3,), 0.5), torch.full((3,), 0.25), "crop+flip")
    data = {name: replace(own, preprocessor=preprocessor) for name, own in devices(task).items()}
    torch.set_default_dtype(torch.double)
    try:
        _module.cache_clear()
        require_equal(task, data)
    finally:
        torch.set_default_dtype(torch.float)
        _module.cache_clear()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_keeps_a_state_for_each_device(optimizer: str) -> None:
    """Also Adam's, whose corrections of the first steps depend on how many there were."""
    order = replace(ORDER, optimizer=optimizer, learning_rate=0.01, momentum=0.9, weight_decay=0.1)
    task = task_of(network("cnn"), order)
    require_equal(task, devices(task))


@pytest.mark.parametrize(
    "change",
    [
        {"max_gradient_norm": 0.5},
        {"masked_loss": "exclude"},
        {"masked_loss": "zero"},
        {"frozen_norms": True},
        {"batch_size": 1, "epochs": 1},
        {"batch_size": 64},
    ],
    ids=str,
)
def test_every_setting_of_an_order(change: dict[str, Any]) -> None:
    task = task_of(network("cnn" if change.get("batch_size") == 1 else "resnet8"), replace(ORDER, **change))
    data = devices(task)
    lacking = devices(task, COUNTS[:2], classes=2)
    require_equal(task, {**data, **lacking})


@pytest.mark.parametrize("change", [{}, {"max_gradient_norm": 0.3, "momentum": 0.0}], ids=str)
def test_fedprox(change: dict[str, Any]) -> None:
    settings = {**ORDER.to_mapping(), "proximal-coefficient": 2.0}
    task = task_of(network("cnn"), replace(ProximalOrder.from_mapping(settings), **change), "fedprox")
    held = require_equal(task, devices(task), fedprox.train_step)
    free = together(task_of(network("cnn"), replace(ORDER, **change)), devices(task), fedavg.STEPS[TRAIN])
    for one, other in zip(held, free, strict=True):
        assert isinstance(other, Work)
        if one is not held[2]:  # which takes two steps, of which the first is free
            assert np.linalg.norm(one.arrays[WEIGHTS] - task.weights) < np.linalg.norm(
                other.arrays[WEIGHTS] - task.weights
            )


def test_heterofl() -> None:
    order = ScaledOrder.from_mapping({**ORDER.to_mapping(), "activation-scale": 0.5})
    task = task_of(network("cnn"), order, "heterofl")
    require_equal(task, devices(task), heterofl.train_step)


def test_autoflip_under_its_mask() -> None:
    architecture = network("resnet8")
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    kept = np.random.default_rng(0).random(len(weights)) < 0.5
    for start, name in _starts(architecture):
        if "running_var" in name:
            kept[start] = True
    order = replace(ORDER, max_gradient_norm=1.0, weight_decay=0.1)
    arrays: Arrays = {MASK: packed(kept), VALUES: weights[kept]}
    task = replace(task_of(architecture, order, "autoflip", arrays), step=SPARSE)
    works = require_equal(task, devices(task), autoflip.sparse_step)
    assert all(work.arrays.keys() == {VALUES} for work in works)


def _starts(architecture: Architecture) -> list[tuple[slice, str]]:
    """Where each tensor lies in a flat vector, with its name."""
    ends = np.cumsum([math.prod(shape) for shape in architecture.layout.shapes])
    starts = [0, *ends[:-1].tolist()]
    return [(slice(start, end), name) for start, end, name in zip(starts, ends, architecture.layout.names, strict=True)]


@pytest.mark.parametrize("counts", [(16, 16, 16), (5, 5), (9, 64), (64, 9)], ids=str)
def test_devices_with_as_many_images_or_with_far_fewer(counts: tuple[int, ...]) -> None:
    task = task_of(network("resnet8"))
    require_equal(task, devices(task, counts))


def test_dropout_draws_what_each_device_would_draw_alone_also_for_maps() -> None:
    """The perceptron has dropout behind its hidden layer; every device has masks of its own."""
    task = task_of(network("mlp"), replace(ORDER, epochs=1))
    data = devices(task, (8, 8))
    same = dict.fromkeys(data, data["device-00"])
    first, second = require_equal(task, same)
    assert not np.allclose(first.arrays[WEIGHTS], second.arrays[WEIGHTS], atol=1e-4)


@pytest.mark.parametrize("augment", ["none", "crop+flip+cutout", "flip+jitter"])
def test_every_device_augments_by_its_own_draws(augment: str) -> None:
    task = task_of(network("cnn", (3, 8, 8)), replace(ORDER, epochs=1))
    require_equal(task, devices(task, augment=augment))


def test_a_device_that_diverges_is_named_by_its_error_and_the_others_do_not_notice() -> None:
    task = task_of(network("resnet8"))
    data = devices(task)
    blinding = Preprocessor(torch.tensor([0.5]), torch.tensor([1e-42]), "none")
    data["device-01"] = replace(data["device-01"], preprocessor=blinding)
    with pytest.raises(FederationError) as caught:
        alone(task, {"device-01": data["device-01"]}, fedavg.STEPS[TRAIN])
    outcomes = together(task, data, fedavg.STEPS[TRAIN])
    error = outcomes.pop(1)
    assert isinstance(error, FederationError)
    assert str(error) == str(caught.value)
    del data["device-01"]
    for result, outcome in zip(alone(task, data, fedavg.STEPS[TRAIN]), outcomes, strict=True):
        assert isinstance(outcome, Work)
        np.testing.assert_allclose(outcome.arrays[WEIGHTS], result.arrays[WEIGHTS], rtol=0, atol=1e-5)


def test_the_same_group_again_gives_the_same_bits() -> None:
    task = task_of(network("resnet8"))
    first, second = (together(task, devices(task), fedavg.STEPS[TRAIN]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert isinstance(one, Work)
        assert isinstance(other, Work)
        assert one.arrays[WEIGHTS].tobytes() == other.arrays[WEIGHTS].tobytes()
