"""FedGKT's device half: what it learns from the server, by image and not by batch, and what it sends."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from client.data import DeviceData
from client.methods import fedavg
from client.methods.fedgkt import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.arrays import Array
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import FederationError, MessageError
from common.learning import place
from common.messages import WEIGHTS, Result, Task
from common.methods.fedgkt import EXTRACT, FEATURES, IDS, LABELS, LOGITS, Transfer, TransferOrder, row_specs
from common.methods.training import TRAIN, TrainingOrder
from common.models.bottleneck import DEVICE_NETWORK, BottleneckResNet
from common.models.description import BaseNetwork

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
CROPPED = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "crop")
NETWORK = Architecture.full(BaseNetwork(DEVICE_NETWORK, (1, 8, 8), 3))
SENT = NETWORK.layout.flatten(NETWORK.build(0).state_dict())
COUNT = 10
ORDER = TransferOrder(epochs=2, batch_size=4, learning_rate=0.1)
ANSWERS = np.random.default_rng(0).normal(size=(COUNT, 3)).astype("<f4") * 5


def images(count: int = COUNT) -> Images:
    generator = torch.Generator().manual_seed(0)
    return Images(torch.randint(256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(count) % 3)


def task(answers: Mapping[str, Array] | None = None, **changes: Any) -> Task:
    order = {**ORDER.to_mapping(), **{key.replace("_", "-"): value for key, value in changes.items()}}
    return Task("fedgkt", EXTRACT, 2, NETWORK, order, {WEIGHTS: SENT, **(answers or {})})


def run(one: Task, data: DeviceData | None = None, steps: Any = STEPS) -> Result:
    return run_step(steps, one, data or DeviceData(images(), None, PLAIN), "device-00", CPU)


def by_id(ids: Any, logits: Array = ANSWERS) -> dict[str, Array]:
    return {IDS: np.asarray(ids, "<i4"), LOGITS: logits[np.asarray(ids, "<i4")]}


def weights(result: Result) -> bytes:
    return result.arrays[WEIGHTS].tobytes()


def trained_by(result: Result) -> BottleneckResNet:
    """The network that the device had at the end."""
    module = NETWORK.build(0)
    module.load_state_dict(NETWORK.layout.unflatten(result.arrays[WEIGHTS]), strict=False)
    module = place(module, CPU).eval()
    assert isinstance(module, BottleneckResNet)
    return module


def test_what_is_sent_is_what_the_trained_network_makes_of_each_image() -> None:
    result = run(task())
    module, data = trained_by(result), images()
    assert set(result.arrays) == {WEIGHTS, IDS, FEATURES, LOGITS, LABELS}
    assert result.arrays[IDS].tolist() == list(range(COUNT))
    assert result.arrays[LABELS].tolist() == data.labels.tolist()
    with torch.no_grad():
        features = module.features(PLAIN.eval_batch(data.images))
        logits = module.classify(features)
    assert np.allclose(result.arrays[FEATURES], features.numpy(), atol=1e-5)
    assert np.allclose(result.arrays[LOGITS], logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_it_is_what_the_server_admits(kind: str) -> None:
    changes = {"fedgkt_feature_type": kind, "fedgkt_feature_clip": 0.5}
    result = run(task(**changes))
    specs = row_specs((16, 8, 8), 3, Transfer(**changes))
    for name, spec in specs.items():
        values = result.arrays[name]
        assert spec.check_form(name, values.dtype.str, values.shape, COUNT) == COUNT
        spec.check_values(name, values, COUNT)
    assert result.arrays[FEATURES].max() == 0.5
    assert run(task()).arrays[FEATURES].max() > 0.5


def test_images_held_out_never_leave_the_device() -> None:
    whole = images()
    kept, held_out = whole.subset(torch.arange(7)), whole.subset(torch.arange(7, COUNT))
    result = run(task(), DeviceData(kept, held_out, PLAIN))
    assert {len(result.arrays[name]) for name in (IDS, FEATURES, LOGITS, LABELS)} == {7}


def test_before_the_server_answers_it_is_plain_local_training() -> None:
    order = {key: value for key, value in ORDER.to_mapping().items() if key in TrainingOrder().to_mapping()}
    # a step of another name draws another order of images, so both go by one
    plain = Task("fedavg", EXTRACT, 2, NETWORK, order, {WEIGHTS: SENT})
    assert weights(run(task())) == weights(run(plain, steps={EXTRACT: fedavg.STEPS[TRAIN]}))


@pytest.mark.parametrize("ids", [[3, 1, 9, 0, 2, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_the_order_in_which_the_server_answers_does_not_matter(ids: list[int]) -> None:
    assert weights(run(task(by_id(ids)))) == weights(run(task(by_id(range(COUNT)))))


def test_answers_to_other_images_teach_something_else() -> None:
    """The published program's bug: answers by the number of a batch, whose images are others in each epoch."""
    shifted = {IDS: np.arange(COUNT, dtype="<i4"), LOGITS: np.roll(ANSWERS, 1, axis=0)}
    assert weights(run(task(shifted))) != weights(run(task(by_id(range(COUNT)))))


def test_images_without_an_answer_learn_their_label_alone() -> None:
    none = {IDS: np.zeros(0, "<i4"), LOGITS: np.zeros((0, 3), "<f4")}
    assert weights(run(task(none))) == weights(run(task()))
    assert len({weights(run(task(by_id(ids)))) for ids in ([], [4], [5], range(COUNT))}) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"fedgkt_alpha": 0.5},
        {"fedgkt_temperature": 1.0},
        {"optimizer": "adam"},
        {"epochs": 3},
        {"batch_size": 3},
        {"learning_rate": 0.05},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"max_gradient_norm": 0.1},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_the_order_decides_how_a_device_trains(changes: dict[str, Any]) -> None:
    answers = by_id(range(COUNT))
    assert weights(run(task(answers, **changes))) != weights(run(task(answers)))


def test_without_alpha_the_answers_have_no_effect() -> None:
    assert weights(run(task(by_id(range(COUNT)), fedgkt_alpha=0.0))) == weights(run(task()))


def test_features_are_of_images_augmented_anew_in_every_round() -> None:
    data = DeviceData(images(), None, CROPPED)
    first, again = run(task(), data), run(task(), data)
    assert first.arrays[FEATURES].tobytes() == again.arrays[FEATURES].tobytes()
    module = trained_by(first)
    with torch.no_grad():
        plain = module.features(PLAIN.eval_batch(images().images)).numpy()
    assert not np.allclose(first.arrays[FEATURES], plain, atol=1e-5)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({IDS: np.array([COUNT], "<i4"), LOGITS: ANSWERS[:1]}, "answers for image 10, this device has 10"),
        ({IDS: np.array([0, 1], "<i4"), LOGITS: ANSWERS[:1]}, "do not say which images"),
        ({IDS: np.array([0], "<i4"), LOGITS: ANSWERS[:1, :2]}, "do not say which images"),
        ({LOGITS: ANSWERS}, "do not say which images"),
    ],
)
def test_answers_that_fit_no_image_are_refused(answers: dict[str, Array], wrong: str) -> None:
    with pytest.raises(MessageError, match=wrong):
        run(task(answers))


def test_a_network_without_a_stem_is_refused() -> None:
    other = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 3))
    sent = other.layout.flatten(other.build(0).state_dict())
    with pytest.raises(MessageError, match="has no stem"):
        run(Task("fedgkt", EXTRACT, 1, other, ORDER.to_mapping(), {WEIGHTS: sent}))


def test_diverging_training_says_what_to_do() -> None:
    with pytest.raises(FederationError, match="use a lower learning-rate"):
        run(task(learning_rate=1e30))
