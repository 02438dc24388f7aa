"""AutoFLIP's device half: exploration from one frozen base, and training in which removed weights stay removed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client.data import DeviceData
from client.methods.autoflip import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import MessageError
from common.messages import Result, Task
from common.methods.autoflip import EXPLORE, SPARSE, ExplorationOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from common.optimizers import SGD, Adam
from common.sparse import packed, spread

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
# a perceptron has dropout, a small convolutional network has none
NETWORK = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3, width=0.25))
LAYOUT = NETWORK.layout
WEIGHTS = LAYOUT.flatten(NETWORK.build(0).state_dict())
ORDER = ExplorationOrder(epochs=3, batch_size=4, learning_rate=0.1, patience=3)


def images(seed: int = 0, count: int = 8) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def explore(order: ExplorationOrder = ORDER, name: str = "device-00", data: Images | None = None) -> Result:
    task = Task("autoflip", EXPLORE, 1, NETWORK, order.to_mapping(), {"weights": WEIGHTS})
    return run_step(STEPS, task, DeviceData(data or images(), None, PLAIN), name, CPU)


def train(order: TrainingOrder, arrays: dict[str, Any], step: str = SPARSE, name: str = "device-00") -> Result:
    task = Task("autoflip", step, 2, NETWORK, order.to_mapping(), arrays)
    return run_step(STEPS, task, DeviceData(images(), None, PLAIN), name, CPU)


def half_kept() -> Any:
    return np.random.default_rng(1).random(LAYOUT.size) < 0.5


def test_an_explorer_reports_how_far_each_weight_moved_in_plain_training_squared() -> None:
    """Three epochs from the base, as federated averaging would train them with the same draws."""
    result = explore()
    assert sorted(result.arrays) == ["displacement", "epochs"]
    assert result.arrays["epochs"].tolist() == [3]
    # the generator follows from step, round and name, so the same training has to be asked under the same step's name
    plain = Task(
        "autoflip",
        EXPLORE,
        1,
        NETWORK,
        TrainingOrder.picked_from(ORDER.to_mapping()).to_mapping(),
        {
            "weights": WEIGHTS,
        },
    )
    trained = run_step({EXPLORE: STEPS[TRAIN]}, plain, DeviceData(images(), None, PLAIN), "device-00", CPU)
    moved = (trained.arrays["weights"] - WEIGHTS) ** 2
    assert np.array_equal(result.arrays["displacement"], moved)
    assert moved.dtype == np.float32
    assert moved.max() > 0
    assert result.loss == trained.loss


def test_every_explorer_has_its_own_copy_of_the_base() -> None:
    """The published explorers share one module: each began where the one before had ended."""
    second_alone = explore(name="device-01", data=images(5)).arrays["displacement"]
    explore(name="device-00")
    after_another = explore(name="device-01", data=images(5)).arrays["displacement"]
    assert np.array_equal(second_alone, after_another)
    assert np.array_equal(WEIGHTS, LAYOUT.flatten(NETWORK.build(0).state_dict()))


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (3, 4), (50, 6)])
def test_an_exploration_that_finds_nothing_better_ends_after_so_many_epochs(patience: int, epochs: int) -> None:
    """With equal images and a learning rate of 0 the loss is the same in every epoch: the first is the best."""
    alike = Images(torch.full((8, 1, 8, 8), 90, dtype=torch.uint8), torch.ones(8, dtype=torch.int64))
    result = explore(replace(ORDER, learning_rate=0.0, epochs=6, patience=patience, batch_size=8), data=alike)
    assert result.arrays["epochs"].tolist() == [epochs]
    assert not result.arrays["displacement"].any()


ORDERS = [
    TrainingOrder(epochs=2, batch_size=4, learning_rate=0.1),
    TrainingOrder(epochs=2, batch_size=4, learning_rate=0.1, momentum=0.9, weight_decay=0.1),
    TrainingOrder(epochs=2, batch_size=4, learning_rate=0.01, optimizer="adam", momentum=0.9, weight_decay=0.1),
    TrainingOrder(epochs=2, batch_size=4, learning_rate=0.1, max_gradient_norm=0.05),
]


@pytest.mark.parametrize("order", ORDERS, ids=["sgd", "momentum and decay", "adam and decay", "clipped"])
def test_removed_weights_stay_zero_at_every_step(order: TrainingOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published masks were lost: zeros grew again under Adam."""
    kept, seen = half_kept(), []
    removed = {name: part == 0 for name, part in LAYOUT.unflatten(kept.astype(np.float32)).items()}
    kind = Adam if order.optimizer == "adam" else SGD
    step = kind.step

    def watched(self: Any, *arguments: Any) -> Any:
        result = step(self, *arguments)
        for name, parameter in zip(LAYOUT.names, self.param_groups[0]["params"], strict=True):
            seen.append(not parameter.detach()[removed[name]].any())
        return result

    monkeypatch.setattr(kind, "step", watched)
    result = train(order, {"values": WEIGHTS[kept], "mask": packed(kept)})
    assert len(seen) == 2 * 2 * len(LAYOUT.names)
    assert all(seen)
    assert list(result.arrays) == ["values"]
    values = result.arrays["values"]
    assert values.shape == (kept.sum(),)
    assert (values != WEIGHTS[kept]).mean() > 0.5


def test_a_step_under_the_mask_by_hand() -> None:
    """One batch of all images: kept weights move against the gradient of the masked network, clipped to norm 0.05."""
    kept = half_kept()
    order = TrainingOrder(epochs=1, batch_size=8, learning_rate=0.1, max_gradient_norm=0.05)
    values = train(order, {"values": WEIGHTS[kept], "mask": packed(kept)}).arrays["values"]
    dense = spread(WEIGHTS[kept], kept)
    module = NETWORK.build_from(LAYOUT.unflatten(dense))
    data = images()
    logits = module(PLAIN.eval_batch(data.images))
    torch.nn.functional.cross_entropy(logits, data.labels).backward()
    slopes = {name: one.grad for name, one in module.named_parameters() if one.grad is not None}
    gradient = LAYOUT.flatten(slopes)[kept]
    norm = float(np.linalg.norm(gradient))
    wanted = WEIGHTS[kept] - 0.1 * gradient * 0.05 / norm
    assert norm > 0.05
    np.testing.assert_allclose(values, wanted, atol=1e-6)


def test_the_mask_is_gone_after_the_step() -> None:
    """Modules are kept for the next task; a hook left on one would mask another device's training."""
    order = TrainingOrder(epochs=1, batch_size=4, learning_rate=0.1)
    before = train(order, {"weights": WEIGHTS}, TRAIN).arrays["weights"]
    kept = half_kept()
    train(order, {"values": WEIGHTS[kept], "mask": packed(kept)})
    assert np.array_equal(train(order, {"weights": WEIGHTS}, TRAIN).arrays["weights"], before)


def test_a_mask_that_keeps_all_changes_nothing() -> None:
    kept = np.ones(LAYOUT.size, np.bool_)
    order = TrainingOrder(epochs=1, batch_size=4, learning_rate=0.1)
    task = Task("autoflip", SPARSE, 2, NETWORK, order.to_mapping(), {"weights": WEIGHTS})
    plain = run_step({SPARSE: STEPS[TRAIN]}, task, DeviceData(images(), None, PLAIN), "device-00", CPU)
    sparse = train(order, {"values": WEIGHTS, "mask": packed(kept)})
    assert np.array_equal(sparse.arrays["values"], plain.arrays["weights"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mask": packed(half_kept())}, "came without values"),
        ({"values": WEIGHTS}, "came without mask"),
        ({"values": WEIGHTS, "mask": packed(half_kept())}, "weights are kept"),
        ({"values": WEIGHTS, "mask": packed(half_kept())[:-1]}, "bytes, not uint8"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(MessageError, match=message):
        train(TrainingOrder(batch_size=4), arrays)


def test_adam_is_torchs_with_the_orders_momentum() -> None:
    order = TrainingOrder(epochs=2, batch_size=8, learning_rate=0.01, optimizer="adam", momentum=0.8, weight_decay=0.05)
    found = train(order, {"weights": WEIGHTS}, TRAIN).arrays["weights"]
    module = NETWORK.build_from(LAYOUT.unflatten(WEIGHTS))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, betas=(0.8, 0.999), weight_decay=0.05)
    data = images()
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels).backward()
        optimizer.step()
    np.testing.assert_allclose(found, LAYOUT.flatten(module.state_dict()), atol=1e-5)
