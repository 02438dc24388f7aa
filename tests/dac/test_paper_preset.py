"""What the published recipe does to gates, stated by their spread: they fall together, and past the threshold at once.

The gate sits before the depthwise convolution, whose batch norm undoes its size. Weight decay therefore shrinks all
gates alike, whatever the data say, until they are so small that the batch norm's epsilon shows. The test takes forty
times the published weight decay, so that what took the published search ten epochs takes a hundred steps.
"""

import pytest
import torch

from common.architecture import Architecture
from common.groups import SearchSettings
from common.models.description import BaseNetwork
from common.seeds import torch_generator
from dac.losses import ENTROPIES, bound
from dac.recipe import RECIPES
from dac.supernet import Supernet, make_optimizer

PAPER = RECIPES["paper"]
BASE = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)


def gates_over_time(position: str, steps: int = 110) -> list[torch.Tensor]:
    """All gates, shape (channels,), before each of so many steps of the paper's recipe on an easily learnt task."""
    supernet = Supernet(Architecture.full(BASE), position, 0, torch.device("cpu"))
    optimizer = make_optimizer(supernet, 0.1, 0.9, 0.0, 40 * PAPER.gate_weight_decay)
    generator = torch_generator(0)
    labels = torch.arange(32) % 4
    where = torch.zeros(32, 1, 8, 8)
    for index, label in enumerate(labels.tolist()):
        where[index, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] = 1
    history = []
    supernet.module.train()
    for _ in range(steps):
        history.append(torch.cat([gate.detach().clone() for gate in supernet.gate_weights]))
        images = where + 0.3 * torch.randn(where.shape, generator=generator)
        gates = supernet.gate_weights
        entropy = ENTROPIES[PAPER.entropy](gates)
        penalty = SearchSettings().entropy_coefficient * entropy + PAPER.bound_coefficient * bound(gates)
        optimizer.zero_grad()
        (torch.nn.functional.cross_entropy(supernet.module(images), labels) + penalty).backward()
        optimizer.step()
    return history


def relative_spread(gates: torch.Tensor) -> float:
    """Standard deviation over mean."""
    return float(gates.std() / gates.mean())


@pytest.fixture(scope="module")
def paper() -> list[torch.Tensor]:
    return gates_over_time(PAPER.gate_position)


def test_the_paper_puts_its_gates_before_the_depthwise_convolution() -> None:
    assert (PAPER.gate_position, PAPER.entropy, PAPER.importance) == ("before-depthwise", "paper", "gate")
    assert (SearchSettings().entropy_coefficient, PAPER.bound_coefficient) == (0.1, 0.01)
    assert (PAPER.gate_weight_decay, PAPER.threshold) == (5e-4, 0.1)


def test_its_gates_fall_together_from_one_to_about_a_seventh(paper: list[torch.Tensor]) -> None:
    falling = [gates for gates in paper if float(gates.mean()) > 0.15]
    assert float(falling[-1].mean()) < 0.2
    assert max(relative_spread(gates) for gates in falling) < 0.02


def test_then_nearly_all_of_them_pass_the_threshold_within_a_few_steps(paper: list[torch.Tensor]) -> None:
    closed = [float((gates <= PAPER.threshold).float().mean()) for gates in paper]
    last_open = max(step for step, share in enumerate(closed) if share < 0.05)
    first_closed = min(step for step, share in enumerate(closed) if share > 0.95)
    assert 0 < first_closed - last_open <= 10


def test_after_the_depthwise_convolution_the_same_recipe_tells_channels_apart_from_the_start() -> None:
    ours = gates_over_time("after-depthwise", steps=21)
    assert relative_spread(ours[-1]) > 0.1
