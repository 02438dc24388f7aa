"""One epoch of training and one pass of evaluation: the loops that the search, the devices and the server share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from common.data.augment import Preprocessor
from common.data.batches import batch_count, batches
from common.data.images import Images
from common.errors import ConfigurationError, DataError
from common.fast_convolutions import use_fast_convolutions
from common.models.map_layout import map_layout
from common.seeds import seeded


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy (natural logarithm) and accuracy (0 to 1) over `samples` images."""

    loss: float
    accuracy: float
    samples: int


@dataclass(frozen=True)
class Batch:
    """Some images of a feed: their positions in it (B,), pixels (B, C, H, W) float32, and labels (B,)."""

    ids: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Feed:
    """Images, how they are prepared, and in batches of which size; raises DataError if there is no image."""

    images: Images
    preprocessor: Preprocessor
    batch_size: int

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise DataError("there are no images to train or evaluate on")

    @property
    def training_steps(self) -> int:
        """How many batches `training` yields."""
        return batch_count(len(self.images), self.batch_size)

    def training(self, generator: torch.Generator, accelerator: torch.device) -> Iterator[Batch]:
        """Shuffled, augmented batches."""
        for ids in batches(len(self.images), self.batch_size, generator):
            images = self.images.images[ids].to(accelerator, non_blocking=True)
            prepared = self.preprocessor.train_batch(images, generator)
            yield Batch(ids, prepared, self.images.labels[ids].to(accelerator))

    def evaluation(self, accelerator: torch.device) -> Iterator[Batch]:
        """Every image once, in order, unaugmented."""
        for ids in torch.split(torch.arange(len(self.images)), self.batch_size):
            images = self.images.images[ids].to(accelerator, non_blocking=True)
            yield Batch(ids, self.preprocessor.eval_batch(images), self.images.labels[ids].to(accelerator))


@dataclass(frozen=True)
class Teacher:
    """A trained module, in evaluation mode, whose answers make up `share` (0 to 1) of a student's loss."""

    module: nn.Module
    share: float
    temperature: float = 2.0

    def distance(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """How far the student's `logits` (B, classes) for `images` (B, C, H, W) are from the teacher's; a scalar."""
        with torch.no_grad():
            wanted = self.module(images).float()
        return distance(logits, wanted, self.temperature)


def distance(logits: torch.Tensor, wanted: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """T^2 KL(wanted / T || logits / T) of logits (B, classes), the mean over the batch; a scalar.

    Hinton et al. 2015, section 2.
    """
    answered = F.log_softmax(logits / temperature, dim=1)
    target = F.log_softmax(wanted / temperature, dim=1)
    return F.kl_div(answered, target, reduction="batchmean", log_target=True) * temperature**2


class Answer(NamedTuple):
    """What a module made of a batch: logits (B, classes), the loss that is reported, and what is minimised."""

    logits: torch.Tensor
    loss: torch.Tensor
    objective: torch.Tensor


Loss: TypeAlias = Callable[[nn.Module, Batch], Answer]


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the logits, of which a `teacher` replaces its share; `penalty` is minimised but not reported.

    `mask` is applied to the logits; with `bf16` the forward pass runs under autocast.
    """

    label_smoothing: float = 0.0
    mask: Callable[[torch.Tensor], torch.Tensor] | None = None
    teacher: Teacher | None = None
    penalty: Callable[[], torch.Tensor] | None = None
    bf16: bool = False

    def __call__(self, module: nn.Module, batch: Batch) -> Answer:
        """The module's answer to a batch."""
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
            logits = module(batch.images)
        logits = logits.float() if self.mask is None else self.mask(logits.float())
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        if self.teacher is not None:
            share = self.teacher.share
            loss = (1 - share) * loss + share * self.teacher.distance(batch.images, logits)
        return Answer(logits, loss, loss if self.penalty is None else loss + self.penalty())


def train_epoch(
    module: nn.Module,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    accelerator: torch.device,
    loss: Loss,
    *,
    before_step: Callable[[], object] | None = None,
    frozen_norms: bool = False,
) -> Score:
    """One pass of stochastic gradient descent; the score is that of the batches seen, with the loss that is reported.

    All randomness comes from `generator`, except dropout, which draws from torch's global one. `before_step` is called
    before each step of the optimizer (to set its learning rate or to clip gradients, say); with `frozen_norms` batch
    norms use, and keep, the running statistics they have.
    """
    begin_training(module, frozen_norms)
    loss_sum = torch.zeros((), dtype=torch.float64, device=accelerator)
    correct = torch.zeros((), dtype=torch.int64, device=accelerator)
    for batch in feed.training(generator, accelerator):
        answer = loss(module, batch)
        optimizer.zero_grad(set_to_none=True)
        answer.objective.backward()  # type: ignore[no-untyped-call]
        if before_step is not None:
            before_step()
        optimizer.step()
        loss_sum += answer.loss.detach().double() * len(batch.labels)
        correct += (answer.logits.detach().argmax(1) == batch.labels).sum()
    return Score(float(loss_sum) / len(feed.images), int(correct) / len(feed.images), len(feed.images))


def begin_training(module: nn.Module, frozen_norms: bool) -> None:
    """Put the module in training mode; `frozen_norms` stay in evaluation mode."""
    module.train()
    if frozen_norms:
        for norm in _norms(module):
            norm.eval()


def shorten_gradient(parameters: Sequence[torch.Tensor], longest: float) -> None:
    """Scale the gradient of the parameters together down to the L2 norm `longest` if it is longer; 0 does not."""
    if longest > 0:
        nn.utils.clip_grad_norm_(parameters, longest)


@torch.no_grad()
def evaluate(module: nn.Module, feed: Feed, accelerator: torch.device) -> Score:
    """Cross-entropy and accuracy in evaluation mode."""
    module.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=accelerator)
    correct = torch.zeros((), dtype=torch.int64, device=accelerator)
    for batch in feed.evaluation(accelerator):
        logits = module(batch.images)
        loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum").double()
        correct += (logits.argmax(1) == batch.labels).sum()
    return Score(float(loss_sum) / len(feed.images), int(correct) / len(feed.images), len(feed.images))


@torch.no_grad()
def recalibrate(module: nn.Module, feed: Feed, accelerator: torch.device) -> None:
    """Replace every batch norm's running statistics by the average over one pass of `feed`, unaugmented.

    After few steps, or after channels were removed, the exponential average of training still lags behind the weights.
    A short last batch, whose variance would count as much as a full one's, is left out unless it is the only one. What
    training does at random is left out where torch has it (dropout), and is the same every time where a network does it
    itself.
    """
    norms = _norms(module)
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps a cumulative average
    module.train()
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()
    with seeded(0, accelerator):
        for number, batch in enumerate(feed.evaluation(accelerator)):
            if number == 0 or len(batch.labels) == feed.batch_size:
                module(batch.images)
    module.train()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def pick_accelerator(wanted: str) -> torch.device:
    """`auto` takes the first CUDA device if there is one; raises ConfigurationError if `cuda` is asked for in vain."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigurationError("accelerator cuda was asked for, but torch finds no CUDA device; use cpu or auto")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def place(module: nn.Module, accelerator: torch.device) -> nn.Module:
    """The module on `accelerator` with channels-last weights, which convolutions run about twice as fast on CPU.

    Where a network cannot read channels-last maps, they are contiguous.
    """
    if accelerator.type == "cpu":
        use_fast_convolutions(module)
    return module.to(accelerator, memory_format=map_layout(module))  # type: ignore[call-overload, no-any-return]
