"""What there is to do: searches, trainings of whole networks, and cells; what each waits for, and in which order.

Rules give a cell more training in place of DAC's search, whose final training follows it. `family`: the epochs of the
search, divided by the number of budgets that it serves, are added to the final training. `alone`: the epochs that the
search had when it found this budget's network are added, as if it had served nobody else. `work`: as many epochs are
added as the search's MACs, divided by the number of budgets, are worth to a network of this size: compute is equal.
By the others small networks have less than DAC's, for the search trains larger ones. Cells of the rule
`searched` had the search, or as many epochs of the whole network, before their final training. L1 and slimming, which
train one whole network for all budgets, have by `work` as many epochs of it as the search's MACs are worth.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.quality.budgets import GROUPS
from benchmarks.quality.protocol import Protocol
from benchmarks.quality.rows import Row

WHOLE = "100%"
PRUNED = ("magnitude", "slimming")
DRAWS = ("random-1", "random-2", "random-3")
METHODS: Mapping[str, tuple[str, ...]] = {
    "dac": ("searched",),
    "uniform": ("family", "alone", "work"),
    "shallow": ("family",),
    "dac-fresh": ("family", "alone"),
    "width": ("family", "alone"),
    "dac-taught": ("searched",),
    "uniform-taught": ("family",),
    "magnitude": ("searched", "work"),
    "slimming": ("searched", "work"),
    **dict.fromkeys(DRAWS, ("family",)),
}
"""The rules that each method is trained by, in the order in which cells are worked off."""

RULES = ("searched", "family", "alone", "work")

FEWER = ("uniform", "dac", "dac-fresh")  # in the groups `joint` and `memory`; few width multipliers fit these


@dataclass(frozen=True)
class Task:
    """`kind` is search, whole (a whole network, which is a cell of its own and teacher), pretrain or cell."""

    kind: str
    seed: int
    group: str
    method: str = ""
    budget: str = ""
    rule: str = ""
    epochs: int = 0  # of the final training
    epochs_before: int = 0
    found: Row = field(default_factory=dict, compare=False)  # what the search's row says of this budget's network

    @property
    def key(self) -> tuple[str, int, str, str, str, str]:
        """What tells it apart."""
        return self.kind, self.seed, self.group, self.method, self.budget, self.rule

    def __str__(self) -> str:
        words = [self.kind, f"seed {self.seed}", self.budget or self.group, self.method, self.rule]
        return "  ".join(word for word in words if word)


def whole_task(seed: int, epochs: int = 0) -> Task:
    """The training of the whole network, which is the teacher of this seed's taught cells."""
    return Task("whole", seed, "macs", "whole", WHOLE, "family", epochs)


class Plan:
    """All tasks of some seeds, groups, methods and rules; `ready` are those whose needs are among the rows.

    `skipped` budgets have no cells; they still are steps of the search.
    """

    def __init__(
        self,
        protocol: Protocol,
        seeds: Sequence[int],
        groups: Sequence[str],
        methods: Sequence[str],
        rules: Sequence[str] = RULES,
        skipped: Collection[str] = (),
    ) -> None:
        self.protocol, self.seeds, self.groups, self.methods, self.rules = protocol, seeds, groups, methods, rules
        self.skipped = skipped

    def tasks(self, rows: Iterable[Row]) -> Iterator[tuple[Task, bool]]:
        """Every task that no row reports, in order, and whether it can begin."""
        done = {key_of(row): row for row in rows}
        for task, ready in self._all(done):
            if task.key not in done:
                yield task, ready

    def _all(self, done: Mapping[Any, Row]) -> Iterator[tuple[Task, bool]]:
        for group in self.groups:
            yield from ((Task("search", seed, group), True) for seed in self.seeds)
        for group in self.groups:
            for method in self.methods:
                if group != "macs" and method not in FEWER:
                    continue
                for rule in METHODS[method]:
                    if rule not in self.rules:
                        continue
                    for seed in self.seeds:
                        yield from self._cells(seed, group, method, rule, done)
        if WHOLE not in self.skipped:
            yield from (self._whole(seed, done) for seed in self.seeds)

    def _whole(self, seed: int, done: Mapping[Any, Row]) -> tuple[Task, bool]:
        search = done.get(Task("search", seed, "macs").key)
        more = 0 if search is None else family_share(search)
        return whole_task(seed, self.protocol.epochs + more), search is not None

    def _cells(
        self, seed: int, group: str, method: str, rule: str, done: Mapping[Any, Row]
    ) -> Iterator[tuple[Task, bool]]:
        search = done.get(Task("search", seed, group).key)
        pruned = method in PRUNED
        before = 0 if search is None else epochs_before(search, method, rule)
        which = "" if rule == "searched" else rule  # as results have it that know only that rule
        pretrained = Task("pretrain", seed, group, method, rule=which, epochs=before)
        if pruned:
            yield pretrained, search is not None
        ready = search is not None and (not pruned or pretrained.key in done)
        if method.endswith("-taught"):
            ready = ready and whole_task(seed).key in done
        for budget in GROUPS[group]:
            if budget in self.skipped:
                continue
            if search is None:
                yield Task("cell", seed, group, method, budget, rule), False
                continue
            added = {
                "family": family_share(search),
                "alone": int(search["found"][budget]["epochs"]),
                "work": work_share(search, budget),
                "searched": 0,
            }
            more = 0 if pruned else added[rule]
            yield (
                Task(
                    "cell",
                    seed,
                    group,
                    method,
                    budget,
                    rule,
                    self.protocol.epochs + more,
                    before,
                    search["found"][budget],
                ),
                ready,
            )


def epochs_before(search: Row, method: str, rule: str) -> int:
    """The epochs that a cell's network, or the whole one that it is cut from, had before its final training."""
    if rule == "searched":
        return int(search["epochs"])
    return math.ceil(float(search["whole_network_epochs"])) if method in PRUNED else 0


def family_share(search: Row) -> int:
    """The epochs of a search that fall to each budget that it served, rounded up."""
    return math.ceil(int(search["epochs"]) / len(search["found"]))


def work_share(search: Row, budget: str) -> int:
    """The work of a search that falls to each budget, in epochs of a network as large as what it found for this one."""
    whole, own = int(search["curve"][0]["macs"]), int(search["found"][budget]["macs"])
    return math.ceil(float(search["whole_network_epochs"]) / len(search["found"]) * whole / own)


def key_of(row: Row) -> tuple[Any, ...]:
    """The key of the task that a row reports."""
    return tuple(row.get(name, "") for name in ("event", "seed", "group", "method", "budget", "rule"))
