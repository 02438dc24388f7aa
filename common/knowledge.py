"""What one network learns of another's answers, image by image (knowledge distillation, Hinton et al. 2015, section 2).

Answers belong to images by the images' ids: their order in a batch, or in an epoch, says nothing.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from common.arrays import Array
from common.learning import Answer, Batch, distance


@dataclass(frozen=True)
class Answers:
    """Another network's logits (N, classes) float32 for images by id; `known` (N,) says which images have any."""

    logits: torch.Tensor
    known: torch.Tensor

    @classmethod
    def none(cls, images: int, classes: int) -> "Answers":
        """Nothing known of so many images."""
        return cls(torch.zeros(images, classes), torch.zeros(images, dtype=torch.bool))

    @classmethod
    def by_id(cls, ids: Array, logits: Array, images: int) -> "Answers":
        """From logits (n, classes) of the images with these ids (n,), each below `images`; IndexError for others."""
        answers = cls.none(images, logits.shape[1])
        places = torch.from_numpy(ids.astype("int64"))
        answers.logits[places] = torch.from_numpy(logits.astype("float32"))
        answers.known[places] = True
        return answers

    def of(self, ids: torch.Tensor, accelerator: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, classes) and whether they are known (B,), of the images `ids` (B,)."""
        return self.logits[ids].to(accelerator), self.known[ids].to(accelerator)


def taught(
    logits: torch.Tensor,
    labels: torch.Tensor,
    wanted: torch.Tensor,
    known: torch.Tensor,
    *,
    temperature: float,
    alpha: float,
) -> Answer:
    """Cross-entropy with `labels` (B,) plus alpha T^2 KL(wanted / T || logits / T), both means over the batch.

    The second is 0 for images that are not `known`, and its gradient does not reach `wanted`, which is the teacher's.
    The loss that is reported is the cross-entropy.

    >>> logits, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    >>> answer = taught(logits, labels, logits, torch.tensor([True]), temperature=3.0, alpha=1.0)
    >>> round(float(answer.objective), 4)  # the teacher answers the same, so ln 2 of the label is all
    0.6931
    """
    loss = F.cross_entropy(logits, labels)
    if alpha == 0 or not bool(known.any()):
        return Answer(logits, loss, loss)
    share = known.sum() / len(known)
    return Answer(logits, loss, loss + alpha * share * distance(logits[known], wanted[known].detach(), temperature))


@dataclass(frozen=True)
class Taught:
    """The loss of a network that learns labels and another's `answers`, whose ids are positions in the feed."""

    answers: Answers
    temperature: float
    alpha: float

    def __call__(self, module: nn.Module, batch: Batch) -> Answer:
        """The module's answer to a batch."""
        wanted, known = self.answers.of(batch.ids, batch.images.device)
        logits = module(batch.images)
        return taught(logits, batch.labels, wanted, known, temperature=self.temperature, alpha=self.alpha)
