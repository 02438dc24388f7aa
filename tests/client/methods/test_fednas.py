"""FedNAS on a device: steps by hand, what each half of the images does, and the training of what was found."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.data import DeviceData
from client.methods.fednas import STEPS, cosine, halves
from client.models import module_for
from client.steps import run_step
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import DataError, MessageError
from common.layout import State
from common.messages import WEIGHTS, Result, Task
from common.methods.fednas import ALPHAS, SEARCH, CellOrder, search_macs
from common.methods.training import TRAIN
from common.models.darts import Design
from common.models.darts_space import PUBLISHED
from common.models.description import BaseNetwork

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
STILL = {"learning_rate": 0.0, "fednas_lowest_learning_rate": 0.0}
RATE = 0.01


@cache
def supernet() -> Architecture:
    return Architecture.full(BaseNetwork("darts_1x3", (1, 8, 8), 3))


@cache
def found() -> Architecture:
    return Architecture.full(BaseNetwork(Design(1, 3, PUBLISHED["FedNAS_V1"]).name, (1, 8, 8), 3))


@cache
def headed() -> Architecture:
    return Architecture.full(BaseNetwork(Design(1, 3, PUBLISHED["FedNAS_V1"], True).name, (1, 32, 32), 3))


def task(network: Architecture, step: str, seed: int = 0, **order: Any) -> Task:
    settings = CellOrder(**{"batch_size": 6, "learning_rate": 0.1, "fednas_architecture_learning_rate": RATE, **order})
    weights = network.layout.flatten(network.build(0).state_dict())
    return Task("fednas", step, 1, network, settings.to_mapping(), {WEIGHTS: weights}, seed)


def images(count: int = 12, side: int = 8, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def run(one: Task, data: Images | None = None) -> Result:
    return run_step(STEPS, one, DeviceData(data or images(), None, PLAIN), "device-00", CPU)


def tensors(one: Task, result: Result) -> State:
    assert set(result.arrays) == {WEIGHTS}
    return one.network.layout.unflatten(result.arrays[WEIGHTS])


def fresh(one: Task) -> nn.Module:
    """The module as the task has it, in training mode and without gradients."""
    module = module_for(one, CPU).train()
    module.zero_grad()
    return module


@cache
def slopes() -> dict[str, torch.Tensor]:
    """Of the loss over each half, one batch each, with respect to the architecture parameters."""
    both = {}
    for name, half in zip(("training", "validation"), halves(images(), 0), strict=True):
        module = fresh(task(supernet(), SEARCH))
        loss = F.cross_entropy(module(PLAIN.eval_batch(half.images)), half.labels)
        (both[name],) = torch.autograd.grad(loss, [module.get_parameter(ALPHAS)])
    return both


@pytest.mark.parametrize(("training", "validation"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0), (3.0, 0.0)])
def test_the_architecture_steps_by_adam_along_both_losses_with_their_coefficients(
    training: float, validation: float
) -> None:
    """Of six images in either half a batch has all; Adam's first step is the rate times g / (|g| + epsilon)."""
    one = task(
        supernet(),
        SEARCH,
        fednas_training_coefficient=training,
        fednas_validation_coefficient=validation,
        fednas_architecture_weight_decay=0.5,
    )
    before = supernet().layout.unflatten(one.weights)[ALPHAS]
    by_half = slopes()
    gradient = training * by_half["training"] + validation * by_half["validation"] + 0.5 * before
    expected = before - RATE * gradient / (gradient.abs() + 1e-8)
    after = tensors(one, run(one))[ALPHAS]
    assert torch.allclose(after, expected, atol=2e-4)
    assert not torch.allclose(after, before, atol=RATE / 2)


def test_without_either_loss_the_architecture_stays_to_the_bit_whatever_its_decay() -> None:
    off = {"fednas_training_coefficient": 0.0, "fednas_validation_coefficient": 0.0}
    one = task(supernet(), SEARCH, fednas_architecture_weight_decay=0.5, **off)
    before, after = supernet().layout.unflatten(one.weights), tensors(one, run(one))
    assert torch.equal(after[ALPHAS], before[ALPHAS])
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_weights_step_once_on_the_training_half_at_the_new_architecture() -> None:
    one = task(supernet(), SEARCH)
    after = tensors(one, run(one))
    first, _ = halves(images(), one.seed)
    module = fresh(one)
    with torch.no_grad():
        module.get_parameter(ALPHAS).copy_(after[ALPHAS])
    F.cross_entropy(module(PLAIN.eval_batch(first.images)), first.labels).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        if name != ALPHAS:
            slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.allclose(after[name], parameter.detach() - 0.1 * slope, atol=1e-5), name


def other_half_changed(number: int) -> Images:
    data = images()
    numbered = Images(torch.arange(12, dtype=torch.uint8)[:, None, None, None], data.labels)
    for position in halves(numbered, 0)[number].images.flatten().tolist():
        data.images[position] = 255 - data.images[position]
    return data


def test_weights_never_learn_from_the_validation_half_but_the_architecture_does() -> None:
    changed = other_half_changed(1)
    frozen = task(supernet(), SEARCH, frozen_norms=True, fednas_architecture_learning_rate=1e-12)
    a, b = tensors(frozen, run(frozen)), tensors(frozen, run(frozen, changed))
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-9), name
    one = task(supernet(), SEARCH, frozen_norms=True, fednas_training_coefficient=0.0, **STILL)
    assert not torch.equal(tensors(one, run(one))[ALPHAS], tensors(one, run(one, changed))[ALPHAS])
    blind = task(supernet(), SEARCH, frozen_norms=True, fednas_validation_coefficient=0.0, **STILL)
    assert torch.equal(tensors(blind, run(blind))[ALPHAS], tensors(blind, run(blind, changed))[ALPHAS])


def test_halves_are_apart_equal_stratified_and_the_same_in_every_round() -> None:
    data = Images(torch.arange(24, dtype=torch.uint8)[:, None, None, None], images(24).labels)
    first, second = halves(data, 7)
    assert sorted([*first.images.flatten().tolist(), *second.images.flatten().tolist()]) == list(range(24))
    assert first.labels.bincount().tolist() == second.labels.bincount().tolist() == [4, 4, 4]
    assert torch.equal(halves(data, 7)[0].images, first.images)
    assert not torch.equal(halves(data, 8)[0].images, first.images)


def test_three_images_are_too_few_to_search_with() -> None:
    with pytest.raises(DataError, match="two images in each half, but this device has 3"):
        run(task(supernet(), SEARCH), images(3))


def test_the_rate_falls_along_a_cosine_and_begins_anew_in_each_round() -> None:
    order = CellOrder(epochs=4, learning_rate=0.025, fednas_lowest_learning_rate=0.001)
    rates = [cosine(order)(epoch) for epoch in (1, 2, 3, 4)]
    middle = 0.001 + 0.024 * (1 + math.cos(math.pi / 4)) / 2
    assert rates == pytest.approx([0.025, middle, 0.013, 0.026 - middle])
    assert cosine(CellOrder(epochs=3, learning_rate=0.0005))(3) == pytest.approx(0.0005)  # never up


@pytest.mark.parametrize(("network", "step"), [(supernet, SEARCH), (found, TRAIN)])
def test_only_gradients_of_weights_are_clipped(network: Callable[[], Architecture], step: str) -> None:
    """The published program clips those of the architecture, by a slip."""
    one = task(network(), step, max_gradient_norm=1e-3)
    before, after = network().layout.unflatten(one.weights), tensors(one, run(one, images(6 if step == TRAIN else 12)))
    names = {name for name, _ in network().build(0).named_parameters()} - {ALPHAS}
    moved = math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in names))
    assert moved == pytest.approx(0.1 * 1e-3, rel=0.02)
    if step == SEARCH:
        assert float((after[ALPHAS] - before[ALPHAS]).abs().max()) > RATE / 2


def test_the_found_network_is_trained_on_all_images() -> None:
    one = task(found(), TRAIN, batch_size=12)
    after = tensors(one, run(one))
    module = fresh(one)
    data = images()
    F.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(after[name], parameter.detach() - 0.1 * parameter.grad, atol=1e-5), name


def test_the_auxiliary_heads_loss_has_its_coefficient() -> None:
    data = images(6, side=32)
    one = task(headed(), TRAIN, fednas_auxiliary_coefficient=0.4)
    after = tensors(one, run(one, data))
    module = fresh(one)
    loss = F.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels)
    (loss + 0.4 * F.cross_entropy(module.auxiliary_logits, data.labels)).backward()  # type: ignore[arg-type]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        # batch norms of six values each make much of rounding; without the head it would be 0.05 and more
        assert torch.allclose(after[name], parameter.detach() - 0.1 * parameter.grad, atol=1e-2), name


def test_dropped_paths_are_drawn_from_the_seed_and_end_elsewhere() -> None:
    plain, dropping = task(found(), TRAIN), task(found(), TRAIN, fednas_drop_path=0.5)
    ends = [run(one).arrays[WEIGHTS].tobytes() for one in (plain, dropping, dropping, plain)]
    assert ends[0] != ends[1]
    assert ends[1] == ends[2]
    assert ends[3] == ends[0]  # the module is kept from task to task, the probability is not


def test_each_step_needs_its_network() -> None:
    with pytest.raises(MessageError, match="no architecture parameters"):
        run(task(found(), SEARCH))
    with pytest.raises(MessageError, match="not one of found cells"):
        run(task(supernet(), TRAIN))


def test_the_searchs_work_is_counted_as_it_is_done() -> None:
    """Three passes for the weights and two for each gradient of the architecture, on half of the images."""
    assert search_macs(1000, CellOrder()) == 3500
    assert search_macs(1000, CellOrder(epochs=2, fednas_training_coefficient=0.0)) == 5000
    off = {"fednas_training_coefficient": 0.0, "fednas_validation_coefficient": 0.0}
    assert search_macs(1000, CellOrder(**off)) == 1500
