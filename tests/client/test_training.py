"""Local training and evaluation: plain SGD, decided by the task and the device's name alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from client import methods
from client.data import DeviceData
from client.evaluation import evaluate_task
from client.methods.dac import STEPS
from client.models import require_fit
from client.steps import Here, Work, run_step
from common.architecture import Architecture
from common.arrays import Vector
from common.budget import OPTIMIZERS
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import ConfigurationError, FederationError, MessageError
from common.layout import load_weights
from common.messages import Result, Task
from common.methods import CONTRACTS
from common.methods.evaluation import EVALUATE, EvaluationOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from common.optimizers import make_optimizer

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
ARCHITECTURE = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3))
LAYOUT = ARCHITECTURE.layout


def task_for(architecture: Architecture, **order: Any) -> Task:
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    return Task("dac", TRAIN, 1, architecture, TrainingOrder(**order).to_mapping(), {"weights": weights})


def ordered(task: Task, **changes: Any) -> Task:
    """The same task with another order; nothing is checked."""
    return replace(task, order={**task.order, **{name.replace("_", "-"): value for name, value in changes.items()}})


TASK = task_for(ARCHITECTURE, batch_size=4, learning_rate=0.1)
EVALUATION = replace(TASK, step=EVALUATE, order=EvaluationOrder(batch_size=4).to_mapping())


def images(count: int, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 3) -> Images:
    generator = torch.Generator().manual_seed(count)
    return Images(
        torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8),
        torch.randint(classes, (count,), generator=generator),
    )


def train_on(task: Task, data: Images, preprocessor: Preprocessor = PLAIN, name: str = "device-00") -> Result:
    return run_step(STEPS, task, DeviceData(data, None, preprocessor), name, CPU)


def train(task: Task = TASK, name: str = "device-00", count: int = 10) -> Result:
    return train_on(task, images(count), Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "crop"), name)


def weights(result: Result) -> Vector:
    assert set(result.arrays) == {"weights"}
    return result.arrays["weights"]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_device_steps_by_the_optimizer_of_that_name(kind: str) -> None:
    data = images(6)
    found = weights(
        train_on(ordered(TASK, batch_size=6, epochs=3, optimizer=kind, momentum=0.7, weight_decay=0.1), data)
    )
    module = ARCHITECTURE.build(0).train()
    optimizer = make_optimizer(kind, module.parameters(), 0.1, 0.7, 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(LAYOUT.flatten(module.state_dict())))


def test_one_batch_is_one_step_of_gradient_descent() -> None:
    data = images(6)
    result = train_on(ordered(TASK, batch_size=6), data)
    module = ARCHITECTURE.build(0)
    module.train()
    loss = F.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {name: p.detach() - 0.1 * p.grad for name, p in module.named_parameters() if p.grad is not None}
    state = LAYOUT.unflatten(weights(result))
    assert set(expected) == set(state)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert (result.samples, result.round, result.method, result.step) == (6, 1, "dac", "train")
    assert result.peak_rss_bytes > 2**20
    assert 0 < result.seconds < 60


def test_the_same_task_gives_the_same_bits_whatever_was_trained_between() -> None:
    first = weights(train())
    train(replace(TASK, round=9), name="another", count=7)
    torch.rand(3)
    assert weights(train()).tobytes() == first.tobytes()


def test_seed_round_and_name_each_give_other_randomness() -> None:
    results = [train(), train(replace(TASK, seed=1)), train(replace(TASK, round=2)), train(name="device-01")]
    assert len({weights(result).tobytes() for result in results}) == 4


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"batch_size": 3}, {"learning_rate": 0.05}, {"momentum": 0.9}, {"weight_decay": 0.1}]
)
def test_the_task_decides_how_a_device_trains(change: dict[str, Any]) -> None:
    assert weights(train(ordered(TASK, **change))).tobytes() != weights(train()).tobytes()


def test_dropout_is_seeded_and_the_process_keeps_its_own_randomness() -> None:
    architecture = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 3))
    task = task_for(architecture, batch_size=4)
    before = torch.get_rng_state()
    first, second = (weights(train_on(task, images(10))) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_norm_statistics_travel_with_the_weights() -> None:
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25))
    layout = architecture.layout
    task = task_for(architecture, batch_size=5)
    trained = layout.unflatten(weights(train_on(task, images(11))))
    means = [name for name in trained if name.endswith("running_mean")]
    assert means
    assert all(bool(trained[name].any()) for name in means)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "reason"),
    [
        (0, 4, "epochs must be at least 1, not 0"),
        (-1, 4, "epochs must be at least 1, not -1"),
        (1, 0, "batch-size must be at least 1, not 0"),
        (1, -2, "batch-size must be at least 1, not -2"),
    ],
)
def test_an_impossible_task_is_refused(epochs: int, batch_size: int, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{reason}$"):
        train(ordered(TASK, epochs=epochs, batch_size=batch_size))


def test_images_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(MessageError, match=r"\(1, 8, 8\), this device has \(3, 8, 8\)"):
        train_on(TASK, images(4, (3, 8, 8)))
    data = images(4)
    with pytest.raises(MessageError, match="3 classes, this device has label 9"):
        train_on(TASK, Images(data.images, data.labels * 0 + 9))


def test_a_network_fits_images_of_its_shape_with_labels_below_its_classes() -> None:
    data = images(4)
    require_fit(ARCHITECTURE, Images(data.images, data.labels * 0 + 2))
    with pytest.raises(MessageError, match="3 classes, this device has label 3"):
        require_fit(ARCHITECTURE, Images(data.images, data.labels * 0 + 3))


def test_a_deadline_ends_training_with_a_clear_reason() -> None:
    with pytest.raises(FederationError, match=r"^did not finish step train within 0\.2 s$"):
        train(replace(ordered(TASK, epochs=100_000), deadline_seconds=0.2))
    assert train().samples == 10  # and the next task is not disturbed


def test_training_that_diverges_is_an_error_not_a_model() -> None:
    with pytest.raises(FederationError, match="diverged in epoch"):
        train(ordered(TASK, learning_rate=1e30, epochs=5))


def test_evaluation_scores_the_model_that_was_sent() -> None:
    data = images(9)
    result = evaluate_task(EVALUATION, data, PLAIN, CPU)
    module = ARCHITECTURE.build(1).eval()
    load_weights(module, LAYOUT.unflatten(TASK.weights))
    with torch.no_grad():
        logits = module(PLAIN.eval_batch(data.images))
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == data.labels).double().mean()))
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-5)
    assert (result.samples, result.round) == (9, 1)


def test_evaluation_without_held_out_images_is_refused() -> None:
    with pytest.raises(MessageError, match="holds no images out"):
        evaluate_task(EVALUATION, None, PLAIN, CPU)


def test_evaluation_refuses_images_and_orders_that_do_not_fit() -> None:
    with pytest.raises(MessageError, match=r"\(1, 8, 8\), this device has \(3, 8, 8\)"):
        evaluate_task(EVALUATION, images(4, (3, 8, 8)), PLAIN, CPU)
    with pytest.raises(ConfigurationError, match=r"^batch-size must be at least 1, not 0$"):
        evaluate_task(ordered(EVALUATION, batch_size=0), images(4), PLAIN, CPU)


def test_frozen_batch_norms_come_back_with_the_statistics_they_were_sent_with() -> None:
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25))
    layout = architecture.layout
    sent = layout.unflatten(layout.flatten(architecture.build(0).state_dict()))
    task = task_for(architecture, batch_size=5, learning_rate=0.01)

    def moved(frozen: bool) -> set[str]:
        state = layout.unflatten(weights(train(ordered(task, frozen_norms=frozen))))
        return {name for name in state if "running" in name and not torch.equal(state[name], sent[name])}

    assert moved(frozen=True) == set()
    assert len(moved(frozen=False)) > 50


def test_a_long_gradient_is_scaled_down_and_a_short_one_is_left_alone() -> None:
    """One step of plain SGD moves the weights by the learning rate times the gradient."""
    data = images(6)
    task = ordered(TASK, batch_size=6, momentum=0.0)

    def step(limit: float) -> torch.Tensor:
        return torch.from_numpy(weights(train_on(ordered(task, max_gradient_norm=limit), data)) - TASK.weights)

    free = step(0.0)
    norm = float(free.norm()) / 0.1
    assert float(step(0.5 * norm).norm()) == pytest.approx(0.05 * norm, rel=1e-3)
    torch.testing.assert_close(step(0.5 * norm), 0.5 * free, rtol=1e-3, atol=1e-6)
    assert torch.equal(step(2 * norm), free)


# ---- what surrounds every step


def test_every_method_finds_its_steps() -> None:
    others = {
        "autoflip": {"explore", TRAIN, "train-sparse"},
        "fedgkt": {"extract"},
        "fednas": {"search", TRAIN},
    }
    for name, contract in CONTRACTS.items():
        assert set(methods.device_half(contract)) == others.get(name, {TRAIN})


def test_a_step_that_a_method_does_not_have_is_refused() -> None:
    with pytest.raises(MessageError, match=r"^method dac has no step 'teach' on devices$"):
        train(replace(TASK, step="teach"))
    with pytest.raises(MessageError, match=r"^method dac has no step 'evaluate' on devices$"):
        train(EVALUATION)


def test_a_task_without_weights_is_refused() -> None:
    with pytest.raises(MessageError, match=r"^step 'train' came without weights$"):
        train(replace(TASK, arrays={}))


def run_with(step: Callable[[Task, Here], Work], task: Task = TASK, name: str = "device-00") -> Result:
    data = images(10)
    held_out = images(3)
    return run_step({TRAIN: step, "other": step}, task, DeviceData(data, held_out, PLAIN), name, CPU)


def test_a_step_is_given_the_training_images_and_its_arrays_come_back() -> None:
    def step(task: Task, here: Here) -> Work:
        assert task is TASK
        assert len(here.images) == 10
        assert (here.preprocessor, here.accelerator) == (PLAIN, CPU)
        here.check_deadline()
        return Work({"a": task.weights[:2], "b": task.weights[:3]}, 0.25)

    result = run_with(step)
    assert (set(result.arrays), result.loss, result.samples) == ({"a", "b"}, 0.25, 10)
    assert (result.method, result.step, result.round) == ("dac", "train", 1)


def test_each_step_round_and_device_has_randomness_of_its_own() -> None:
    drawn: list[tuple[float, float]] = []

    def step(task: Task, here: Here) -> Work:
        drawn.append((float(torch.rand((), generator=here.generator)), float(torch.rand(()))))
        return Work({}, 0.0)

    tasks = [TASK, replace(TASK, step="other"), replace(TASK, round=2), replace(TASK, seed=1)]
    for task in tasks:
        run_with(step, task)
    run_with(step, name="device-01")
    assert len({number for both in drawn for number in both}) == 10
    run_with(step, replace(TASK, order={}, arrays={}))
    assert drawn[-1] == drawn[0]


def test_a_step_that_does_not_end_is_ended() -> None:
    def step(task: Task, here: Here) -> Work:
        while True:
            pass

    with pytest.raises(FederationError, match=r"^did not finish step other within 0\.05 s$"):
        run_with(step, replace(TASK, step="other", deadline_seconds=0.05))
