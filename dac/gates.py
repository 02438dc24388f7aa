"""Gates: one trainable scalar per channel, multiplied onto that channel's activations (DAC paper, section 3.2)."""

import torch
from torch import nn


class ChannelGate(nn.Module):
    """One factor `weight[i]` for channel i wherever it is read, and a memory of how much the loss cares.

    In training mode every backward pass adds (weight * d loss / d weight)^2 to `saliency`: the squared first-order
    estimate of what removing the channel would do to the loss (Molchanov et al. 2019, arXiv:1906.10771, equation 8).
    The gradients of all places where the channel is read are summed before they are squared. Only gradients that
    arrive through the activations count, not those of penalties on the gates.

    A gate that is held gathers saliency too.
    """

    saliency: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("saliency", torch.zeros(channels))

    def factor(self) -> torch.Tensor:
        """The gate for one forward pass, shape (channels,); all places of the pass must share it."""
        factor = self.weight.view_as(self.weight)
        if not self.weight.requires_grad and torch.is_grad_enabled():
            factor = factor.detach().requires_grad_()
        if self.training and factor.requires_grad:
            factor.register_hook(self._observe)  # type: ignore[no-untyped-call]
        return factor

    def hold(self) -> None:
        """Let no training move it from here on."""
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def _observe(self, gradient: torch.Tensor) -> None:
        self.saliency += (gradient * self.weight) ** 2


def gated(x: torch.Tensor, place: int, factors: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """`x` with dimension `place` multiplied by the factors; each, of shape (channels,), has `spread` entries a channel.

    >>> gated(torch.ones(1, 4), 1, [(torch.tensor([2.0, 3.0]), 2)])
    tensor([[2., 2., 3., 3.]])
    """
    if len(factors) == 1 and factors[0][1] == 1:
        return x * factors[0][0].view(-1, *(1,) * (x.dim() - place - 1))
    if len(factors) == 1:
        factor, spread = factors[0]
        apart = x.reshape(*x.shape[:place], len(factor), spread, *x.shape[place + 1 :])
        return (apart * factor.view(-1, *(1,) * (x.dim() - place))).reshape(x.shape)
    whole = torch.cat([factor.repeat_interleave(spread) for factor, spread in factors])
    return x * whole.view(-1, *(1,) * (x.dim() - place - 1))
