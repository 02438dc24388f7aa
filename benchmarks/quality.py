"""Accuracy at equal budget: DAC against uniform scaling, the width multiplier, random widths, L1 and slimming.

    python benchmarks/quality.py --data FASHION_MNIST --out docs/quality.jsonl
    python benchmarks/quality.py --data CIFAR10 --preset gpu --out docs/quality-gpu.jsonl
    python benchmarks/quality_plot.py docs/quality.jsonl

The first two take a data set's name, folder or Parquet file and write cells; the third makes table and plot of them.

Budgets lie where the published ones lie between the smallest architecture of the search space and the full network,
in MACs and in parameters at once. All methods are given the same budgets; `width-inside` must also stay within both
costs of what DAC found for that budget and seed. Every final training has the same recipe and number of epochs; what
came before is in the row as `epochs_before` (of the supernet for DAC, as many of the full network for magnitude and
slimming), `width-long` and `uniform-long` give plain scaling those epochs too, and `uniform-taught` DAC's teacher as
well. The budget `half-memory` bounds peak memory
alone, on a base network whose early stages are as large as the published ones.

Each cell (seed, method, budget) is appended to the JSON lines of --out as it is finished, and skipped if it is there:
a run can be cut short and repeated, and two processes with different --seeds may share the file. Test images are
looked at once per cell, after its last epoch; nothing is chosen by them. Needs torch, numpy, pillow and pyarrow only.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from common.architecture import Architecture
from common.budget import RESOURCES, DeviceBudget
from common.costs import largest_tensor_elements, thop_macs
from common.data.augment import Preprocessor
from common.data.images import DataSet, Images, mean_std
from common.data.sources import load
from common.data.split import split_stratified
from common.errors import FedDACError
from common.groups import DataSettings, SearchSettings, TrainSettings
from common.layout import State
from common.learning import Feed, evaluate, pick_accelerator, place
from common.models.description import BaseNetwork
from common.progress import Silent
from common.seeds import derive_seed, torch_generator
from dac.baselines import magnitude, random_widths, slimming, slimming_penalty, uniform, width_multiplier
from dac.files import Member
from dac.search import search
from dac.train import Trained, train_architecture

# (conv MACs, parameters) of the five published architectures, and of the published search space's floor
PUBLISHED = {
    "26M": (25_078_464, 714_032),
    "34M": (32_670_560, 840_821),
    "52M": (49_537_856, 1_096_973),
    "64M": (61_603_152, 1_338_287),
    "95M": (91_154_944, 2_296_922),
}
PUBLISHED_FLOOR = (12_319_232, 511_586)
FULL, HALF_MEMORY, FULL_MEMORY = "95M", "half-memory", "full-memory"
PART_METHODS = (
    "dac",
    "dac-inherited",
    "dac-scratch",
    "width",
    "width-inside",
    "width-distilled",
    "width-long",
    "uniform",
    "uniform-long",
    "uniform-taught",
    "random",
    "magnitude",
    "slimming",
)
WHOLE_METHODS = ("full", "full-long", "dac")  # of the budgets that the full network meets
METHODS = ("full", "full-long", *PART_METHODS)


@dataclass(frozen=True)
class Preset:
    """Everything a result depends on, apart from its seed; each field is a flag."""

    stem_stride: int
    strides: str
    memory_strides: str  # of the half-memory cells; half the peak must lie above the floor
    train_images: int  # 0 takes all that validation leaves
    validation_images: int
    test_images: int
    epochs: int
    batch_size: int
    learning_rate: float
    inherited_learning_rate: float  # where the final training starts from inherited weights
    weight_decay: float
    label_smoothing: float
    search_preset: str
    warmup_epochs: int
    epochs_per_step: int
    step_share: float
    search_learning_rate: float
    slimming_strength: float
    augment: str
    bf16: bool


PRESETS = {
    "cpu": Preset(
        stem_stride=2,
        strides="1,2,2,2,1,2,1",
        memory_strides="1,1,2,2,2,2,1",
        train_images=2500,
        validation_images=500,
        test_images=0,
        epochs=12,
        batch_size=32,
        learning_rate=0.02,
        inherited_learning_rate=0.01,
        weight_decay=4e-5,
        label_smoothing=0.1,
        search_preset="default",
        warmup_epochs=8,
        epochs_per_step=1,
        step_share=0.25,
        search_learning_rate=0.005,
        slimming_strength=1e-4,
        augment="none",
        bf16=False,
    ),
    "gpu": Preset(
        stem_stride=1,
        strides="1,1,2,2,1,2,1",
        memory_strides="1,1,2,2,1,2,1",
        train_images=0,
        validation_images=5000,
        test_images=0,
        epochs=100,
        batch_size=256,
        learning_rate=0.2,
        inherited_learning_rate=0.2,
        weight_decay=1e-4,
        label_smoothing=0.1,
        search_preset="default",
        warmup_epochs=20,
        epochs_per_step=3,
        step_share=0.2,
        search_learning_rate=0.1,
        slimming_strength=1e-4,
        augment="crop+flip",
        bf16=True,
    ),
}


class Benchmark:
    """The cells of one preset on one data set; `run` fills the file with those it lacks."""

    def __init__(self, preset: Preset, data: DataSet, out: Path, work: Path, accelerator: torch.device) -> None:
        self.preset, self.out, self.accelerator = preset, out, accelerator
        self.train, self.validation, self.test = feeds(data, preset, accelerator)
        description = {"data": data.name, "train": len(self.train.images), **dataclasses.asdict(preset)}
        self.key = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:12]
        self.work = work / self.key
        self.base = base_network(data, preset, preset.strides)
        self.memory_base = base_network(data, preset, preset.memory_strides)
        self.budgets = published_budgets(self.base)
        self.rows = {cell_of(row): row for row in read_rows(out) if row["settings"] == self.key}
        if not any(row["settings"] == self.key for row in read_rows(out)):
            self._append({"event": "settings", "device": str(accelerator), **description})

    def run(self, seed: int, methods: list[str], budgets: list[str]) -> None:
        """Every cell of one seed that the file lacks."""
        members = self.family(seed, "search", self.base, self.budgets)
        for name in [one for one in budgets if one in self.budgets]:
            for method in methods:
                self.cell(seed, method, name, self.base, members[name], members[FULL])
        if HALF_MEMORY not in budgets:
            return
        full = Architecture.full(self.memory_base).costs
        half = DeviceBudget(peak_memory_bytes=full.peak_memory_bytes // 2 + 1)
        memory_budgets = {FULL_MEMORY: DeviceBudget(), HALF_MEMORY: half}
        members = self.family(seed, "memory-search", self.memory_base, memory_budgets)
        for name, member in members.items():
            for method in methods:
                self.cell(seed, method, name, self.memory_base, member, members[FULL_MEMORY])

    def family(self, seed: int, name: str, base: BaseNetwork, budgets: dict[str, DeviceBudget]) -> dict[str, Member]:
        """What DAC finds for the budgets; a finished search is read back from its checkpoint."""
        preset = self.preset
        settings = SearchSettings(
            recipe=preset.search_preset,
            warmup_epochs=preset.warmup_epochs,
            epochs_per_step=preset.epochs_per_step,
            step_share=preset.step_share,
            fine_tune_epochs=0,
            search_learning_rate=preset.search_learning_rate,
            search_batch_size=preset.batch_size,
            search_weight_decay=preset.weight_decay,
        )
        epochs: list[dict[str, Any]] = []
        checkpoint = self.work / f"{name}-{seed}.safetensors"
        fresh, clock = not checkpoint.exists(), Clock()
        found = search(
            base,
            list(budgets.values()),
            self.train,
            self.validation,
            settings,
            seed=derive_seed(seed, name),
            accelerator=self.accelerator,
            progress=Silent(),
            checkpoint=checkpoint,
            record=epochs.append,
        )
        if fresh:  # a resumed search does not know how long its first part took
            self._append({"event": name, "seed": seed, "epochs": len(epochs), "curve": epochs, **clock.read()})
        return dict(zip(budgets, found.members, strict=True))

    def search_epochs(self, seed: int, base: BaseNetwork) -> int:
        """Epochs that the search of this seed trained its supernet."""
        name = "search" if base == self.base else "memory-search"
        for row in read_rows(self.out):
            if row["settings"] == self.key and row["event"] == name and row["seed"] == seed:
                return int(row["epochs"])
        raise SystemExit(f"seed {seed}: the {name} was cut short; delete {self.work} and start this seed anew")

    def cell(self, seed: int, method: str, budget: str, base: BaseNetwork, member: Member, unshrunk: Member) -> None:
        """Train one network to the end, test it, and write the row; nothing if that was done before."""
        whole = budget in (FULL, FULL_MEMORY)
        if (seed, method, budget) in self.rows or method not in (WHOLE_METHODS if whole else PART_METHODS):
            return
        before = self.search_epochs(seed, base)
        epochs, state = self.preset.epochs, None
        if method in ("full", "full-long"):
            architecture = Architecture.full(base)
            epochs += before if method == "full-long" else 0
            before = 0
        elif method in ("dac", "dac-inherited"):
            architecture, state = member.architecture, member.state
        elif method == "dac-scratch":
            architecture = member.architecture
        elif method in ("width", "width-inside", "width-distilled", "width-long"):
            limit = own_costs(member) if method == "width-inside" else member.budget
            architecture = width_multiplier(base, limit)
            epochs += before if method == "width-long" else 0
            before = 0
        elif method in ("uniform", "uniform-long", "uniform-taught"):
            architecture = uniform(base, member.budget)
            epochs += before if method != "uniform" else 0
            before = 0
        elif method == "random":
            architecture, before = random_widths(base, member.budget, derive_seed(seed, budget)), 0
        else:
            prune = magnitude if method == "magnitude" else slimming
            architecture, state = prune(
                Architecture.full(base), self.pretrained(seed, method, base, before), member.budget
            )
        taught = method in ("width-distilled", "uniform-taught") or (method == "dac" and not whole)
        teacher = self.teacher(seed, unshrunk) if taught else None
        clock = Clock()
        rate = self.preset.learning_rate if state is None else self.preset.inherited_learning_rate
        order = derive_seed(seed, "dac" if method == "dac-inherited" else method, budget)
        checkpoint = self.teacher_path(seed, base) if whole and method == "dac" else None
        trained = self.fit(architecture, state, epochs, rate, order, checkpoint, teacher=teacher)
        spent = clock.read()
        module = place(architecture.build_from(trained.state), self.accelerator)
        row = {
            "event": "cell",
            "seed": seed,
            "method": method,
            "budget": budget,
            **{resource: architecture.costs.get(resource) for resource in RESOURCES},
            "thop_macs": thop_macs(architecture),
            "largest_tensor_elements": largest_tensor_elements(architecture),
            "width": architecture.base.width,
            "epochs": epochs,
            "epochs_before": before,
            "validation_accuracy": trained.validation_accuracy,
            "test_accuracy": evaluate(module, self.test, self.accelerator).accuracy,
            **spent,
        }
        self._append(row)
        print(
            f"seed {seed}  {budget:<11}  {method:<12}  {row['macs'] / 1e6:6.2f} M MACs  {row['params'] / 1e6:5.2f} M "
            f"params  test {row['test_accuracy']:.2%}  {row['seconds']:.0f} s",
            flush=True,
        )

    def teacher(self, seed: int, unshrunk: Member) -> torch.nn.Module:
        """The family's largest member, which is the whole network, after its final training."""
        budget = FULL if unshrunk.architecture.base == self.base else FULL_MEMORY
        checkpoint = self.teacher_path(seed, unshrunk.architecture.base)
        rate, order = self.preset.inherited_learning_rate, derive_seed(seed, "dac", budget)
        trained = self.fit(unshrunk.architecture, unshrunk.state, self.preset.epochs, rate, order, checkpoint)
        return unshrunk.architecture.build_from(trained.state)

    def teacher_path(self, seed: int, base: BaseNetwork) -> Path:
        """Where the training of the teacher is kept, which is also the cell of DAC with the full budget."""
        return self.work / f"teacher-{'main' if base == self.base else 'memory'}-{seed}.safetensors"

    def pretrained(self, seed: int, method: str, base: BaseNetwork, epochs: int) -> State:
        """The full network after as many epochs as the search had; for slimming with its penalty."""
        architecture = Architecture.full(base)
        penalty = slimming_penalty(architecture, self.preset.slimming_strength) if method == "slimming" else None
        which = "main" if base == self.base else "memory"
        checkpoint = self.work / f"{method}-{which}-{seed}.safetensors"
        rate = self.preset.learning_rate
        seed = derive_seed(seed, method, which)
        return self.fit(architecture, None, epochs, rate, seed, checkpoint, penalty).state

    def fit(
        self,
        architecture: Architecture,
        state: State | None,
        epochs: int,
        learning_rate: float,
        seed: int,
        checkpoint: Path | None = None,
        penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None,
        teacher: torch.nn.Module | None = None,
    ) -> Trained:
        """The one recipe of every training."""
        settings = TrainSettings(
            epochs=epochs,
            batch_size=self.preset.batch_size,
            learning_rate=learning_rate,
            weight_decay=self.preset.weight_decay,
            label_smoothing=self.preset.label_smoothing,
            bf16=self.preset.bf16,
        )
        return train_architecture(
            architecture,
            state,
            self.train,
            self.validation,
            settings,
            seed=seed,
            accelerator=self.accelerator,
            progress=Silent(),
            checkpoint=checkpoint,
            penalty=penalty,
            teacher=teacher,
        )

    def _append(self, row: dict[str, Any]) -> None:
        row = {"settings": self.key, **row}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if row["event"] == "cell":
            self.rows[cell_of(row)] = row


class Clock:
    """Wall and processor seconds since it was made; processor time does not grow when others use the machine."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both, rounded."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}


def feeds(data: DataSet, preset: Preset, accelerator: torch.device) -> tuple[Feed, Feed, Feed]:
    """Training, validation and test images on the device: stratified subsets that no seed changes."""
    wanted = preset.train_images + preset.validation_images if preset.train_images else len(data.train)
    chosen = data.train.subset(some(data.train, wanted))
    kept, held_out = split_stratified(
        chosen.labels, preset.validation_images / wanted, torch_generator(0, "quality", "validation")
    )
    train, validation = chosen.subset(kept), chosen.subset(held_out)
    test = data.test.subset(some(data.test, preset.test_images or len(data.test)))
    preprocessor = Preprocessor(*mean_std(train.images), preset.augment)

    def feed(images: Images, batch_size: int) -> Feed:
        return Feed(Images(images.images.to(accelerator), images.labels.to(accelerator)), preprocessor, batch_size)

    return feed(train, preset.batch_size), feed(validation, 250), feed(test, 250)


def some(images: Images, wanted: int) -> torch.Tensor:
    """Positions of a stratified choice of `wanted` images; all of them if there are not more."""
    if wanted >= len(images):
        return torch.arange(len(images))
    return split_stratified(images.labels, wanted / len(images), torch_generator(0, "quality", "subset"))[1]


def own_costs(member: Member) -> DeviceBudget:
    """The tightest budget that the member meets, in the resources that its budget bounds."""
    costs = member.architecture.costs
    bounded = [resource for resource in RESOURCES if getattr(member.budget, resource) is not None]
    return DeviceBudget(**{resource: costs.get(resource) + 1 for resource in bounded})


def base_network(data: DataSet, preset: Preset, strides: str) -> BaseNetwork:
    """MobileNetV2 for the data set's images."""
    numbers = tuple(int(stride) for stride in strides.split(","))
    return BaseNetwork("mobilenet_v2", data.input_shape, data.classes, 1.0, preset.stem_stride, numbers)


def published_budgets(base: BaseNetwork) -> dict[str, DeviceBudget]:
    """Budgets that lie between floor and full network of `base` where the published ones do in theirs."""
    description = Architecture.full(base).description
    floor, full = description.costs(description.floor_sizes), Architecture.full(base).costs

    def bound(resource: int, published: int, low: int, high: int) -> int:
        share = (published - PUBLISHED_FLOOR[resource]) / (PUBLISHED[FULL][resource] - PUBLISHED_FLOOR[resource])
        return round(low + share * (high - low)) + 1

    return {
        name: DeviceBudget(
            macs=bound(0, macs, floor.macs, full.macs), params=bound(1, params, floor.params, full.params)
        )
        for name, (macs, params) in PUBLISHED.items()
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def cell_of(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What tells cells apart."""
    return row.get("seed"), row.get("method"), row.get("budget")


def preset_of(arguments: argparse.Namespace) -> Preset:
    """The preset with the flags that were given."""
    chosen = PRESETS[arguments.preset]
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Preset)}
    return dataclasses.replace(chosen, **{name: value for name, value in given.items() if value is not None})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data set: a name, a folder or a Parquet file")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/quality.jsonl"), help="results, appended")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="checkpoints of searches")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--budgets", default=",".join([*PUBLISHED, HALF_MEMORY]))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process")
    for field in dataclasses.fields(Preset):
        flag, kind = f"--{field.name.replace('_', '-')}", field.type
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, default=None)
    return parser.parse_args()


def listed(text: str, known: Iterator[str] | tuple[str, ...]) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}")
    return names


def main() -> None:
    arguments = parse()
    methods = listed(arguments.methods, METHODS)
    budgets = listed(arguments.budgets, (*PUBLISHED, HALF_MEMORY))
    torch.set_num_threads(arguments.threads)
    benchmark = Benchmark(
        preset_of(arguments),
        load(DataSettings(data=arguments.data)),
        arguments.out,
        arguments.work,
        pick_accelerator("auto" if arguments.preset == "gpu" else "cpu"),
    )
    for seed in [int(one) for one in arguments.seeds.split(",")]:
        benchmark.run(seed, methods, budgets)


if __name__ == "__main__":
    from simulation.environment import restart_with_cpu_tuning

    restart_with_cpu_tuning()
    try:
        main()
    except FedDACError as error:
        raise SystemExit(f"Error: {error}") from None
