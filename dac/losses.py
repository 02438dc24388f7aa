"""Penalties on the gates: entropy, which makes them differ, and bound, which keeps them in [0, 1].

DAC paper, section 3.2: loss = cross-entropy + l1 * entropy + l2 * bound (equation 3, with l1 = 0.1 and l2 = 0.01).
The minus before the bound in equation 2 is a misprint; the published code adds it, and so do we.
"""

import math
from collections.abc import Callable, Iterable

import torch

Gates = Iterable[torch.Tensor]  # one vector per block


def softmax_entropy(gates: Gates) -> torch.Tensor:
    """Sum over blocks of the entropy (in nats) of softmax(gates); DAC paper, equation 1.

    For gates in [0, 1] it can fall only 0.1233 nats below ln n, whatever n, and its gradient fades as 1/n.
    """
    return torch.stack([_entropy(gate) for gate in gates]).sum()


def normalised_entropy(gates: Gates, temperature: float = 0.25) -> torch.Tensor:
    """Mean over blocks of the entropy of softmax(gates / temperature), divided by its maximum ln n; between 0 and 1.

    A block of one gate has nothing to choose and does not count; where there is no other, the entropy is 0.
    """
    shares = [_entropy(gate / temperature) / math.log(len(gate)) for gate in gates if len(gate) > 1]
    return torch.stack(shares).mean() if shares else torch.zeros(())


def bernoulli_entropy(gates: Gates) -> torch.Tensor:
    """Mean over all gates of the entropy of a coin that lands open with probability gate; zero at 0 and at 1."""
    probability = torch.cat(list(gates)).clamp(1e-6, 1 - 1e-6)
    return -(probability * probability.log() + (1 - probability) * (1 - probability).log()).mean()


def bound(gates: Gates) -> torch.Tensor:
    """How far gates lie outside [0, 1], summed; DAC paper, equation 2 with a plus."""
    return torch.stack([(gate.clamp(max=0).neg() + (gate - 1).clamp(min=0)).sum() for gate in gates]).sum()


ENTROPIES: dict[str, Callable[[Gates], torch.Tensor]] = {
    "paper": softmax_entropy,
    "normalised": normalised_entropy,
    "bernoulli": bernoulli_entropy,
}


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    log_shares = torch.log_softmax(logits, dim=0)
    return -(log_shares.exp() * log_shares).sum()
