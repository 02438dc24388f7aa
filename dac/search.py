"""Search of one nested family of architectures for many budgets (DAC paper, section 3.2 and algorithm 1).

Train the gated supernet; remove its least valuable channels, a share at a time, inheriting weights and momentum; train
on; and whenever the next budget is met to the channel, fold the gates in and keep that architecture, fine-tuned with
the whole network as its teacher. On request all members are trained jointly at the end (`dac.joint`). Smaller members
are cut from larger ones, so their channels are subsets. Every choice is made on the validation split.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import FedDACError
from common.groups import SearchSettings
from common.layout import State
from common.learning import CrossEntropy, Feed, Teacher, evaluate, place, recalibrate, shorten_gradient, train_epoch
from common.models.description import BaseNetwork
from common.optimizers import SGD
from common.progress import Progress
from common.search_space import SearchSpace
from common.seeds import derive_seed, torch_generator
from common.slicing import state_of
from common.sparingly import Sparingly
from dac.checkpoint import SHARE, Checkpoint, load_checkpoint, save_checkpoint
from dac.files import Member
from dac.joint import share_weights
from dac.plan import check_feasible, clipped, fork, join
from dac.recipe import RECIPES
from dac.supernet import Supernet
from dac.trajectory import Trajectory


@dataclass(frozen=True)
class Family:
    """What a search found: one member per budget asked for, in that order; `parent` counts in that order too."""

    members: tuple[Member, ...]


def search(
    base: BaseNetwork,
    budgets: Sequence[DeviceBudget],
    train: Feed,
    validation: Feed,
    settings: SearchSettings,
    *,
    seed: int,
    accelerator: torch.device,
    progress: Progress,
    checkpoint: Path,
    record: Callable[[dict[str, Any]], None],
) -> Family:
    """Find an architecture for every budget; resumes from the file `checkpoint` if a search was cut short there.

    What was trained since the checkpoint was last written is trained again, in the same way.
    `record` is given one dictionary per epoch of the supernet (epoch, train_loss, validation_accuracy, macs, params,
    kept_channels). Raises BudgetError for a budget below the floor, before any training, CheckpointError for a damaged
    or foreign checkpoint, and FedDACError if training diverges.
    """
    check_feasible(base, budgets, SearchSpace.of(settings))
    under_way = _Search(base, budgets, train, validation, settings, seed, accelerator, checkpoint)
    under_way.restore()
    spare = Sparingly(SHARE)
    progress.start("search", len(under_way.budgets))
    progress.advance("search", len(under_way.members), "training the supernet")
    while under_way.trajectories:
        trajectory = under_way.trajectories[-1]
        target = join([under_way.budgets[number] for number in trajectory.todo])
        costs = trajectory.supernet.architecture.costs
        if trajectory.epochs_left > 0:
            row = under_way.train(trajectory)
            record(row)
            accuracy = f"validation {row['validation_accuracy']:.1%}"
            progress.advance(
                "search", 0, f"epoch {row['epoch']}{_left(trajectory)}: {costs.macs / 1e6:.2f} M MACs, {accuracy}"
            )
        elif not target.admits(costs):
            under_way.keep_teacher(trajectory)
            trajectory.shrink(target)
            continue
        else:
            served, member = under_way.serve_or_fork(trajectory, costs)
            if member is not None:
                accuracy = f"validation {member.validation_accuracy:.1%}"
                progress.advance(
                    "search", served, f"found {costs.macs:,} MACs, {costs.params:,} parameters: {accuracy}"
                )
        spare.do(under_way.save, surely=not under_way.trajectories)
    progress.finish("search", f"{len(under_way.budgets)} budgets served in {under_way.epoch} epochs")
    under_way.share_weights(progress)
    return under_way.family()


def _left(trajectory: Trajectory) -> str:
    """How many epochs come before the next channels are removed, in words to follow an epoch's number."""
    return f", {trajectory.epochs_left} to go before the next removal" if trajectory.epochs_left else ""


class _Search:
    """A search under way: trajectories still shrinking, members found so far, epochs trained."""

    def __init__(
        self,
        base: BaseNetwork,
        budgets: Sequence[DeviceBudget],
        train: Feed,
        validation: Feed,
        settings: SearchSettings,
        seed: int,
        accelerator: torch.device,
        checkpoint: Path,
    ) -> None:
        self.settings, self.seed, self.accelerator, self.checkpoint = settings, seed, accelerator, checkpoint
        self.train_feed, self.validation_feed = train, validation
        full = Architecture.full(base)
        self.asked = list(budgets)
        bounds = [clipped(budget, full.costs) for budget in budgets]
        self.budgets = list(dict.fromkeys(bounds))  # those that cannot be told apart are served once
        self.number_of = [self.budgets.index(bound) for bound in bounds]
        self.members: dict[int, Member] = {}
        self.epoch = 0
        self.share_weights_done = False
        self.teacher: State | None = None
        recipe, space = RECIPES[settings.recipe], SearchSpace.of(settings)
        supernet = Supernet(
            full,
            recipe.gate_position,
            derive_seed(seed, "supernet"),
            accelerator,
            space,
            zero_init_residual=recipe.zero_init_residual,
        )
        todo = list(range(len(self.budgets)))
        self.trajectories = [Trajectory(supernet, settings, todo, settings.warmup_epochs, None)]
        parts = [repr(base), repr(self.budgets), repr(settings), seed, len(train.images), len(validation.images)]
        self.signature = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def train(self, trajectory: Trajectory) -> dict[str, Any]:
        """One epoch of the trajectory's supernet; returns its row of the record."""
        supernet = trajectory.supernet
        loss = self._epoch(supernet.module, trajectory.optimizer, trajectory.penalty)
        trajectory.epochs_left -= 1
        architecture = supernet.architecture
        costs = architecture.costs
        return {
            "epoch": self.epoch,
            "train_loss": loss,
            "validation_accuracy": evaluate(supernet.module, self.validation_feed, self.accelerator).accuracy,
            "macs": costs.macs,
            "params": costs.params,
            "kept_channels": sum(
                architecture.sizes[group.name] for group in supernet.space.groups(supernet.description)
            ),
        }

    def serve_or_fork(self, trajectory: Trajectory, costs: Costs) -> tuple[int, Member | None]:
        """The trajectory reached the join of its budgets: keep a member for those it meets, or split it in two.

        Returns how many budgets were served and the member.
        """
        served = [number for number in trajectory.todo if self.budgets[number].admits(costs)]
        if not served:
            first, _ = fork([self.budgets[number] for number in trajectory.todo])
            self.trajectories.append(trajectory.fork([trajectory.todo[position] for position in first]))
            return 0, None
        member = self._finish(trajectory, served[0])
        self.members |= dict.fromkeys(served, member)
        trajectory.served(served)
        if not trajectory.todo:
            self.trajectories.remove(trajectory)
        return len(served), member

    def share_weights(self, progress: Progress) -> None:
        """Train the members jointly if the settings ask for it; a resumed search does it once."""
        if self.share_weights_done or self.settings.joint_epochs == 0:
            return
        distinct = self._distinct()
        feeds = self.train_feed, self.validation_feed
        trained = share_weights(
            distinct, *feeds, self.settings, seed=self.seed, accelerator=self.accelerator, progress=progress
        )
        new = {id(before): after for before, after in zip(distinct, trained, strict=True)}
        self.members = {number: new[id(member)] for number, member in self.members.items()}
        self.share_weights_done = True
        self.save()

    def _distinct(self) -> list[Member]:
        """The members, each once however many budgets it serves."""
        return list({id(member): member for member in self.members.values()}.values())

    def family(self) -> Family:
        """The members in the order in which budgets were asked for."""
        found = []
        for number, budget in zip(self.number_of, self.asked, strict=True):
            member = self.members[number]
            parent = None if member.parent is None else self.number_of.index(member.parent)
            found.append(replace(member, budget=budget, parent=parent))
        return Family(tuple(found))

    def keep_teacher(self, trajectory: Trajectory) -> None:
        """Before the first removal: fine-tune a copy of the whole network, from which the members will learn."""
        wanted = trajectory.recipe.distillation > 0 and self.settings.fine_tune_epochs > 0
        if wanted and self.teacher is None:
            self.teacher = state_of(self._fine_tuned(trajectory))

    def _finish(self, trajectory: Trajectory, number: int) -> Member:
        """The trajectory's architecture without gates, fine-tuned on the reference set."""
        module = self._fine_tuned(trajectory)
        accuracy = evaluate(module, self.validation_feed, self.accelerator).accuracy
        architecture = trajectory.supernet.architecture
        return Member(architecture, self.budgets[number], state_of(module), accuracy, trajectory.parent)

    def _fine_tuned(self, trajectory: Trajectory) -> nn.Module:
        """The trajectory's network without gates, fine-tuned; the learning rate falls along a cosine."""
        settings, architecture = self.settings, trajectory.supernet.architecture
        module = place(architecture.build_from(trajectory.supernet.extract(architecture)), self.accelerator)
        optimizer = SGD(
            module.parameters(),
            lr=settings.search_learning_rate,
            momentum=settings.search_momentum,
            weight_decay=settings.search_weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.fine_tune_epochs))
        teacher = None
        if self.teacher is not None:
            whole = Architecture.full(architecture.base).build_from(self.teacher)
            teacher = Teacher(place(whole, self.accelerator).eval(), trajectory.recipe.distillation)
        for _ in range(settings.fine_tune_epochs):
            self._epoch(module, optimizer, teacher=teacher)
            schedule.step()
        recalibrate(module, self.train_feed, self.accelerator)
        return module

    def _epoch(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        penalty: Callable[[], torch.Tensor] | None = None,
        teacher: Teacher | None = None,
    ) -> float:
        """One epoch whose randomness depends on its number alone; returns the mean loss."""
        self.epoch += 1
        longest = RECIPES[self.settings.recipe].max_gradient_norm
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed, "search-dropout", self.epoch))
            generator = torch_generator(self.seed, "search", self.epoch)
            loss = CrossEntropy(penalty=penalty, teacher=teacher)
            score = train_epoch(
                module,
                self.train_feed,
                optimizer,
                generator,
                self.accelerator,
                loss,
                before_step=partial(shorten_gradient, list(module.parameters()), longest),
            )
        if not math.isfinite(score.loss):
            raise FedDACError(f"the search diverged in epoch {self.epoch}; lower --search-learning-rate")
        return score.loss

    def save(self) -> None:
        """Write the checkpoint."""
        distinct = self._distinct()
        progress = {
            "epoch": self.epoch,
            "share_weights_done": self.share_weights_done,
            "trajectories": [trajectory.to_progress() for trajectory in self.trajectories],
            "members": [
                {
                    "numbers": [number for number, one in self.members.items() if one is member],
                    "architecture": member.architecture.to_dict(),
                    "accuracy": member.validation_accuracy,
                    "parent": member.parent,
                }
                for member in distinct
            ],
        }
        tensors = {f"trajectory{n}": trajectory.to_tensors() for n, trajectory in enumerate(self.trajectories)}
        tensors |= {f"member{n}": member.state for n, member in enumerate(distinct)}
        if self.teacher is not None:
            tensors["teacher"] = self.teacher
        save_checkpoint(self.checkpoint, Checkpoint(progress, tensors), self.signature)

    def restore(self) -> None:
        """Continue from the checkpoint where there is one."""
        saved = load_checkpoint(self.checkpoint, self.signature)
        if saved is None:
            return
        self.epoch = int(saved.progress["epoch"])
        self.share_weights_done = bool(saved.progress["share_weights_done"])
        for n, entry in enumerate(saved.progress["members"]):
            numbers = entry["numbers"]
            architecture = Architecture.from_dict(entry["architecture"])
            budget = self.budgets[numbers[0]]
            member = Member(architecture, budget, saved.tensors[f"member{n}"], entry["accuracy"], entry["parent"])
            self.members |= dict.fromkeys(numbers, member)
        self.teacher = saved.tensors.get("teacher")
        self.trajectories = [
            Trajectory.restore(entry, saved.tensors[f"trajectory{n}"], self.settings, self.accelerator)
            for n, entry in enumerate(saved.progress["trajectories"])
        ]
