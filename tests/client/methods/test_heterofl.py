"""HeteroFL's scaler: outputs of convolutions are divided in training, and only there."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.data import DeviceData
from client.methods.heterofl import STEPS, scaled_convolutions
from client.steps import run_step
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import ConfigurationError
from common.messages import Result, Task
from common.methods.heterofl import ScaledOrder
from common.methods.training import TRAIN
from common.models.description import BaseNetwork

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
ARCHITECTURE = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3))
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(0).state_dict())
ORDER = ScaledOrder(batch_size=6, learning_rate=0.1).to_mapping()
TASK = Task("heterofl", TRAIN, 1, ARCHITECTURE, ORDER, {"weights": WEIGHTS})


def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.tensor([0, 1, 2, 0, 1, 2]))


def train(scale: float) -> Result:
    task = replace(TASK, order={**ORDER, "activation-scale": scale})
    return run_step(STEPS, task, DeviceData(images(), None, PLAIN), "device-00", CPU)


def test_outputs_of_convolutions_are_divided_exactly_and_nothing_else_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    x = torch.tensor([[[[3.0]]]])
    convolved = model[0](x)
    expected = model[2](convolved.flatten(1) / 0.25)
    with scaled_convolutions(model, 0.25):
        assert torch.equal(model[0](x), convolved / 0.25)
        assert torch.equal(model(x), expected)
    assert torch.equal(model[0](x), convolved)


def test_nothing_is_left_behind_even_after_an_error() -> None:
    model = ARCHITECTURE.build(0)
    with pytest.raises(ZeroDivisionError), scaled_convolutions(model, 0.5):
        raise ZeroDivisionError
    assert all(not layer._forward_hooks for layer in model.modules())


def test_a_scale_of_one_adds_nothing() -> None:
    model = ARCHITECTURE.build(0)
    with scaled_convolutions(model, 1.0):
        assert all(not layer._forward_hooks for layer in model.modules())


def test_a_scale_of_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^activation-scale must be above 0, not 0\.0$"):
        train(0.0)
    with pytest.raises(ConfigurationError, match=r"^activation-scale must be above 0, not -1\.0$"):
        train(-1.0)


def test_training_takes_the_gradient_of_the_scaled_network() -> None:
    result = LAYOUT.unflatten(train(0.5).arrays["weights"])
    data, module = images(), ARCHITECTURE.build(0)
    x = PLAIN.eval_batch(data.images)
    x = F.max_pool2d(F.relu(module.get_submodule("conv1")(x) / 0.5), 2)
    x = F.max_pool2d(F.relu(module.get_submodule("conv2")(x) / 0.5), 2).flatten(1)
    x = F.relu(module.get_submodule("hidden1")(x))
    x = F.relu(module.get_submodule("hidden2")(x))
    loss = F.cross_entropy(module.get_submodule("classifier")(x), data.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(result[name], parameter.detach() - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_module_a_device_keeps_is_unscaled_in_the_next_task() -> None:
    before = train(1.0).arrays["weights"].tobytes()
    assert train(0.5).arrays["weights"].tobytes() != before
    assert train(1.0).arrays["weights"].tobytes() == before
