"""Evaluation on the device's own held-out images."""

import torch

from client.deadline import deadline
from client.models import module_for, require_fit
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import MessageError
from common.learning import Feed, evaluate
from common.messages import EvaluateResult, Task
from common.methods.evaluation import EVALUATE, EvaluationOrder


def evaluate_task(
    task: Task, held_out: Images | None, preprocessor: Preprocessor, accelerator: torch.device
) -> EvaluateResult:
    """Loss and accuracy of the task's model; raises MessageError if this device holds no images out."""
    if task.step != EVALUATE:
        raise MessageError(f"a device cannot evaluate step {task.step!r:.40}")
    if held_out is None:
        raise MessageError("this device holds no images out to evaluate on")
    require_fit(task.network, held_out)
    order = task.order_as(EvaluationOrder)
    with deadline(task.deadline_seconds, "finish the evaluation"):
        score = evaluate(module_for(task, accelerator), Feed(held_out, preprocessor, order.batch_size), accelerator)
    return EvaluateResult(task.round, score.loss, score.accuracy, score.samples)
