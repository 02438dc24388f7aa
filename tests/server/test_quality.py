"""Quality against scikit-learn, and by hand."""

from collections.abc import Callable

import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score, top_k_accuracy_score
from torch import nn

from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import Feed
from server.quality import quality_of

CPU = torch.device("cpu")


class Given(nn.Module):
    """Answers with the rows of a table, which the image's first value picks."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 1, 1) -> (N, classes)."""
        return self.table[(x[:, 0, 0, 0] * 255).round().long()]


@pytest.fixture
def feed() -> Callable[[list[int]], Feed]:
    def make(labels: list[int]) -> Feed:
        images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
        return Feed(Images(images, torch.tensor(labels)), Preprocessor(torch.zeros(1), torch.ones(1), "none"), 7)

    return make


@pytest.mark.parametrize("classes", [2, 6, 10])
def test_it_is_scikit_learns(classes: int, feed: Callable[[list[int]], Feed]) -> None:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (60,), generator=generator)
    logits = torch.randn(60, classes, generator=generator) + 2 * torch.eye(classes)[labels]
    logits[:, 1] -= 100  # one class is never the answer
    found = quality_of(Given(logits), feed(labels.tolist()), CPU)
    answers = logits.argmax(1)
    macro = {"average": "macro", "zero_division": 0}
    assert found.f1 == pytest.approx(f1_score(labels, answers, **macro))
    assert found.precision == pytest.approx(precision_score(labels, answers, **macro))
    assert found.recall == pytest.approx(recall_score(labels, answers, **macro))
    if classes > 5:
        best = top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
        assert found.best_of_five == pytest.approx(best)
    else:
        assert found.best_of_five == 1


def test_by_hand(feed: Callable[[list[int]], Feed]) -> None:
    """Labels 0 0 1, answers 0 1 1, a third class that is neither: precision (1 + 1/2) / 2, recall (1/2 + 1) / 2."""
    found = quality_of(Given(torch.eye(3)[[0, 1, 1]]), feed([0, 0, 1]), CPU)
    assert found.class_accuracy == (0.5, 1.0, None)
    assert (found.precision, found.recall) == (0.75, 0.75)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.summary() == {"best_of_five": 1.0, "precision": 0.75, "recall": 0.75, "f1": found.f1}
