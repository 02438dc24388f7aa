"""One shrinking trajectory: a gated supernet, its optimizer, and the budgets it still has to serve."""

from collections.abc import Mapping
from typing import Any, Self

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.groups import SearchSettings
from common.layout import State
from dac.losses import ENTROPIES, bound
from dac.recipe import RECIPES, Recipe
from dac.shrink import Ranking, shrink_step
from dac.supernet import Supernet, make_optimizer, momentum_of, restore_momentum, slice_momentum


class Trajectory:
    """`todo` holds budget numbers; `epochs_left` is the training before the next removal; `parent` the last member."""

    def __init__(
        self, supernet: Supernet, settings: SearchSettings, todo: list[int], epochs_left: int, parent: int | None
    ) -> None:
        self.supernet, self.settings = supernet, settings
        self.todo, self.epochs_left, self.parent = todo, epochs_left, parent
        self.recipe: Recipe = RECIPES[settings.preset]
        self.optimizer = make_optimizer(
            supernet,
            settings.search_learning_rate,
            settings.search_momentum,
            settings.search_weight_decay,
            self.recipe.gate_weight_decay,
        )

    def penalty(self) -> torch.Tensor:
        """l1 * entropy + l2 * bound over the gates (DAC paper, equation 3); a scalar."""
        gates = self.supernet.gate_weights
        entropy = ENTROPIES[self.recipe.entropy](gates)
        return self.settings.entropy_coefficient * entropy + self.recipe.bound_coefficient * bound(gates)

    def shrink(self, target: DeviceBudget) -> None:
        """One removal step towards `target`; weights, statistics, gates and momentum of kept channels stay."""
        supernet = self.supernet
        smaller = shrink_step(supernet.architecture, self._ranking(), target, self.settings.step_share)
        momentum = slice_momentum(momentum_of(supernet.module, self.optimizer), supernet, smaller)
        replacement = supernet.shrunk(smaller)
        replacement.fresh_saliency()
        self._become(replacement, momentum)
        self.epochs_left = self.settings.epochs_per_step

    def fork(self, todo: list[int]) -> "Trajectory":
        """A twin that serves `todo` from here on, while this one keeps the other budgets."""
        twin = Trajectory(self.supernet.copy(), self.settings, todo, 0, self.parent)
        restore_momentum(twin.supernet.module, twin.optimizer, momentum_of(self.supernet.module, self.optimizer))
        self.todo = [number for number in self.todo if number not in todo]
        return twin

    def to_progress(self) -> dict[str, Any]:
        """What of the trajectory is JSON."""
        architecture = self.supernet.architecture.to_dict()
        return {
            "architecture": architecture,
            "todo": self.todo,
            "epochs_left": self.epochs_left,
            "parent": self.parent,
        }

    def to_tensors(self) -> State:
        """What of the trajectory is tensors: the gated module's state and the momentum."""
        module = {f"module.{name}": value for name, value in self.supernet.state().items()}
        momentum = momentum_of(self.supernet.module, self.optimizer)
        return {**module, **{f"momentum.{name}": value for name, value in momentum.items()}}

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
        supernet = Supernet(architecture, RECIPES[settings.preset].gate_position, 0, accelerator)
        supernet.module.load_state_dict(_with_prefix(tensors, "module."))
        result = cls(supernet, settings, progress["todo"], progress["epochs_left"], progress["parent"])
        restore_momentum(supernet.module, result.optimizer, _with_prefix(tensors, "momentum."))
        return result

    def _ranking(self) -> Ranking:
        gates = {name: gate.weight.detach().cpu() for name, gate in self.supernet.gates.items()}
        saliency = {name: gate.saliency.cpu() for name, gate in self.supernet.gates.items()}
        seen = any(bool(values.any()) for values in saliency.values())
        importance = saliency if self.recipe.importance == "saliency" and seen else gates
        return Ranking(importance, gates, self.recipe.threshold)

    def _become(self, supernet: Supernet, momentum: State) -> None:
        replacement = Trajectory(supernet, self.settings, self.todo, self.epochs_left, self.parent)
        restore_momentum(supernet.module, replacement.optimizer, momentum)
        self.supernet, self.optimizer = supernet, replacement.optimizer


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
