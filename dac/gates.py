"""Gates: one trainable scalar per channel, multiplied onto that channel's activations (DAC paper, section 3.2)."""

import torch
from torch import nn


class ChannelGate(nn.Module):
    """Multiply channel i of (N, C, H, W) or (N, C) by `weight[i]`, and remember how much the loss cares.

    In training mode every backward pass adds (weight * d loss / d weight)^2 to `saliency`: the squared first-order
    estimate of what removing the channel would do to the loss (Molchanov et al. 2019, arXiv:1906.10771, equation 8).
    Only gradients that arrive through the activations count, not those of penalties on the gates.
    """

    saliency: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("saliency", torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`."""
        gate = self.weight.view(1, -1, *(1,) * (x.dim() - 2))
        if self.training and gate.requires_grad:
            gate.register_hook(self._observe)  # type: ignore[no-untyped-call]
        return x * gate

    @torch.no_grad()
    def _observe(self, gradient: torch.Tensor) -> None:
        self.saliency += (gradient.reshape(-1) * self.weight) ** 2
