"""Networks of users whose channels the walk over a trace loses sight of, or whose tensors lie in unusual places."""

import torch
from torch import nn


def instance_normed(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Convolutions, one of them depthwise, behind InstanceNorm; a linear layer behind LayerNorm."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 32, 3, padding=1),
        nn.InstanceNorm2d(32, affine=True),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.InstanceNorm2d(64),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.InstanceNorm2d(64),
        nn.Conv2d(64, 16, 1),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(16),
        nn.Linear(16, classes),
    )


class Attention(nn.Module):
    """Patches of 4x4 pixels through one transformer layer."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(input_shape[0], 32, 4, 4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits for images of shape (B, C, H, W)."""
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


class Windowed(nn.Module):
    """Buffers that no state dict holds: a window over the image, a mask on a layer's weights, a scale per channel."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, classes)
        self.register_buffer("window", torch.full(input_shape[1:], 0.5), persistent=False)
        self.middle.register_buffer("mask", torch.tensor([[1.0, 2.0, 3.0]]), persistent=False)
        self.register_buffer("scale", torch.arange(16.0).view(16, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits for images of shape (B, C, H, W)."""
        x = self.stem(x).relu() * self.window
        x = self.middle(x).relu() * self.middle.mask.sum()  # type: ignore[operator]
        return self.head((self.last(x) * self.scale).mean((2, 3)))  # type: ignore[no-any-return]


class Standardized(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1 for every output channel, as ResNets of BiT have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images of shape (B, C, H, W) to (B, out, H', W')."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-10)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


def standardized(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Layers whose weights are made anew in every step, each once for all images."""
    return nn.Sequential(
        Standardized(input_shape[0], 16, 3, padding=1),
        nn.ReLU(),
        Standardized(16, 32, 3, 2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


class Separable(nn.Module):
    """Norms of an epsilon of their own around a depthwise convolution, which may have a bias and a multiplier."""

    def __init__(self, channels: int, classes: int, bias: bool, multiplier: int, affine: bool) -> None:
        super().__init__()
        wide = 16 * multiplier
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(16, eps=1e-3)
        self.depthwise = nn.Conv2d(16, wide, 3, padding=1, groups=16, bias=bias)
        self.depthwise_norm = nn.BatchNorm2d(wide, eps=1e-3, affine=affine)
        self.pointwise = nn.Conv2d(wide, 24, 1)
        self.pointwise_norm = nn.BatchNorm2d(24, eps=1e-3)
        self.head = nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits for images of shape (B, C, H, W)."""
        x = self.stem_norm(self.stem(x)).relu()
        x = self.depthwise_norm(self.depthwise(x)).relu()
        return self.head(self.pointwise_norm(self.pointwise(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def separable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A depthwise convolution without a bias."""
    return Separable(input_shape[0], classes, False, 1, True)


def biased_separable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A depthwise convolution with a bias."""
    return Separable(input_shape[0], classes, True, 1, True)


def multiplied_separable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two filters for every channel."""
    return Separable(input_shape[0], classes, False, 2, True)


def plain_normed_separable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A norm without weights of its own behind the depthwise convolution."""
    return Separable(input_shape[0], classes, False, 1, False)


class Adapted(nn.Linear):
    """A linear layer with an adapter of low rank beside it, both weights its own (LoRA)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs)
        self.down = nn.Parameter(torch.randn(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of shape (B, in) to (B, out)."""
        return super().forward(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)


def adapted(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """An adapted layer between two plain ones."""
    stem = [nn.Conv2d(input_shape[0], 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, Adapted(16, 64, rank=4), nn.Linear(64, classes))
