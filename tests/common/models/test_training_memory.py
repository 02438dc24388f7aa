"""Predicted memory of training against what autograd, the gradients and the optimizer really hold."""

import pytest
import torch
from torch.nn import functional as F

from common.architecture import Architecture
from common.budget import LocalTraining
from common.data.batches import batches, largest_batch
from common.models import allow_network
from common.models.description import BaseNetwork
from common.optimizers import make_optimizer
from tests.common.models.networks import SHAPES, random_part

FOUR = ("mobilenet_v2", "resnet20", "cnn", "torchvision:mobilenet_v3_small")
BATCH = 4
KEPT = {0: ("sgd", 0.0), 1: ("sgd", 0.5), 2: ("adam", 0.9), 3: ("amsgrad", 0.9)}


def measured_bytes(architecture: Architecture, training: LocalTraining) -> int:
    """Bytes of all that the largest training step holds between its forward and its backward pass, and after it."""
    module = architecture.build(0).train()
    kind, momentum = KEPT[training.kept]
    optimizer = make_optimizer(kind, module.parameters(), 0.01, momentum, 0.0)
    owned = {one.untyped_storage().data_ptr() for one in [*module.parameters(), *module.buffers()]}
    saved: dict[int, torch.Tensor] = {}  # the tensors themselves, so that no storage is freed and used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in owned:
            saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    count = largest_batch(training.batch_size)
    images = torch.randn(count, *architecture.input_shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(module(images), torch.zeros(count, dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    states = [one for state in optimizer.state.values() for one in state.values() if one is not None]
    gradients = [one.grad for one in module.parameters() if one.grad is not None]
    held = [*module.parameters(), *module.buffers(), *gradients, *states]
    stored: int = sum(one.nbytes for one in held)
    return stored + sum(one.untyped_storage().nbytes() for one in saved.values())


@pytest.mark.parametrize("model", FOUR)
def test_ten_architectures_take_what_was_predicted_to_the_byte(model: str) -> None:
    for seed in range(10):
        architecture, training = random_part(model, seed), LocalTraining(BATCH, kept=seed % len(KEPT))
        assert architecture.costs.training_memory_bytes(training) == measured_bytes(architecture, training)


@pytest.mark.parametrize("model", [one for one in SHAPES if one not in FOUR])
def test_every_network_whole_and_reduced_takes_what_was_predicted(model: str) -> None:
    training = LocalTraining(BATCH, kept=0)
    for architecture in (Architecture.full(random_part(model, 0).base), random_part(model, 1)):
        assert architecture.costs.training_memory_bytes(training) == measured_bytes(architecture, training)


def test_what_is_made_of_weights_alone_is_there_once_and_not_for_every_image() -> None:
    model = "tests.common.models.strangers:standardized"
    allow_network(model)
    architecture = Architecture.full(BaseNetwork(model, (3, 8, 8), 10))
    for training in (LocalTraining(BATCH), LocalTraining(16)):
        assert architecture.costs.training_memory_bytes(training) == measured_bytes(architecture, training)


def test_a_perceptron_by_hand() -> None:
    # 64 inputs, 200 hidden units with ReLU and dropout, 10 classes; batches of 16 to 18, SGD with momentum
    assert [len(batch) for batch in batches(34, 16, None)] == [16, 18]
    architecture = Architecture.full(random_part("mlp", 0).base)
    params = 64 * 200 + 200 + 200 * 10 + 10
    # the input, dropout's noise, what ReLU made of it, log-softmax, and the label
    per_image = 4 * (64 + 200 + 200 + 10) + 8
    found = architecture.costs.training_memory_bytes(LocalTraining(16))
    assert found - (3 * 4 * params + 18 * per_image) in (0, 4)  # and the sum of the labels' weights, one number
