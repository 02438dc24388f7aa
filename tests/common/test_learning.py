"""Training and evaluation loops: hand-computed steps, exact means over uneven batches, one source of randomness."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import ConfigurationError
from common.learning import CrossEntropy, Feed, Teacher, evaluate, pick_accelerator, place, recalibrate, train_epoch
from common.models.description import BaseNetwork

CPU = torch.device("cpu")


def feed(count: int, batch_size: int, augment: str = "none") -> Feed:
    """Random 8x8 images of three classes, neither shifted nor scaled."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Feed(Images(pixels, labels), Preprocessor(torch.zeros(1), torch.ones(1), augment), batch_size)


def linear(weight: float = 0.0) -> nn.Sequential:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for parameter in module.parameters():
        nn.init.constant_(parameter, weight)
    return module


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_step_by_hand() -> None:
    # all logits 0, so the loss is ln 3 and the gradient of the bias is softmax - one-hot, averaged
    one = feed(6, batch_size=6)
    module = linear()
    score = train_epoch(module, one, torch.optim.SGD(module.parameters(), lr=0.3), generator(), CPU, CrossEntropy())
    shares = torch.bincount(one.images.labels, minlength=3) / 6
    assert score.loss == pytest.approx(math.log(3))
    assert score.accuracy == pytest.approx(float(shares[0]))  # the first of equal logits
    assert score.samples == 6
    torch.testing.assert_close(module.get_parameter("1.bias").data, -0.3 * (1 / 3 - shares))


def test_the_penalty_is_minimised_but_not_reported() -> None:
    module = linear()
    bias = module.get_parameter("1.bias")
    data = Feed(feed(6, 6).images, Preprocessor(torch.zeros(1), torch.ones(1), "none"), 6)
    optimizer = torch.optim.SGD([bias], lr=0.1)
    score = train_epoch(module, data, optimizer, generator(), CPU, CrossEntropy(penalty=lambda: 5 * bias.sum()))
    shares = torch.bincount(data.images.labels, minlength=3) / 6
    assert score.loss == pytest.approx(math.log(3))
    torch.testing.assert_close(bias.data, -0.1 * (1 / 3 - shares + 5))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 10, 100])
def test_evaluation_is_the_mean_over_images_whatever_the_batches(batch_size: int) -> None:
    data = feed(10, batch_size)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    logits = module(data.images.images.float() / 255).detach()
    score = evaluate(module, data, CPU)
    assert score.loss == pytest.approx(float(F.cross_entropy(logits, data.images.labels)), rel=1e-6)
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == data.images.labels).float().mean()))
    assert score.samples == 10


def test_evaluation_neither_trains_nor_drops_out() -> None:
    module = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 3)).build(seed=0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = feed(12, 5)
    assert evaluate(module, data, CPU) == evaluate(module, data, CPU)
    assert not module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_training_sees_every_image_once_and_in_a_seeded_order() -> None:
    data = feed(11, 4)
    labels = [torch.cat([batch.labels for batch in data.training(generator(seed), CPU)]) for seed in (1, 1, 2)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])
    assert torch.equal(labels[0].sort().values, data.images.labels.sort().values)
    images = torch.cat([batch.images for batch in data.training(generator(), CPU)])
    brightness, expected = (tensor.mean((1, 2, 3)) for tensor in (images, data.images.images / 255))
    torch.testing.assert_close(brightness.sort().values, expected.sort().values)


@pytest.mark.parametrize("model", ["cnn", "mobilenet_v2"])
def test_equal_seeds_train_equal_weights(model: str) -> None:
    architecture = Architecture.full(BaseNetwork(model, (1, 8, 8), 3, 0.25))

    def trained(seed: int) -> list[torch.Tensor]:
        module = place(architecture.build(seed=0), CPU)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        train_epoch(module, feed(9, 4, "crop+flip"), optimizer, generator(seed), CPU, CrossEntropy())
        return list(module.state_dict().values())

    one, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_learns() -> None:
    labels = torch.arange(30) % 3
    images = Images((40 + 80 * labels).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 8, 8), labels)
    data = Feed(images, Preprocessor(torch.full((1,), 0.5), torch.full((1,), 0.25), "none"), 10)
    module = place(Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3)).build(seed=0), CPU)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(30):
        train_epoch(module, data, optimizer, generator(epoch), CPU, CrossEntropy())
    assert evaluate(module, data, CPU).accuracy == 1.0


def test_recalibration_averages_the_statistics_of_the_batches() -> None:
    data = feed(12, batch_size=4)
    norm = nn.BatchNorm2d(1)
    recalibrate(norm, data, CPU)
    parts = [part / 255 for part in data.images.images.chunk(3)]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack([part.mean() for part in parts]).mean(0, keepdim=True))
    torch.testing.assert_close(norm.running_var, torch.stack([part.var() for part in parts]).mean(0, keepdim=True))
    assert norm.momentum == 0.1


def test_recalibration_changes_nothing_but_running_statistics() -> None:
    module = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, 0.25)).build(seed=0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate(module, feed(9, 4), CPU)
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


def test_recalibration_draws_nothing_at_random() -> None:
    """So that a resumed run measures what the other would have; and as in a test, nothing is dropped."""
    data, results = feed(12, batch_size=4), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1))
        recalibrate(module, data, CPU)
        assert module[0].training
        results.append(module[1].running_mean)
    plain = nn.BatchNorm2d(1)
    recalibrate(plain, data, CPU)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], plain.running_mean)


class NoisyNorm(nn.Module):
    """A network that drops by itself while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) -> the same."""
        result: torch.Tensor = self.norm(nn.functional.dropout(x, 0.5, self.training))
        return result


def test_recalibration_of_a_network_that_draws_by_itself_is_the_same_every_time() -> None:
    data, modules = feed(12, batch_size=4), (NoisyNorm(), NoisyNorm())
    after = []
    for seed, module in enumerate(modules):
        torch.manual_seed(seed)
        recalibrate(module, data, CPU)
        after.append(torch.rand(1).item())
    assert torch.equal(modules[0].norm.running_mean, modules[1].norm.running_mean)
    assert after[0] != after[1]  # the caller's generator is as it was


def test_place_changes_the_layout_not_the_values() -> None:
    module = Architecture.full(BaseNetwork("cnn", (3, 8, 8), 3)).build(seed=0)
    before = module.get_parameter("conv2.weight").detach().clone()
    placed = place(module, CPU).get_parameter("conv2.weight")
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed, before)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_accelerator("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_accelerator("auto") == CPU
    with pytest.raises(ConfigurationError, match="torch finds no CUDA device; use cpu or auto"):
        pick_accelerator("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_accelerator("auto") == pick_accelerator("cuda") == torch.device("cuda")
    assert pick_accelerator("cpu") == CPU


def test_smoothed_labels_by_hand() -> None:
    # all logits 0: the loss stays ln 3, and the target of the bias moves a tenth of the way to uniform
    one = feed(6, batch_size=6)
    module = linear()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    score = train_epoch(module, one, optimizer, generator(), CPU, CrossEntropy(label_smoothing=0.1))
    shares = torch.bincount(one.images.labels, minlength=3) / 6
    assert score.loss == pytest.approx(math.log(3))
    torch.testing.assert_close(module.get_parameter("1.bias").data, -0.3 * 0.9 * (1 / 3 - shares))


def test_the_learning_rate_can_be_set_before_every_step() -> None:
    module = linear()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    seen: list[float] = []

    def freeze() -> None:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.param_groups[0]["lr"] = 0.0

    train_epoch(module, feed(6, batch_size=2), optimizer, generator(), CPU, CrossEntropy(), before_step=freeze)
    assert seen == [0.3, 0.0, 0.0]
    assert not any(parameter.any() for parameter in module.parameters())


def test_the_distance_from_a_teacher_by_hand() -> None:
    """T^2 sum p log(p / q) with p and q the softmax of both logits over T = 2."""
    identity = torch.nn.Flatten()
    images = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 4.0]]]])
    student = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    first = math.exp(1) / (math.exp(1) + 1)
    expected = 4 * (first * math.log(first / 0.5) + (1 - first) * math.log((1 - first) / 0.5)) / 2
    assert Teacher(identity, 1.0).distance(images, student).item() == pytest.approx(expected, rel=1e-6)


def test_a_teacher_replaces_its_share_of_the_loss() -> None:
    """One step with one batch: the loss that is reported is the mixture."""
    images = feed(20, 20)
    architecture = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 3))
    teacher = architecture.build(1).eval()

    def loss(share: float | None) -> float:
        module = architecture.build(0)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            guide = None if share is None else Teacher(teacher, share)
            return train_epoch(module, images, optimizer, generator(), CPU, CrossEntropy(teacher=guide)).loss

    assert loss(0.0) == loss(None)
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * loss(1.0), rel=1e-5)


def test_frozen_batch_norms_use_and_keep_the_statistics_they_have() -> None:
    """A norm with mean 0 and variance 1 is the identity, whatever the batch; its scale and shift still learn."""
    images = feed(12, 4)
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    seen: list[torch.Tensor] = []
    module[0].register_forward_hook(lambda layer, inputs, output: seen.append((output - inputs[0]).abs().max()))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    train_epoch(module, images, optimizer, generator(), CPU, CrossEntropy(), frozen_norms=True)
    norm = module[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert seen[0] < 1e-4
    assert (norm.running_mean.item(), norm.running_var.item()) == (0.0, 1.0)  # type: ignore[union-attr]
    assert norm.weight.item() != 1.0
    train_epoch(module, images, optimizer, generator(), CPU, CrossEntropy())
    assert norm.running_mean.item() != 0.0  # type: ignore[union-attr]
