"""Search of one nested family of architectures for many budgets (DAC paper, section 3.2 and algorithm 1).

Train the gated supernet; remove its least valuable channels, a share at a time, inheriting weights and momentum; train
on; and whenever the next budget is met to the channel, fold the gates in and keep that architecture, fine-tuned with
the whole network as its teacher (`dac.finals`). On request all members are trained jointly at the end (`dac.joint`).
Smaller members are cut from larger ones, so their channels are subsets. Every choice is made on the validation split.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import FedDACError
from common.groups import SearchSettings
from common.layout import State
from common.learning import CrossEntropy, Feed, evaluate, shorten_gradient, train_epoch
from common.models.description import BaseNetwork
from common.progress import Progress
from common.search_space import SearchSpace
from common.seeds import derive_seed, seeded, torch_generator
from common.sparingly import Sparingly
from dac.checkpoint import SHARE, Checkpoint, digest_of, load_checkpoint, save_checkpoint
from dac.files import Member
from dac.finals import Begun, Finals, finished
from dac.joint import share_weights
from dac.plan import check_feasible, clipped, fork, join
from dac.recipe import RECIPES
from dac.supernet import Supernet
from dac.train import Trained
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
    with Finals(train, validation, settings, seed, accelerator) as finals:
        under_way = _Search(base, budgets, train, validation, settings, seed, accelerator, checkpoint, finals)
        under_way.restore()
        spare = Sparingly(SHARE)
        progress.start("search", len(under_way.budgets))
        progress.advance("search", 0, "training the supernet")
        while under_way.trajectories:
            under_way.tell_finished(progress)
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
                under_way.serve_or_fork(trajectory, costs)
            spare.do(under_way.save)
        under_way.tell_finished(progress, wait=True)
        under_way.save()
    progress.finish("search", f"every budget served, after {under_way.epoch} epochs")
    under_way.share_weights(progress)
    return under_way.family()


def _left(trajectory: Trajectory) -> str:
    """How many epochs come before the next channels are removed, in words to follow an epoch's number."""
    return f", {trajectory.epochs_left} to go before the next removal" if trajectory.epochs_left else ""


@dataclass
class _Found:
    """A network that serves the budgets `numbers`, and its final training; `told` once progress knows its accuracy."""

    numbers: list[int]
    parent: int | None
    begun: Begun
    training: Future[Trained]
    told: bool = False


class _Search:
    """A search under way: trajectories still shrinking, networks found so far, epochs of supernets."""

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
        finals: Finals,
    ) -> None:
        self.settings, self.seed, self.accelerator, self.checkpoint = settings, seed, accelerator, checkpoint
        self.train_feed, self.validation_feed, self.finals = train, validation, finals
        self.full = full = Architecture.full(base)
        self.asked = list(budgets)
        bounds = [clipped(budget, full.costs) for budget in budgets]
        self.budgets = list(dict.fromkeys(bounds))  # those that cannot be told apart are served once
        self.number_of = [self.budgets.index(bound) for bound in bounds]
        self.found: list[_Found] = []
        self.epoch = 0
        self.share_weights_done = False
        self.teacher: tuple[Begun, Future[Trained]] | None = None
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
        parts = [repr(base), repr(self.budgets), repr(settings), seed, digest_of(train, validation)]
        self.signature = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def train(self, trajectory: Trajectory) -> dict[str, Any]:
        """One epoch of the trajectory's supernet, whose randomness depends on its number.

        Returns its row of the record. Raises FedDACError if it diverges.
        """
        supernet = trajectory.supernet
        self.epoch += 1
        longest = trajectory.recipe.max_gradient_norm
        with seeded(derive_seed(self.seed, "search-dropout", self.epoch), self.accelerator):
            score = train_epoch(
                supernet.module,
                self.train_feed,
                trajectory.optimizer,
                torch_generator(self.seed, "search", self.epoch),
                self.accelerator,
                CrossEntropy(penalty=trajectory.penalty),
                before_step=partial(shorten_gradient, list(supernet.module.parameters()), longest),
            )
        if not math.isfinite(score.loss):
            raise FedDACError(f"the search diverged in epoch {self.epoch}; lower --search-learning-rate")
        trajectory.epochs_left -= 1
        architecture = supernet.architecture
        costs = architecture.costs
        return {
            "epoch": self.epoch,
            "train_loss": score.loss,
            "validation_accuracy": evaluate(supernet.module, self.validation_feed, self.accelerator).accuracy,
            "macs": costs.macs,
            "params": costs.params,
            "kept_channels": sum(
                architecture.sizes[group.name] for group in supernet.space.groups(supernet.description)
            ),
        }

    def serve_or_fork(self, trajectory: Trajectory, costs: Costs) -> None:
        """The trajectory reached the join of its budgets: keep a network for those it meets, or split it in two."""
        served = [number for number in trajectory.todo if self.budgets[number].admits(costs)]
        if not served:
            first, _ = fork([self.budgets[number] for number in trajectory.todo])
            self.trajectories.append(trajectory.fork([trajectory.todo[position] for position in first]))
            return
        begun = self._begun(trajectory, str(served[0]))
        self.found.append(_Found(served, trajectory.parent, begun, self.finals.start(begun)))
        trajectory.served(served)
        if not trajectory.todo:
            self.trajectories.remove(trajectory)

    def keep_teacher(self, trajectory: Trajectory) -> None:
        """Before the first removal: fine-tune a copy of the whole network, from which the members will learn."""
        wanted = trajectory.recipe.distillation > 0 and self.settings.fine_tune_epochs > 0
        if wanted and self.teacher is None:
            begun = self._begun(trajectory, "teacher")
            self.teacher = begun, self.finals.start(begun)

    def _begun(self, trajectory: Trajectory, name: str) -> Begun:
        """The trajectory's network without gates, before its final training."""
        supernet = trajectory.supernet
        state = supernet.extract(supernet.architecture)
        return Begun(name, supernet.architecture, state, None if self.teacher is None else self._taught())

    def _taught(self) -> State:
        """The weights of the members' teacher, which is waited for."""
        assert self.teacher is not None
        begun, training = self.teacher
        trained = self.finals.result(training, begun)
        self.teacher = begun, finished(trained)  # as for members: what is trained here is trained once
        return trained.state

    def tell_finished(self, progress: Progress, *, wait: bool = False) -> None:
        """Say how good the networks are whose final training has ended; with `wait` of all."""
        for one in self.found:
            if not one.told and (wait or one.training.done()):
                costs, accuracy = one.begun.architecture.costs, self._trained(one).validation_accuracy
                words = f"found {costs.macs:,} MACs, {costs.params:,} parameters: validation {accuracy:.1%}"
                progress.advance("search", len(one.numbers), words)
                one.told = True

    def _trained(self, found: _Found) -> Trained:
        trained = self.finals.result(found.training, found.begun)
        found.training = finished(trained)
        return trained

    def _members(self) -> list[Member]:
        """What was found, each once however many budgets it serves."""
        return [
            Member(
                one.begun.architecture,
                self.budgets[one.numbers[0]],
                self._trained(one).state,
                self._trained(one).validation_accuracy,
                one.parent,
            )
            for one in self.found
        ]

    def share_weights(self, progress: Progress) -> None:
        """Train the members jointly if the settings ask for it; a resumed search does it once."""
        if self.share_weights_done or self.settings.joint_epochs == 0:
            return
        feeds = self.train_feed, self.validation_feed
        trained = share_weights(
            self._members(), *feeds, self.settings, seed=self.seed, accelerator=self.accelerator, progress=progress
        )
        for one, member in zip(self.found, trained, strict=True):
            one.training = finished(Trained(member.state, member.validation_accuracy))
        self.share_weights_done = True
        self.save()

    def family(self) -> Family:
        """The members in the order in which budgets were asked for."""
        member_of = {
            number: member for one, member in zip(self.found, self._members(), strict=True) for number in one.numbers
        }
        members = []
        for number, budget in zip(self.number_of, self.asked, strict=True):
            member = member_of[number]
            parent = None if member.parent is None else self.number_of.index(member.parent)
            members.append(replace(member, budget=budget, parent=parent))
        return Family(tuple(members))

    def save(self) -> None:
        """Write the checkpoint; a final training that is under way will begin again."""
        progress = {
            "epoch": self.epoch,
            "share_weights_done": self.share_weights_done,
            "trajectories": [trajectory.to_progress() for trajectory in self.trajectories],
        }
        tensors = {f"trajectory{n}": trajectory.to_tensors() for n, trajectory in enumerate(self.trajectories)}
        members = []
        for n, one in enumerate(self.found):
            trained = self._trained(one) if one.training.done() else None
            tensors[f"member{n}"] = trained.state if trained else one.begun.state
            members.append(
                {
                    "numbers": one.numbers,
                    "architecture": one.begun.architecture.to_dict(),
                    "accuracy": trained.validation_accuracy if trained else None,
                    "parent": one.parent,
                    "taught": one.begun.teacher is not None,
                }
            )
        if self.teacher is not None:
            begun, training = self.teacher
            progress["taught"] = training.done()
            tensors["teacher"] = self._taught() if training.done() else begun.state
        save_checkpoint(self.checkpoint, Checkpoint({**progress, "members": members}, tensors), self.signature)

    def restore(self) -> None:
        """Continue from the checkpoint where there is one."""
        saved = load_checkpoint(self.checkpoint, self.signature)
        if saved is None:
            return
        self.epoch = int(saved.progress["epoch"])
        self.share_weights_done = bool(saved.progress["share_weights_done"])
        if "teacher" in saved.tensors:
            state = saved.tensors["teacher"]
            begun = Begun("teacher", self.full, state, None)
            done = saved.progress["taught"]
            self.teacher = begun, finished(Trained(state, math.nan)) if done else self.finals.start(begun)
        for n, entry in enumerate(saved.progress["members"]):
            state, accuracy = saved.tensors[f"member{n}"], entry["accuracy"]
            teacher = self._taught() if entry["taught"] and accuracy is None else None
            begun = Begun(str(entry["numbers"][0]), Architecture.from_dict(entry["architecture"]), state, teacher)
            training = self.finals.start(begun) if accuracy is None else finished(Trained(state, accuracy))
            self.found.append(_Found(entry["numbers"], entry["parent"], begun, training))
        self.trajectories = [
            Trajectory.restore(entry, saved.tensors[f"trajectory{n}"], self.settings, self.accelerator)
            for n, entry in enumerate(saved.progress["trajectories"])
        ]
