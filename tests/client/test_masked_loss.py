"""The masked loss: classes that a device has no image of."""

import math

import pytest
import torch

from client.data import DeviceData
from client.masked_loss import MASKS, mask_for
from client.methods.dac import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import ConfigurationError
from common.messages import Task
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0]])
LABELS = torch.tensor([2, 0, 0, 2])
ARCHITECTURE = Architecture.full(BaseNetwork("mlp", (1, 4, 4), 4))
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(3).state_dict())
IMAGES = Images(
    torch.randint(0, 256, (24, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0, 2] * 12),
)


def trained(masked_loss: str, images: Images = IMAGES) -> dict[str, torch.Tensor]:
    order = {**TrainingOrder(epochs=2, batch_size=8, learning_rate=0.1).to_mapping(), "masked-loss": masked_loss}
    task = Task("dac", TRAIN, 1, ARCHITECTURE, order, {"weights": WEIGHTS})
    data = DeviceData(images, None, Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none"))
    result = run_step(STEPS, task, data, "device-00", torch.device("cpu"))
    return LAYOUT.unflatten(result.arrays["weights"])


def test_absent_classes_leave_the_softmax() -> None:
    mask = mask_for(LABELS, 4, "exclude")
    assert mask is not None
    assert mask(LOGITS).softmax(1)[0].tolist() == pytest.approx(
        [math.exp(3) / (math.exp(3) + math.exp(2)), 0, math.exp(2) / (math.exp(3) + math.exp(2)), 0]
    )


def test_absent_classes_have_a_logit_of_zero() -> None:
    mask = mask_for(LABELS, 4, "zero")
    assert mask is not None
    assert mask(LOGITS).tolist() == [[3.0, 0.0, 2.0, 0.0]]


@pytest.mark.parametrize("masked_loss", ["none", "exclude", "zero"])
def test_nothing_is_masked_without_need(masked_loss: str) -> None:
    assert mask_for(torch.arange(4), 4, masked_loss) is None


@pytest.mark.parametrize("masked_loss", ["exclude", "zero"])
def test_a_device_does_not_move_the_rows_of_classes_it_lacks(masked_loss: str) -> None:
    before, after = LAYOUT.unflatten(WEIGHTS), trained(masked_loss)
    classifier = [name for name, tensor in before.items() if tensor.shape[:1] == (4,)]
    assert classifier
    for name in classifier:
        assert torch.equal(after[name][[1, 3]], before[name][[1, 3]])
        assert not torch.equal(after[name][[0, 2]], before[name][[0, 2]])


def test_without_a_mask_it_does() -> None:
    before, after = LAYOUT.unflatten(WEIGHTS), trained("none")
    name = next(name for name, tensor in before.items() if tensor.shape[:1] == (4,))
    assert not torch.equal(after[name][[1, 3]], before[name][[1, 3]])


def test_a_device_with_every_class_trains_the_same_either_way() -> None:
    everything = Images(IMAGES.images, torch.arange(24) % 4)
    first, second = trained("none", everything), trained("exclude", everything)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^masked-loss must be one of none, exclude, zero, not 'all'$"):
        trained("all")


def test_every_mask_is_one_that_an_order_may_ask_for() -> None:
    assert [TrainingOrder(masked_loss=name).masked_loss for name in ("none", *MASKS)] == ["none", "exclude", "zero"]
