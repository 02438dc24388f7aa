"""The gate penalties against numbers worked out by hand (DAC paper, equations 1 and 2)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dac.losses import bernoulli_entropy, bound, normalised_entropy, softmax_entropy


def test_equal_gates_have_the_largest_entropy_ln_n_per_block() -> None:
    assert float(softmax_entropy([torch.ones(32), torch.ones(8)])) == pytest.approx(math.log(32) + math.log(8))


def test_softmax_entropy_of_two_gates_by_hand() -> None:
    share = math.e / (math.e + 1)
    expected = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert float(softmax_entropy([torch.tensor([1.0, 0.0])])) == pytest.approx(expected, rel=1e-6)


def test_gates_between_zero_and_one_can_lower_the_papers_entropy_by_hardly_more_than_a_tenth_of_a_nat() -> None:
    """The exact limit, whatever the number of channels: 0.1233 nats, reached with 33.9 % of the channels at 1."""
    channels = 1000
    drops = []
    for kept in range(1, channels):
        gates = torch.zeros(channels, dtype=torch.float64)
        gates[:kept] = 1
        drops.append(math.log(channels) - float(softmax_entropy([gates])))
    assert max(drops) == pytest.approx(0.1233, abs=1e-4)
    assert (drops.index(max(drops)) + 1) / channels == pytest.approx(0.339, abs=1e-3)


def test_the_papers_entropy_has_no_gradient_where_all_gates_are_equal() -> None:
    gates = torch.ones(16, dtype=torch.float64, requires_grad=True)
    softmax_entropy([gates]).backward()
    assert gates.grad is not None
    assert float(gates.grad.abs().max()) < 1e-12


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_normalised_and_bernoulli_entropy_lie_between_zero_and_one(values: list[float]) -> None:
    gates = [torch.tensor(values, dtype=torch.float64)]
    assert 0 <= float(normalised_entropy(gates)) <= 1 + 1e-9
    assert 0 <= float(bernoulli_entropy(gates)) <= math.log(2) + 1e-9


def test_gates_that_stand_alone_have_no_entropy() -> None:
    """There is nothing to choose among: a group of one channel, as --channel-floor 1 may leave everywhere."""
    assert normalised_entropy([torch.tensor([0.3], requires_grad=True)]).item() == 0
    assert normalised_entropy([]).item() == 0


def test_bernoulli_entropy_is_largest_at_one_half_and_vanishes_when_gates_are_decided() -> None:
    assert float(bernoulli_entropy([torch.full((4,), 0.5)])) == pytest.approx(math.log(2))
    assert float(bernoulli_entropy([torch.tensor([0.0, 1.0])])) == pytest.approx(0, abs=1e-4)


def test_bound_adds_up_what_lies_outside_and_is_never_negative() -> None:
    gates = [torch.tensor([-0.5, 0.2, 1.0]), torch.tensor([1.25, 0.0, -0.25])]
    assert float(bound(gates)) == pytest.approx(0.5 + 0.25 + 0.25)
    assert float(bound([torch.tensor([0.0, 0.5, 1.0])])) == 0
