"""The two-layer convolutional network of FedAvg's paper (McMahan et al. 2017, arXiv:1602.05629) as AutoFLIP has it.

Two 5x5 convolutions, each padded by one pixel, a ReLU and a pooling whose windows begin one pixel outside; the mean
over 7x7 fields, a hidden layer and the logits. Weights begin normally distributed with the variance of Glorot and
Bengio 2010 (equation 12), biases at zero, as the AutoFLIP program has it (`--init_type xavier --init_gain 1`).

| images | width | hidden channels there | classes | parameters | MACs |
|---|---|---|---|---|---|
| (3, 24, 24) | 1 | 32 | 10 | 1,664,970 | 7,892,352 |
| (3, 24, 24) | 4 | 128 | 100 | 7,303,524 | 93,040,128 |
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ArchitectureError
from common.models.description import BaseNetwork

CHANNELS = (32, 64)
KERNEL = 5
FIELDS = 7
HIDDEN = 512
SMALLEST_SIDE = 6
"""A smaller image leaves the second convolution nothing to slide over."""


class TwoCNN(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W); raises ArchitectureError for too small images."""

    def __init__(self, base: BaseNetwork) -> None:
        super().__init__()
        if min(base.input_shape[1:]) < SMALLEST_SIDE:
            raise ArchitectureError(
                f"two_cnn needs images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels, not "
                f"{base.input_shape[1]}x{base.input_shape[2]}"
            )
        first, second = (max(1, round(size * base.width)) for size in CHANNELS)
        self.conv1 = nn.Conv2d(base.input_shape[0], first, KERNEL, padding=1)
        self.conv2 = nn.Conv2d(first, second, KERNEL, padding=1)
        self.hidden = nn.Linear(second * FIELDS**2, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, base.classes)
        for layer in (self.conv1, self.conv2, self.hidden, self.classifier):
            nn.init.xavier_normal_(layer.weight)
            nn.init.constant_(layer.get_parameter("bias"), 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, padding=1)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, padding=1)
        x = F.adaptive_avg_pool2d(x, FIELDS).flatten(1)
        result: torch.Tensor = self.classifier(F.relu(self.hidden(x)))
        return result
