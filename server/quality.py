"""How good a model is beside its accuracy: class by class, among its five best answers, and macro averages."""

from dataclasses import dataclass
from typing import Any

import torch

from common.learning import Feed

BEST = 5
"""An answer counts among the best if it is one of so many."""


@dataclass(frozen=True)
class Quality:
    """Shares from 0 to 1 over a feed.

    `class_accuracy` is that of each class, None where it has no image. `best_of_five` is how often the right class is
    among the five of the largest logits. `precision`, `recall` and `f1` are macro averages: plain means over the
    classes that have an image or were an answer; a class that was never the answer has precision 0, one without an
    image recall 0.
    """

    class_accuracy: tuple[float | None, ...]
    best_of_five: float
    precision: float
    recall: float
    f1: float

    def summary(self) -> dict[str, Any]:
        """All but the classes, ready for summary.json."""
        return {name: getattr(self, name) for name in ("best_of_five", "precision", "recall", "f1")}


@torch.no_grad()
def quality_of(module: torch.nn.Module, feed: Feed, accelerator: torch.device) -> Quality:
    """The module's quality in evaluation mode."""
    module.eval()
    table = torch.zeros((0, 0), dtype=torch.int64)  # table[true][answered] images
    among_best = 0
    for batch in feed.evaluation(accelerator):
        logits = module(batch.images)
        classes = logits.shape[1]
        if len(table) < classes:
            table = torch.zeros((classes, classes), dtype=torch.int64)
        pairs = batch.labels * classes + logits.argmax(1)
        table += torch.bincount(pairs.cpu(), minlength=classes**2).view(classes, classes)
        best = logits.topk(min(BEST, classes), dim=1).indices
        among_best += int((best == batch.labels[:, None]).sum())
    right, answered, true = table.diagonal().double(), table.sum(0).double(), table.sum(1).double()
    known = (answered + true) > 0
    precision, recall, f1 = (
        float((right / whole.clamp(min=1))[known].mean()) for whole in (answered, true, (answered + true) / 2)
    )
    shares = tuple(float(hit / count) if count else None for hit, count in zip(right, true, strict=True))
    return Quality(shares, among_best / len(feed.images), precision, recall, f1)
