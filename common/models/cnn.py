"""The small convolutional network of the published federated program (LeNet-5's shape).

Two 5x5 convolutions with max pooling, then three linear layers. At width 1 on (3, 32, 32): 62,006 parameters. Images
with a side below 16 are padded, so that 8x8 digits keep something to pool.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ArchitectureError
from common.models.description import BaseNetwork

KERNEL = 5
CHANNELS = {"conv1": 6, "conv2": 16, "hidden1": 120, "hidden2": 84}


class ConvNet(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W)."""

    def __init__(self, base: BaseNetwork) -> None:
        super().__init__()
        padding, spread = _padding(base), _positions(base)
        sizes = {name: max(1, round(size * base.width)) for name, size in CHANNELS.items()}
        self.conv1 = nn.Conv2d(base.input_shape[0], sizes["conv1"], KERNEL, padding=padding)
        self.conv2 = nn.Conv2d(sizes["conv1"], sizes["conv2"], KERNEL, padding=padding)
        self.hidden1 = nn.Linear(sizes["conv2"] * spread, sizes["hidden1"])
        self.hidden2 = nn.Linear(sizes["hidden1"], sizes["hidden2"])
        self.classifier = nn.Linear(sizes["hidden2"], base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        result: torch.Tensor = self.classifier(x)
        return result


def _padding(base: BaseNetwork) -> int:
    return KERNEL // 2 if min(base.input_shape[1:]) < 16 else 0


def _positions(base: BaseNetwork) -> int:
    """Positions that the second pooling leaves of the image."""
    loss = KERNEL - 1 - 2 * _padding(base)
    height, width = (((side - loss) // 2 - loss) // 2 for side in base.input_shape[1:])
    if height < 1 or width < 1:
        raise ArchitectureError(f"cnn needs larger images than {base.input_shape[1]}x{base.input_shape[2]}")
    return height * width
