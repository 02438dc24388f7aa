"""Training to the end: the schedule by hand, who decays, and the same weights to the bit after every kill."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import CheckpointError, FedDACError
from common.groups import TrainSettings
from common.learning import Feed
from common.models.description import BaseNetwork
from common.progress import Silent
from dac.train import Trained, learning_rate_factor, train_architecture
from tests.dac.images import bright_corners
from tests.examples import slow

CPU = torch.device("cpu")
CNN = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 4))
MOBILE = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25))
MLP = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 4))
SETTINGS = TrainSettings(epochs=4, learning_rate=0.05)


class Killed(Exception):
    """The process ended here."""


class KilledAfter(Silent):
    """Progress that ends the training at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def advance(self, stage: str, units: int, message: str) -> None:
        """Count down."""
        self.calls -= 1
        if self.calls == 0:
            raise Killed


def run(
    feeds: tuple[Feed, Feed],
    architecture: Architecture = CNN,
    settings: TrainSettings = SETTINGS,
    seed: int = 0,
    **options: Any,
) -> Trained:
    state = options.pop("state", None)
    progress = options.pop("progress", Silent())
    return train_architecture(
        architecture, state, *feeds, settings, seed=seed, accelerator=CPU, progress=progress, **options
    )


def same(first: Trained, second: Trained) -> bool:
    return all(torch.equal(value, second.state[name]) for name, value in first.state.items())


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert factors[9] == pytest.approx(0.5 * (1 + torch.cos(torch.tensor(7 * torch.pi / 8)).item()), rel=1e-5)
    assert factors[2:] == sorted(factors[2:], reverse=True)


def test_without_warm_up_training_starts_at_the_full_rate() -> None:
    assert learning_rate_factor(0, 10, 0.0) == 1.0


def test_the_recorded_rate_is_that_of_the_last_step(feeds: tuple[Feed, Feed]) -> None:
    rows: list[dict[str, Any]] = []
    run(feeds, record=rows.append)
    steps = 4 * 5  # forty images in batches of eight
    expected = [0.05 * learning_rate_factor(step, steps, 0.05) for step in (4, 9, 14, 19)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("architecture", [CNN, *slow(MOBILE)])
@pytest.mark.parametrize("seed", [0, *slow(1)])
def test_training_learns(architecture: Architecture, seed: int) -> None:
    """From 200 images; forty, in batches of eight, leave a MobileNetV2 to chance (0.70 to 1.00 over six seeds)."""
    many = replace(bright_corners(200, 0), batch_size=20), bright_corners(20, 1)
    trained = run(many, architecture, TrainSettings(epochs=12, learning_rate=0.05), seed)
    assert trained.validation_accuracy >= 0.9


def test_only_matrices_and_filters_decay(feeds: tuple[Feed, Feed]) -> None:
    # a rate this small moves nothing but what a huge decay pulls to zero, in five steps
    settings = TrainSettings(epochs=1, learning_rate=1e-8, momentum=0.0, weight_decay=1e7, warmup_share=0.0)
    shrunk = math.prod(1 - 0.1 * learning_rate_factor(step, 5, 0.0) for step in range(5))
    start = {name: tensor.clone() for name, tensor in MOBILE.build(3).state_dict().items()}
    end = run(feeds, MOBILE, settings, state=start).state
    for name, parameter in MOBILE.build(3).named_parameters():
        expected = start[name] * (shrunk if parameter.dim() > 1 else 1.0)
        torch.testing.assert_close(end[name], expected, rtol=1e-4, atol=1e-6)


def test_it_starts_from_the_weights_given(feeds: tuple[Feed, Feed]) -> None:
    state = CNN.build(9).state_dict()
    trained = run(feeds, settings=TrainSettings(epochs=0), state=state)
    assert all(torch.equal(value, trained.state[name]) for name, value in state.items())


def test_the_weights_given_are_left_alone(feeds: tuple[Feed, Feed]) -> None:
    state = CNN.build(9).state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    run(feeds, state=state)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


def test_equal_seeds_give_equal_weights_and_no_global_state_changes(feeds: tuple[Feed, Feed]) -> None:
    before = torch.random.get_rng_state()
    first, second, other = run(feeds), run(feeds), run(feeds, seed=1)
    assert same(first, second)
    assert not same(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("architecture", [MOBILE, MLP], ids=["batch norm", "dropout"])
def test_a_training_killed_after_any_epoch_ends_with_the_same_weights(
    feeds: tuple[Feed, Feed], tmp_path: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac.train.SHARE", 1.0)  # a checkpoint after every epoch, whatever it costs
    expected = run(feeds, architecture)
    for calls in range(1, SETTINGS.epochs + 2):
        checkpoint = tmp_path / f"{calls}.safetensors"
        with pytest.raises(Killed):
            run(feeds, architecture, checkpoint=checkpoint, progress=KilledAfter(calls))
        assert checkpoint.exists() == (calls > 1)
        rows: list[dict[str, Any]] = []
        resumed = run(feeds, architecture, checkpoint=checkpoint, record=rows.append)
        assert same(resumed, expected)
        assert resumed.validation_accuracy == expected.validation_accuracy
        assert [row["epoch"] for row in rows] == list(range(calls, SETTINGS.epochs + 1))


def test_what_was_trained_since_the_last_checkpoint_is_trained_again_in_the_same_way(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac.train.SHARE", 1e-9)  # the first epoch is written down, and no other before the last
    checkpoint = tmp_path / "train.safetensors"
    expected = run(feeds)
    with pytest.raises(Killed):
        run(feeds, checkpoint=checkpoint, progress=KilledAfter(SETTINGS.epochs))
    rows: list[dict[str, Any]] = []
    assert same(run(feeds, checkpoint=checkpoint, record=rows.append), expected)
    assert [row["epoch"] for row in rows] == list(range(2, SETTINGS.epochs + 1))


def test_a_finished_training_is_not_repeated(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    checkpoint = tmp_path / "train.safetensors"
    first = run(feeds, checkpoint=checkpoint)
    rows: list[dict[str, Any]] = []
    assert same(run(feeds, checkpoint=checkpoint, record=rows.append), first)
    assert rows == []


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"settings": TrainSettings(epochs=5)}, {"state": CNN.build(4).state_dict()}]
)
def test_a_checkpoint_of_another_training_is_refused(
    feeds: tuple[Feed, Feed], tmp_path: Path, change: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "train.safetensors"
    run(feeds, checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match="belongs to other"):
        run(feeds, checkpoint=checkpoint, **change)


def other_images(feed: Feed) -> Feed:
    """The same labels, and one pixel that is brighter."""
    pixels = feed.images.images.clone()
    pixels[0, 0, 0, 0] += 1
    return replace(feed, images=Images(pixels, feed.images.labels))


def otherwise_prepared(feed: Feed, mean: float = 0.2, deviation: float = 0.25, augment: str = "none") -> Feed:
    return replace(feed, preprocessor=Preprocessor(torch.tensor([mean]), torch.tensor([deviation]), augment))


@pytest.mark.parametrize(
    "change",
    [
        other_images,
        partial(otherwise_prepared, mean=0.3),
        partial(otherwise_prepared, deviation=0.3),
        partial(otherwise_prepared, augment="crop"),
    ],
    ids=["images", "mean", "deviation", "augmentation"],
)
def test_a_checkpoint_of_other_images_is_refused(
    feeds: tuple[Feed, Feed], tmp_path: Path, change: Callable[[Feed], Feed]
) -> None:
    checkpoint = tmp_path / "train.safetensors"
    first = run(feeds, checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match="belongs to other"):
        run((change(feeds[0]), feeds[1]), checkpoint=checkpoint)
    assert same(run((otherwise_prepared(feeds[0]), feeds[1]), checkpoint=checkpoint), first)


def test_a_damaged_checkpoint_is_refused(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    checkpoint = tmp_path / "train.safetensors"
    checkpoint.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        run(feeds, checkpoint=checkpoint)


def test_a_penalty_changes_the_weights_it_names(feeds: tuple[Feed, Feed]) -> None:
    def small_bias(module: torch.nn.Module) -> torch.Tensor:
        return 100 * module.get_parameter("classifier.bias").pow(2).sum()

    settings = TrainSettings(epochs=4, learning_rate=0.003)
    plain, penalised = run(feeds, settings=settings), run(feeds, settings=settings, penalty=small_bias)
    assert penalised.state["classifier.bias"].norm() < 0.1 * plain.state["classifier.bias"].norm()


def test_bfloat16_learns_too_and_keeps_float32_weights(feeds: tuple[Feed, Feed]) -> None:
    trained = run(feeds, settings=TrainSettings(epochs=20, learning_rate=0.05, bf16=True))
    assert trained.validation_accuracy >= 0.9
    assert all(tensor.dtype != torch.bfloat16 for tensor in trained.state.values())


def test_divergence_is_an_error_that_says_what_to_change(feeds: tuple[Feed, Feed]) -> None:
    with pytest.raises(FedDACError, match="lower --learning-rate"):
        run(feeds, settings=TrainSettings(epochs=10, learning_rate=1e12))


def teacher_that_says(answer: int) -> torch.nn.Module:
    """A network that answers `answer` to everything, very surely."""
    module = MLP.build(5)
    layer = [one for one in module.modules() if isinstance(one, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.bias[answer] = 20.0
    return module


@pytest.mark.parametrize(("share", "follows"), [(1.0, True), (0.0, False)])
def test_a_teacher_is_followed_by_its_share(feeds: tuple[Feed, Feed], share: float, follows: bool) -> None:
    settings = TrainSettings(epochs=8, learning_rate=0.05, distillation=share)
    trained = run(feeds, MLP, settings, teacher=teacher_that_says(2))
    module = MLP.build(0)
    module.load_state_dict(trained.state)
    module.eval()
    images = torch.cat([batch.images for batch in feeds[0].evaluation(CPU)])
    assert bool((module(images).argmax(1) == 2).all()) == follows


def test_a_training_with_a_teacher_resumes_too_and_not_with_another_one(
    feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    whole = run(feeds, MLP, teacher=teacher_that_says(2))
    place = tmp_path / "train.safetensors"
    with pytest.raises(Killed):
        run(feeds, MLP, teacher=teacher_that_says(2), checkpoint=place, progress=KilledAfter(4))
    with pytest.raises(CheckpointError):
        run(feeds, MLP, teacher=teacher_that_says(1), checkpoint=place)
    assert same(whole, run(feeds, MLP, teacher=teacher_that_says(2), checkpoint=place))


@pytest.mark.parametrize("limit", [0.01, 1e-4])
def test_a_step_moves_the_weights_no_further_than_the_rate_times_the_longest_gradient(
    feeds: tuple[Feed, Feed], limit: float
) -> None:
    whole = replace(feeds[0], batch_size=len(feeds[0].images)), feeds[1]  # one step an epoch
    once = TrainSettings(epochs=1, learning_rate=0.5, momentum=0.0, nesterov=False, weight_decay=0.0, warmup_share=0.0)

    def moved(max_gradient_norm: float) -> float:
        before = CNN.build(0).state_dict()
        after = run(whole, settings=replace(once, max_gradient_norm=max_gradient_norm), state=before).state
        return math.sqrt(sum(float((after[name] - value).square().sum()) for name, value in before.items()))

    assert moved(0.0) > 0.5 * limit
    assert moved(limit) == pytest.approx(0.5 * limit, rel=1e-3)
