"""One shrinking trajectory: a gated supernet, its optimizer, and the budgets it still has to serve."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.groups import SearchSettings
from common.layout import State
from common.optimizers import SGD
from common.search_space import SearchSpace
from dac.attic import Attic
from dac.losses import ENTROPIES, bound
from dac.recipe import RECIPES, Recipe
from dac.scaling import uniform
from dac.shrink import Ranking, Shrunk, shrink_step, steps_between
from dac.supernet import Supernet, make_optimizer, momentum_of, restore_momentum


class Trajectory:
    """`todo` holds budget numbers; `epochs_left` is the training before the next removal; `parent` the last member."""

    def __init__(
        self, supernet: Supernet, settings: SearchSettings, todo: list[int], epochs_left: int, parent: int | None
    ) -> None:
        self.supernet, self.settings = supernet, settings
        self.todo, self.epochs_left, self.parent = todo, epochs_left, parent
        self.recipe: Recipe = RECIPES[settings.recipe]
        self.attic = Attic.of(supernet)
        self.optimizer = self._fresh_optimizer(supernet)

    def _fresh_optimizer(self, supernet: Supernet) -> SGD:
        settings = self.settings
        return make_optimizer(
            supernet,
            settings.search_learning_rate,
            settings.search_momentum,
            settings.search_weight_decay,
            self.recipe.gate_weight_decay,
        )

    def penalty(self) -> torch.Tensor:
        """l1 * entropy + l2 * bound over the gates (DAC paper, equation 3); a scalar."""
        gates = self.supernet.gate_weights
        if not gates:
            return torch.zeros((), device=self.supernet.accelerator)
        entropy = ENTROPIES[self.recipe.entropy](gates)
        return self.settings.entropy_coefficient * entropy + self.recipe.bound_coefficient * bound(gates)

    def shrink(self, target: DeviceBudget) -> None:
        """One removal step towards `target`; weights, statistics, gates and momentum of kept channels stay.

        Where the target is met with room, what earlier steps removed since the last member comes back. Plain scaling
        goes all the way at once, and then trains for as many epochs as the steps would have had.
        """
        supernet, attic = self.supernet, self.attic
        attic.update(supernet)
        step, steps = self._step(target)
        replacement = attic.shrunk(supernet, step.architecture)
        momentum = attic.momentum(momentum_of(supernet.module, self.optimizer), supernet.architecture, replacement)
        attic.removed = step.removed
        replacement.fresh_saliency()
        self._become(replacement, momentum)
        self.epochs_left = steps * self.settings.epochs_per_step

    def _step(self, target: DeviceBudget) -> tuple[Shrunk, int]:
        """What is left after it, and for how many steps of the search it counts."""
        supernet, share = self.supernet, self.settings.step_share
        architecture = supernet.architecture
        if self.recipe.importance == "uniform":
            smaller = Shrunk(uniform(architecture.base, target), ())
            return smaller, steps_between(architecture.costs, target, share)
        return shrink_step(architecture, self._ranking(), target, share, supernet.space, self.attic.removed), 1

    def fork(self, todo: list[int]) -> "Trajectory":
        """A twin that serves `todo` from here on, while this one keeps the other budgets."""
        twin = Trajectory(self.supernet.copy(), self.settings, todo, 0, self.parent)
        twin.attic = copy.deepcopy(self.attic)
        restore_momentum(twin.supernet.module, twin.optimizer, momentum_of(self.supernet.module, self.optimizer))
        self.todo = [number for number in self.todo if number not in todo]
        return twin

    def served(self, numbers: Sequence[int]) -> None:
        """The architecture became the member of the budgets `numbers`: later ones are cut from it."""
        self.parent = numbers[0]
        self.todo = [number for number in self.todo if number not in numbers]
        self.attic = Attic.of(self.supernet)

    def to_progress(self) -> dict[str, Any]:
        """What of the trajectory is JSON."""
        architecture = self.supernet.architecture.to_dict()
        return {
            "architecture": architecture,
            "todo": self.todo,
            "epochs_left": self.epochs_left,
            "parent": self.parent,
            "attic": self.attic.to_progress(),
        }

    def to_tensors(self) -> State:
        """What of the trajectory is tensors: the gated module's state, the momentum, and what was removed."""
        module = {f"module.{name}": value for name, value in self.supernet.state().items()}
        momentum = momentum_of(self.supernet.module, self.optimizer)
        attic = {f"attic.{name}": value for name, value in self.attic.state.items()}
        return {**module, **{f"momentum.{name}": value for name, value in momentum.items()}, **attic}

    @classmethod
    def restore(
        cls,
        progress: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        settings: SearchSettings,
        accelerator: torch.device,
    ) -> Self:
        """The inverse of `to_progress` and `to_tensors`."""
        architecture = Architecture.from_dict(progress["architecture"])
        position, space = RECIPES[settings.recipe].gate_position, SearchSpace.of(settings)
        supernet = Supernet(architecture, position, 0, accelerator, space)
        supernet.module.load_state_dict(_with_prefix(tensors, "module."))
        result = cls(supernet, settings, progress["todo"], progress["epochs_left"], progress["parent"])
        restore_momentum(supernet.module, result.optimizer, _with_prefix(tensors, "momentum."))
        result.attic = Attic.restore(progress["attic"], _with_prefix(tensors, "attic."), supernet)
        return result

    def _ranking(self) -> Ranking:
        gates = {name: gate.weight.detach().cpu() for name, gate in self.supernet.gates.items()}
        saliency = {name: gate.saliency.cpu() for name, gate in self.supernet.gates.items()}
        seen = any(bool(values.any()) for values in saliency.values())
        importance = saliency if self.recipe.importance == "saliency" and seen else gates
        return Ranking(importance, gates, self.recipe.threshold)

    def _become(self, supernet: Supernet, momentum: State) -> None:
        self.supernet, self.optimizer = supernet, self._fresh_optimizer(supernet)
        restore_momentum(supernet.module, self.optimizer, momentum)


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
