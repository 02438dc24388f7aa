"""Local training: some epochs of stochastic gradient descent on this device's images (McMahan et al. 2017, FedAvg)."""

import math
import time
from functools import partial

import torch

from client.deadline import deadline
from client.masked_loss import MASKS, mask_for
from client.methods.heterofl import scaled_convolutions
from client.models import module_for, require_fit
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import FederationError, MessageError
from common.learning import Feed, train_epoch
from common.messages import Task, TrainResult
from common.process import peak_rss_bytes
from common.seeds import derive_seed, torch_generator


def train_task(
    task: Task, images: Images, preprocessor: Preprocessor, device_name: str, accelerator: torch.device
) -> TrainResult:
    """The task's model after `task.epochs` epochs with a fresh optimizer; `loss` is the last epoch's mean.

    All randomness (order, augmentation, dropout) follows from the task's seed and round and the device's name. Raises
    MessageError for a task this device cannot carry out, FederationError if it diverges or misses its deadline.
    """
    if task.epochs < 1 or task.batch_size < 1:
        raise MessageError(f"cannot train {task.epochs} epochs in batches of {task.batch_size}")
    if task.masked_loss not in ("none", *MASKS):
        raise MessageError(f"this device knows no masked loss called {task.masked_loss!r:.40}")
    require_fit(task, images)
    start = time.perf_counter()
    module = module_for(task, accelerator)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=task.learning_rate, momentum=task.momentum, weight_decay=task.weight_decay
    )
    feed = Feed(images, preprocessor, task.batch_size)
    shorten = None
    if task.max_gradient_norm > 0:
        shorten = partial(torch.nn.utils.clip_grad_norm_, list(module.parameters()), task.max_gradient_norm)
    mask = mask_for(images.labels, task.architecture.base.classes, task.masked_loss)
    names = ("train", task.round, device_name)
    generator = torch_generator(task.seed, *names)
    epochs = f"{task.epochs} epoch" + "s" * (task.epochs > 1)
    with (
        deadline(task.deadline_seconds, f"finish {epochs}") as check_deadline,
        torch.random.fork_rng(devices=[accelerator] if accelerator.type == "cuda" else []),
        scaled_convolutions(module, task.activation_scale),
    ):
        torch.manual_seed(derive_seed(task.seed, *names, "dropout"))
        for epoch in range(1, task.epochs + 1):
            loss = train_epoch(
                module,
                feed,
                optimizer,
                generator,
                accelerator,
                before_step=shorten,
                mask=mask,
                frozen_norms=task.frozen_norms,
            ).loss
            if not math.isfinite(loss):
                raise FederationError(f"training diverged in epoch {epoch} (loss {loss}); use a lower learning-rate")
            check_deadline()
    layout = task.architecture.layout
    return TrainResult(
        round=task.round,
        layout_hash=layout.hash,
        weights=layout.flatten(module.state_dict()),
        samples=len(images),
        loss=loss,
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
    )
