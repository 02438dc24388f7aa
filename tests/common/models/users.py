"""Networks as users write them: with their own ideas of a forward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Scaled(nn.Module):
    """A learnt factor per channel, as a bare parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, channels).view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class ThirtyLines(nn.Module):
    """A residual block, a grouped convolution, a concatenation and a choice in Python."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Hardswish())
        self.left = nn.Conv2d(12, 12, 3, padding=1, groups=4)
        self.right = nn.Sequential(nn.Conv2d(12, 10, 1, bias=False), nn.BatchNorm2d(10), nn.PReLU(10))
        self.scaled = Scaled(12)
        self.join = nn.Conv2d(22, 16, (1, 3), padding=(0, 1))
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(16 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.left(x)
        if x.shape[-1] > 4:
            x = F.adaptive_avg_pool2d(x, 4)
        x = torch.cat([self.scaled(x), self.right(x)], dim=1)
        x = F.max_pool2d(F.relu(self.join(x)), 2)
        logits: torch.Tensor = self.classifier(self.drop(torch.flatten(x, 1)))
        return logits


def thirty_lines(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return ThirtyLines(input_shape[0], classes)


class Tutorial(nn.Module):
    """LeNet as tutorials have it: `flatten` flattens its maps."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, flatten: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.conv1, self.conv2 = nn.Conv2d(channels, 6, 5, padding=2), nn.Conv2d(6, 16, 3, padding=1)
        self.mix = nn.Conv2d(16, 12, 1)
        self.fc1, self.fc2 = nn.Linear(12 * (height // 4) * (width // 4), 24), nn.Linear(24, classes)
        self.flatten = flatten

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.mix(F.max_pool2d(F.relu(self.conv2(x)), 2)))
        logits: torch.Tensor = self.fc2(F.relu(self.fc1(self.flatten(x))))
        return logits


def viewed(x: torch.Tensor) -> torch.Tensor:
    return x.view(x.size(0), -1)


def tutorial(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Tutorial(input_shape, classes, viewed)


def flattened(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)


def tutorial_flattened(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Tutorial(input_shape, classes, flattened)


class Ordered(nn.Module):
    """Buffers of whole numbers and of truth values, and one that is no part of the state dict."""

    order: torch.Tensor
    used: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 6, 3, padding=1)
        self.classifier = nn.Linear(6, classes)
        self.register_buffer("order", torch.arange(7, -1, -1))
        self.register_buffer("used", torch.tensor([True] * 7 + [False]))
        self.register_buffer("scale", torch.tensor([0.5]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)))[:, self.order] * self.used.view(-1, 1, 1)
        logits: torch.Tensor = self.classifier(F.relu(self.head(x)).mean((2, 3)) * self.scale)
        return logits


def ordered(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Ordered(input_shape[0], classes)


class Counting(nn.Module):
    """Says how many channels there are where they are flattened, so that they cannot be reduced."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.classifier = nn.Linear(5 * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.second(F.relu(self.first(x)))), 2)
        logits: torch.Tensor = self.classifier(x.view(-1, 5 * 16))
        return logits


def counting(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Counting(classes)


def irreducible(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    channels, height, width = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


class Auxiliary(nn.Module):
    """Returns more than logits in training."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.classifier, self.second = nn.Conv2d(3, 8, 3), nn.Linear(8, classes), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.conv(x)).mean((2, 3))
        logits: torch.Tensor = self.classifier(x)
        return (logits, self.second(x)) if self.training else logits


def auxiliary(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Auxiliary(classes)


class Untrainable(nn.Module):
    """Fails in training."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.classifier = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise NotImplementedError("only for\nanswers")
        logits: torch.Tensor = self.classifier(F.relu(self.conv(x)).mean((2, 3)))
        return logits


def untrainable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Untrainable(classes)


class Heads(nn.Module):
    """Two linear layers, of which a test makes what it likes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 192), nn.Linear(192, 192)
        self.classifier = nn.Linear(192, classes)
        self.scale: Any = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.scale[0] if isinstance(self.scale, list) else self.scale
        logits: torch.Tensor = self.classifier(self.second(F.relu(self.first(x.flatten(1)))) * scale)
        return logits


def tied(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    module = Heads(classes)
    module.second.weight = module.first.weight
    return module


def shared(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    module = Heads(classes)
    module.second = module.first
    return module


def plain_attribute(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    module = nn.Sequential(Heads(classes))
    module[0].scale = torch.tensor(0.5)
    return module


def plain_list(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    module = Heads(classes)
    module.scale = [torch.tensor(0.5)]
    return module


def double(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    module = Heads(classes)
    module.first.double()
    return module


def one_activation(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 9), relu, nn.Linear(9, 9), relu, nn.Linear(9, classes))


def wrong_signature(classes: int) -> nn.Module:
    return Heads(classes)


def failing(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise KeyError("width")


class Residual(nn.Module):
    """A block whose last batch norm may be anything."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.second(F.relu(self.first(x))))
        return x + y


def residual(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    blocks = [Residual(6) for _ in range(4)]
    nn.init.constant_(blocks[1].norm.weight, 0.7)
    if blocks[2].norm.running_mean is not None:
        nn.init.constant_(blocks[2].norm.running_mean, 0.2)
    if blocks[3].norm.running_var is not None:
        nn.init.constant_(blocks[3].norm.running_var, 2)
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 6, 3, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


class Resetting(nn.Module):
    """Its parameter can be set anew, and its buffer is what it is."""

    constant: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.register_buffer("constant", torch.tensor([3.0]))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor * self.constant


def resetting(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    return nn.Sequential(nn.Conv2d(input_shape[0], 8, 3), Resetting(), nn.Conv2d(8, 8, 3), *pooled)


class Weighted(nn.Conv2d):
    """A convolution with a further weight, of which its `reset_parameters` knows nothing."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__(source, target, 3)
        self.factor = nn.Parameter(torch.full((target, 1, 1), 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = super().forward(x) * self.factor
        return y


def added_to(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    first, norm, second = nn.Conv2d(input_shape[0], 8, 3), nn.BatchNorm2d(8), Weighted(8, 8)
    first.register_buffer("constant", torch.tensor([3.0]))
    norm.register_buffer("number", torch.tensor([7]))
    return nn.Sequential(first, norm, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


def no_module(input_shape: tuple[int, int, int], classes: int) -> object:
    return "a network"


def two_outputs(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    return Two()


def wrong_classes(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], classes + 1))


def sequential(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


class Children(nn.Module):
    """Runs its children, whichever they are."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU()
        self.second, self.pool = nn.Conv2d(8, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1)
        self.flatten, self.classifier = nn.Flatten(), nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def children(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Children(input_shape[0], classes)


class Split(nn.Sequential):
    """Counts its layers from the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self[:-1]:
            x = layer(x)
        logits: torch.Tensor = self[-1](x)
        return logits


def split(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Split(*sequential(input_shape, classes).children())


class FrozenEnd(nn.Module):
    """A residual block whose last convolution is not to be trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.norm.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.second(F.relu(self.first(x))))
        return x + y


class FrozenBackbone(nn.Module):
    """Two convolutions and norms of the author's, of which nothing is trained, before layers that are."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for tensor in (*self.stem.parameters(), *self.norm.parameters(), *self.body.parameters()):
                if not tensor.is_meta:
                    tensor.copy_(torch.randn(tensor.shape, generator=generator, device="cpu") * 0.3)
                tensor.requires_grad_(False)
        self.block = FrozenEnd(8)
        self.last = nn.Conv2d(8, 6, 3, padding=1)
        self.classifier = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.body(F.relu(self.norm(self.stem(x)))))
        logits: torch.Tensor = self.classifier(F.relu(self.last(self.block(x))).mean((2, 3)))
        return logits


def frozen_backbone(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return FrozenBackbone(input_shape[0], classes)


class ChannelDrop(nn.Module):
    """Drops whole channels in training, and knows how many there were when it was made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.rand(()) < 2:
            x = x * (torch.rand(len(x), self.channels, 1, 1, device=x.device) > 0.1)
        return x


def dropping(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        ChannelDrop(8),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


class Standardised(nn.Conv2d):
    """A convolution with weights of mean 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)


def unfolded(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Norms that cannot be merged into the layers before them."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8, track_running_stats=False),
        Standardised(8, 6, 3),
        nn.BatchNorm2d(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


class Deciding(nn.Module):
    """A forward that looks at the values of what it computes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv, self.classifier = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if not x.is_meta and float(x.mean()) > 1:
            x = x * 2
        logits: torch.Tensor = self.classifier(F.relu(x).mean((2, 3)))
        return logits


def deciding(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Deciding(input_shape[0], classes)


class Recurrent(nn.Module):
    """A recurrent layer over the pixels of a convolution's maps."""

    def __init__(self, channels: int, classes: int, layer: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(channels, 8, 3, 2, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.layer, self.classifier = layer(6, 10, batch_first=True), nn.Linear(10, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.body(F.relu(self.stem(x)))).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.classifier(self.layer(x)[0][:, -1])
        return logits


def gru(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Recurrent(input_shape[0], classes, nn.GRU)


def lstm(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Recurrent(input_shape[0], classes, nn.LSTM)


class Halved(nn.Module):
    """f(x) + alpha x, or x + alpha f(x)."""

    def __init__(self, channels: int, alpha_of_input: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.alpha_of_input = alpha_of_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return torch.add(y, x, alpha=0.5) if self.alpha_of_input else torch.add(x, y, alpha=0.5)


def halved(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    blocks = Halved(8, True), Halved(8, False)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    return nn.Sequential(nn.Conv2d(input_shape[0], 8, 3, padding=1), *blocks, *pooled)


class TwoBranches(nn.Module):
    """Two depthwise convolutions, or one and a plain one, that read the same channels."""

    def __init__(self, channels: int, classes: int, groups: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.left, self.left_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.left_point, self.left_last = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.right, self.right_norm = nn.Conv2d(8, 8, 5, padding=2, groups=groups), nn.BatchNorm2d(8)
        self.right_point, self.right_last = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        left = self.left_last(self.left_point(F.relu(self.left_norm(self.left(x)))))
        right = self.right_last(self.right_point(F.relu(self.right_norm(self.right(x)))))
        logits: torch.Tensor = self.classifier(F.relu(left + right).mean((2, 3)))
        return logits


def two_branches(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return TwoBranches(input_shape[0], classes, 8)


def mixed_branches(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return TwoBranches(input_shape[0], classes, 1)
