"""The multilayer perceptron of the published federated program: one hidden layer of 200 units with dropout 0.5."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork

HIDDEN = 200


class Perceptron(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W)."""

    def __init__(self, base: BaseNetwork) -> None:
        super().__init__()
        hidden = max(1, round(HIDDEN * base.width))
        self.hidden = nn.Linear(math.prod(base.input_shape), hidden)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(hidden, base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        result: torch.Tensor = self.classifier(F.relu(self.dropout(self.hidden(x.flatten(1)))))
        return result
