"""Distillation by sample id: formulas by hand, and no answer given to another image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.knowledge import Answers, Taught, taught
from common.learning import Batch

LABELS = torch.tensor([0, 1])
KNOWN = torch.tensor([True, True])


def by_hand(logits: list[float], label: int, wanted: list[float], temperature: float, alpha: float) -> float:
    """Of one image of two classes, with exponentials and logarithms alone."""
    own = [math.exp(value) for value in logits]
    soft = [math.exp(value / temperature) for value in logits]
    teacher = [math.exp(value / temperature) for value in wanted]
    p = [value / sum(teacher) for value in teacher]
    q = [value / sum(soft) for value in soft]
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return -math.log(own[label] / sum(own)) + alpha * temperature**2 * divergence


@pytest.mark.parametrize(("temperature", "alpha"), [(3.0, 1.0), (1.0, 1.0), (3.0, 0.5), (100.0, 2.0), (3.0, 0.0)])
def test_the_loss_by_hand(temperature: float, alpha: float) -> None:
    logits, wanted = [[1.0, -2.0], [0.5, 0.25]], [[3.0, 0.0], [-1.0, 2.0]]
    expected = sum(by_hand(logits[i], i, wanted[i], temperature, alpha) for i in (0, 1)) / 2
    answer = taught(torch.tensor(logits), LABELS, torch.tensor(wanted), KNOWN, temperature=temperature, alpha=alpha)
    assert float(answer.objective) == pytest.approx(expected, rel=2e-4)  # T^2 times a float32 rounding
    assert float(answer.loss) == pytest.approx(sum(by_hand(logits[i], i, wanted[i], 1.0, 0.0) for i in (0, 1)) / 2)


def test_the_gradient_by_hand() -> None:
    """d/dz of T^2 KL is T (softmax(z / T) - softmax(wanted / T)): T^2 keeps its size at any temperature."""
    logits, wanted = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[3.0, 0.0]], requires_grad=True)
    taught(logits, LABELS[:1], wanted, KNOWN[:1], temperature=3.0, alpha=1.0).objective.backward()
    own, teacher = (logits / 3).softmax(1), (wanted / 3).softmax(1)
    expected = logits.softmax(1) - torch.tensor([[1.0, 0.0]]) + 3 * (own - teacher)
    assert logits.grad is not None
    assert torch.allclose(logits.grad, expected.detach(), atol=1e-6)
    assert wanted.grad is None  # a teacher is not taught


def test_images_without_an_answer_learn_their_label_alone() -> None:
    logits, wanted = [[1.0, -2.0], [0.5, 0.25]], [[3.0, 0.0], [99.0, -99.0]]
    known = torch.tensor([True, False])
    answer = taught(torch.tensor(logits), LABELS, torch.tensor(wanted), known, temperature=3.0, alpha=1.0)
    expected = (by_hand(logits[0], 0, wanted[0], 3.0, 1.0) + by_hand(logits[1], 1, wanted[1], 1.0, 0.0)) / 2
    assert float(answer.objective) == pytest.approx(expected, rel=1e-5)


@given(st.permutations(range(6)), st.integers(1, 6))
def test_answers_are_found_by_id_in_whatever_order_they_came(order: list[int], held: int) -> None:
    ids = np.array(order[:held], "<i4")
    logits = np.stack([ids * 10.0, -ids], 1).astype("<f4")
    answers = Answers.by_id(ids, logits, 6)
    wanted, known = answers.of(torch.arange(6), torch.device("cpu"))
    for image in range(6):
        assert bool(known[image]) == (image in order[:held])
        assert wanted[image].tolist() == ([image * 10.0, -image] if image in order[:held] else [0, 0])


def test_a_shuffled_batch_learns_the_answers_of_its_own_images() -> None:
    """The published program looked answers up by the number of the batch, and so gave images those of others."""
    answers = Answers.by_id(np.arange(4, dtype="<i4"), np.eye(4, 2, dtype="<f4") * 9, 4)
    module = nn.Linear(3, 2)
    images, labels = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    loss = Taught(answers, 3.0, 1.0)
    orders = [torch.tensor(one) for one in ([0, 1, 2, 3], [3, 1, 0, 2])]
    ends = [float(loss(module, Batch(order, images[order], labels[order])).objective.detach()) for order in orders]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
    other = float(loss(module, Batch(orders[0], images[orders[1]], labels[orders[1]])).objective.detach())
    assert other != pytest.approx(ends[0], rel=1e-3)
