"""How long one image takes: predicted against measured, and found networks against uniform ones in ONNX Runtime.

    python benchmarks/latency.py predict        # ten random parts of four networks, PyTorch, one thread
    python benchmarks/latency.py onnx           # searched networks of equal MACs, ONNX Runtime, one thread

`predict` measures the rates as `feddac device` does, with the slowdown of each network from other parts of it. All
times are the least of runs in turn, of processor time, so that other work on the machine disturbs all alike. `onnx`
searches, with hardly any training, since only widths matter here, to shares of the MACs with several channel multiples;
`uniform` are all channel groups by one factor, to the channel. Both print the table that docs/latency.md holds.
"""

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from client.speed import PARTS, fair_clock, layer_rates, random_part, seconds_of, slowdown
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.data.augment import Preprocessor
from common.data.images import Images
from common.groups import SearchSettings
from common.learning import Feed
from common.models import allow_network
from common.models.description import BaseNetwork
from common.progress import Silent
from common.search_space import SearchSpace
from dac.classifier import Classifier
from dac.export import _session, export_int8, export_onnx, network_program, processor
from dac.model_file import Model, Preparation
from dac.scaling import uniform
from dac.search import search

PREDICTED = {
    "mobilenet_v2": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "cnn": (1, 28, 28),
    "torchvision:mobilenet_v3_small": (3, 64, 64),
}
ARCHITECTURES = 10
SEARCHED = ("mobilenet_v2", "resnet20")
SHARES = (0.5, 0.25)
MULTIPLES = (1, 4, 8)
ROUNDS, IN_A_ROW = 20, 5
RUNS = 40


def main() -> None:
    """Print the table of one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "onnx"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, one thread, torch {torch.__version__}\n")
    {"predict": predict, "onnx": onnx}[chosen.what]()


def predict() -> None:
    """Predicted and measured milliseconds of ten parts of every network."""
    print("| network | search space | measured (ms) | largest error | mean error | median of absolute errors |")
    print("|---|---|---|---|---|---|")
    for (model, shape), kind in itertools.product(PREDICTED.items(), ("inner", "all")):
        space = SearchSpace.of(SearchSettings(search_space=kind))
        allow_network(model)
        base = BaseNetwork(model, shape, 10)
        alone = layer_rates(fair_clock())
        parts = [random_part(base, space, number) for number in range(PARTS + ARCHITECTURES)]
        seconds = seconds_of(parts, runs=RUNS, longest_seconds=math.inf)
        factor = slowdown(alone, parts[:PARTS], seconds[:PARTS])
        measured = seconds[PARTS:]
        errors = [
            factor * alone.seconds_for(part.costs.work()) / taken - 1
            for part, taken in zip(parts[PARTS:], measured, strict=True)
        ]
        span = f"{1000 * min(measured):.2f} to {1000 * max(measured):.2f}"
        worst, middle = max(errors, key=abs), statistics.median(map(abs, errors))
        print(
            f"| {model} | {kind} | {span} | {worst:+.1%} | {statistics.mean(errors):+.1%} | {middle:.1%} |", flush=True
        )


def onnx() -> None:
    """Milliseconds of searched and uniform networks of equal MACs, in float32 and int8."""
    rows: list[tuple[str, str, Architecture]] = []
    for model in SEARCHED:
        base = BaseNetwork(model, (3, 32, 32), 10)
        for share in SHARES:
            budget = DeviceBudget(macs=int(share * Architecture.full(base).costs.macs))
            what = f"{model} at {share:.0%}"
            rows.append((what, "uniform", uniform(base, budget)))
            for multiple in MULTIPLES:
                rows.append((what, f"searched, multiple {multiple}", found(base, budget, multiple)))
    with tempfile.TemporaryDirectory() as folder:
        files = [_exported(one, Path(folder), number) for number, (_, _, one) in enumerate(rows)]
        times = interleaved([path for pair in files for path in pair], (3, 32, 32))
    print("| network | widths | MACs | float32 (ms) | int8 (ms) |")
    print("|---|---|---|---|---|")
    for number, (what, widths, architecture) in enumerate(rows):
        plain, small = times[2 * number : 2 * number + 2]
        print(f"| {what} | {widths} | {architecture.costs.macs:,} | {plain:.3f} | {small:.3f} |")


def found(base: BaseNetwork, budget: DeviceBudget, multiple: int) -> Architecture:
    """What a search of every layer ends with; trained on a handful of images of noise."""
    settings = SearchSettings(
        search_space="all",
        channel_multiple=multiple,
        warmup_epochs=1,
        epochs_per_step=1,
        fine_tune_epochs=0,
        search_batch_size=8,
    )
    with tempfile.TemporaryDirectory() as folder:
        family = search(
            base,
            [budget],
            _noise(16, base, 0),
            _noise(8, base, 1),
            settings,
            seed=0,
            accelerator=torch.device("cpu"),
            progress=Silent(),
            checkpoint=Path(folder) / "search.safetensors",
            record=lambda row: None,
        )
    return family.members[0].architecture


def interleaved(files: Sequence[Path], shape: tuple[int, int, int]) -> list[float]:
    """The least milliseconds of processor time of one image through each file, of rounds in turn."""
    sessions = [_session(path) for path in files]
    images = {"images": torch.zeros(1, *shape, dtype=torch.uint8).numpy()}
    least = [float("inf")] * len(sessions)
    for turn in range(1 + ROUNDS):
        for number, session in enumerate(sessions):
            for _ in range(IN_A_ROW):
                start = time.process_time()
                session.run(None, images)
                taken = 1000 * (time.process_time() - start)
                least[number] = min(least[number], taken) if turn else least[number]
    return least


def untrained(architecture: Architecture) -> Classifier:
    """The network with random weights, ready to be exported."""
    mean = (0.5,) * architecture.input_shape[0]
    preparation = Preparation(mean, mean, tuple(str(one) for one in range(architecture.classes)))
    return Classifier(Model("found", "search", architecture, preparation, "", architecture.build(0).state_dict()))


def _exported(architecture: Architecture, folder: Path, number: int) -> tuple[Path, Path]:
    classifier = untrained(architecture)
    plain, small = folder / f"{number}.onnx", folder / f"{number}.int8.onnx"
    export_onnx(classifier, plain, network_program(classifier))
    calibration = torch.randint(0, 255, (16, *architecture.input_shape), dtype=torch.uint8)
    export_int8(classifier, small, calibration, network_program(classifier))
    return plain, small


def _noise(count: int, base: BaseNetwork, seed: int) -> Feed:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 255, (count, *base.input_shape), generator=generator, dtype=torch.uint8)
    half = torch.full((base.input_shape[0],), 0.5)
    return Feed(Images(pixels, torch.arange(count) % base.classes), Preprocessor(half, half, "none"), 8)


if __name__ == "__main__":
    main()
