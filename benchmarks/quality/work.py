"""One task, in whichever process: a search, the training of a whole network, or a cell."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.budgets import budgets_of
from benchmarks.quality.material import Material, material_of
from benchmarks.quality.protocol import Protocol
from benchmarks.quality.rows import Row, read_lines
from benchmarks.quality.tasks import DRAWS, Task, whole_task
from common.architecture import Architecture
from common.budget import RESOURCES, DeviceBudget
from common.errors import BudgetError
from common.layout import State
from common.learning import evaluate, place
from common.models import describe
from common.models.description import BaseNetwork
from common.progress import Silent
from common.seeds import derive_seed
from dac.baselines import random_widths, width_multiplier
from dac.files import Member
from dac.pruning import magnitude, slimming, slimming_penalty
from dac.scaling import uniform
from dac.search import search
from dac.train import Trained, train_architecture


def work(task: Task, data: str, protocol: Protocol, folder: Path, accelerator: torch.device) -> Row:
    """Do it; what was begun before goes on from its checkpoint in `folder`. Returns the row to keep."""
    worker = _Worker(protocol, material_of(data, protocol, accelerator), folder, accelerator)
    wall, cpu = time.perf_counter(), time.process_time()
    facts = {"search": worker.search, "pretrain": worker.pretrain, "whole": worker.cell, "cell": worker.cell}[
        task.kind
    ](task)
    kind, seed, group, method, budget, rule = task.key
    return {
        "event": kind,
        "seed": seed,
        "group": group,
        "method": method,
        "budget": budget,
        "rule": rule,
        **facts,
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def found_network(base: BaseNetwork, found: Row) -> Architecture:
    """The network that a search's row describes, but for which channels were kept: with fresh weights all are alike."""
    kept = {name: range(size) for name, size in found["channels"].items() if size}
    return Architecture.with_kept(base, kept, found["blocks_removed"])


def scaled(base: BaseNetwork, method: str, budget: DeviceBudget) -> Architecture:
    """The network of a baseline that narrows every layer alike."""
    if method == "shallow":
        return uniform(base, budget, describe(base).block_by_name)
    return (width_multiplier if method == "width" else uniform)(base, budget)


class _Worker:
    def __init__(self, protocol: Protocol, material: Material, folder: Path, accelerator: torch.device) -> None:
        self.protocol, self.material, self.folder, self.accelerator = protocol, material, folder, accelerator
        self.base, self.space = material.base, protocol.widths()

    def search(self, task: Task) -> dict[str, Any]:
        """The family of a group of budgets; what the final trainings need is in its checkpoint."""
        path = self.folder / f"search-{task.group}-{task.seed}.curve.jsonl"

        def record(row: dict[str, Any]) -> None:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

        members = self._family(task, record)
        curve = list({row["epoch"]: row for row in read_lines(path)}.values())  # a resumed search repeats some
        found = {}
        for name, member in members.items():
            costs = member.architecture.costs
            until = max((row["epoch"] for row in curve if row["macs"] >= costs.macs), default=0)
            found[name] = {
                **{resource: costs.get(resource) for resource in RESOURCES},
                "epochs": until,
                "validation_accuracy": member.validation_accuracy,
                "blocks_removed": list(member.architecture.removed),
                "channels": member.architecture.sizes,
            }
        full = Architecture.full(self.base).costs.macs
        whole_epochs = sum(row["macs"] for row in curve) / full
        return {"epochs": len(curve), "whole_network_epochs": round(whole_epochs, 2), "curve": curve, "found": found}

    def pretrain(self, task: Task) -> dict[str, Any]:
        """The whole network as L1 magnitude and slimming have it before they remove channels."""
        trained = self._pretrained(task, task.epochs)
        return {"epochs": task.epochs, "validation_accuracy": trained.validation_accuracy}

    def cell(self, task: Task) -> dict[str, Any]:
        """One network trained to the end, and tested; `unfit` says why where the method has none so small."""
        try:
            architecture, state = self._start(task)
        except BudgetError as error:
            return {"epochs": 0, "unfit": str(error)}
        rate = self.protocol.learning_rate if state is None else self.protocol.inherited_learning_rate
        teacher = None
        if task.method.endswith("-taught"):
            weights = torch.load(self._weights(whole_task(task.seed)), weights_only=True)
            teacher = Architecture.full(self.base).build_from(weights)
        seed = derive_seed(task.seed, task.method, task.budget, task.rule)
        checkpoint = self._file(task, "checkpoint.safetensors")
        trained = self._fit(architecture, state, task.epochs, rate, seed, checkpoint, teacher=teacher)
        torch.save(trained.state, self._weights(task))
        checkpoint.unlink()
        module = place(architecture.build_from(trained.state), self.accelerator)
        costs, full = architecture.costs, Architecture.full(self.base).costs
        return {
            **{resource: costs.get(resource) for resource in RESOURCES},
            "epochs": task.epochs,
            "epochs_before": task.epochs_before,
            "whole_network_epochs": round(task.epochs * costs.macs / full.macs, 2),
            "validation_accuracy": trained.validation_accuracy,
            "test_accuracy": evaluate(module, self.material.test, self.accelerator).accuracy,
        }

    def _start(self, task: Task) -> tuple[Architecture, State | None]:
        """The architecture of a cell, and the weights that it begins with where they are not fresh."""
        if task.kind == "whole":
            return Architecture.full(self.base), None
        budget, method = budgets_of(self.base, task.group)[task.budget], task.method
        if method == "dac-fresh":
            return found_network(self.base, task.found), None
        if method.startswith("dac"):
            member = self._family(task, lambda _: None)[task.budget]
            return member.architecture, member.state
        if method in ("magnitude", "slimming"):
            prune = magnitude if method == "magnitude" else slimming
            state = self._pretrained(task, task.epochs_before).state
            return prune(Architecture.full(self.base), state, budget, self.space)
        if method in DRAWS:
            return random_widths(self.base, budget, derive_seed(task.seed, method), self.space), None
        return scaled(self.base, method, budget), None

    def _family(self, task: Task, record: Callable[[dict[str, Any]], None]) -> dict[str, Member]:
        budgets = budgets_of(self.base, task.group)
        found = search(
            self.base,
            list(budgets.values()),
            self.material.train,
            self.material.validation,
            self.protocol.search_settings(),
            seed=derive_seed(task.seed, "search", task.group),
            accelerator=self.accelerator,
            progress=Silent(),
            checkpoint=self.folder / f"search-{task.group}-{task.seed}.safetensors",
            record=record,
        )
        return dict(zip(budgets, found.members, strict=True))

    def _pretrained(self, task: Task, epochs: int) -> Trained:
        architecture = Architecture.full(self.base)
        slims = task.method == "slimming"
        penalty = slimming_penalty(architecture, self.protocol.slimming_strength, self.space) if slims else None
        checkpoint = self.folder / f"pretrain-{task.method}-{task.group}-{task.seed}-{epochs}.safetensors"
        seed = derive_seed(task.seed, task.method, task.group)
        return self._fit(architecture, None, epochs, self.protocol.learning_rate, seed, checkpoint, penalty)

    def _fit(
        self,
        architecture: Architecture,
        state: State | None,
        epochs: int,
        learning_rate: float,
        seed: int,
        checkpoint: Path,
        penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None,
        teacher: torch.nn.Module | None = None,
    ) -> Trained:
        """The one recipe of every training."""
        return train_architecture(
            architecture,
            state,
            self.material.train,
            self.material.validation,
            self.protocol.train_settings(epochs, learning_rate),
            seed=seed,
            accelerator=self.accelerator,
            progress=Silent(),
            checkpoint=checkpoint,
            penalty=penalty,
            teacher=teacher,
        )

    def _weights(self, task: Task) -> Path:
        return self._file(task, "pt")

    def _file(self, task: Task, suffix: str) -> Path:
        name = "-".join(str(part) for part in task.key if part != "").replace(" ", "-").replace("%", "")
        return self.folder / f"{name}.{suffix}"
