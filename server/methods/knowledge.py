"""How a server trains a network on what devices sent of their images, and what it answers them (FedGKT)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from common.arrays import Array
from common.data.batches import batches
from common.errors import FederationError
from common.knowledge import taught
from common.methods.fedgkt import FEATURES, LABELS, LOGITS, FedGKTSettings
from server.feature_bank import Rows


@dataclass(frozen=True)
class Lesson:
    """Features (B, C, H, W) float32, labels (B,) and the devices' logits (B, classes), on the accelerator."""

    features: torch.Tensor
    labels: torch.Tensor
    logits: torch.Tensor


def train_on(
    module: nn.Module,
    rows: Rows,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    settings: FedGKTSettings,
    generator: torch.Generator,
    accelerator: torch.device,
) -> float:
    """Some epochs over the rows of all devices, shuffled together; returns the mean cross-entropy of the last.

    The loss is cross-entropy with the labels, plus, if the server learns from the devices,
    alpha T^2 KL(device / T || server / T). Raises FederationError if training diverges.
    """
    alpha = settings.fedgkt_alpha if settings.fedgkt_server_distillation else 0.0
    mean = 0.0
    module.train()
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), dtype=torch.float64, device=accelerator)
        for batch in batches(len(rows), settings.fedgkt_server_batch_size, generator):
            lesson = _lesson(rows, batch.numpy(), accelerator)
            known = torch.ones(len(batch), dtype=torch.bool, device=accelerator)
            answer = taught(
                module(lesson.features),
                lesson.labels,
                lesson.logits,
                known,
                temperature=settings.fedgkt_temperature,
                alpha=alpha,
            )
            optimizer.zero_grad(set_to_none=True)
            answer.objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += answer.loss.detach().double() * len(batch)
        mean = float(total) / len(rows)
        if not np.isfinite(mean):
            raise FederationError(
                f"the server's training diverged in epoch {epoch} (loss {mean}); use a lower "
                "fedgkt-server-learning-rate"
            )
    return mean


@torch.no_grad()
def answers_to(module: nn.Module, rows: Rows, name: str, batch_size: int, accelerator: torch.device) -> Array:
    """The network's logits (rows, classes) float32 for the features of one device, in evaluation mode."""
    module.eval()
    return np.concatenate([module(part).cpu().numpy() for part in _features(rows, name, batch_size, accelerator)])


def _features(rows: Rows, name: str, batch_size: int, accelerator: torch.device) -> Iterator[torch.Tensor]:
    own = rows.of(name)
    for start in range(0, len(own), batch_size):
        yield _tensor(rows.batch(own[start : start + batch_size], [FEATURES])[FEATURES], accelerator)


def _lesson(rows: Rows, batch: Array, accelerator: torch.device) -> Lesson:
    found = rows.batch(batch, [FEATURES, LABELS, LOGITS])
    labels = torch.from_numpy(found[LABELS].astype(np.int64)).to(accelerator)
    return Lesson(_tensor(found[FEATURES], accelerator), labels, torch.from_numpy(found[LOGITS]).to(accelerator))


def _tensor(features: Array, accelerator: torch.device) -> torch.Tensor:
    values = torch.from_numpy(features.astype(np.float32))
    return values.to(accelerator, memory_format=torch.channels_last)
