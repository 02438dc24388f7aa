"""A device's local training against a bare loop of PyTorch, channels last, on the same batches."""

import json
import statistics
import time

import torch
from torch.nn import functional

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import CrossEntropy, Feed, place, train_epoch
from common.models.description import BaseNetwork
from common.optimizers import make_optimizer

STEPS = 5
REPEATS = 7
CPU = torch.device("cpu")


def main() -> None:
    torch.set_num_threads(1)
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
    figures = {}
    for batch in (16, 32):
        pixels = torch.randint(0, 256, (STEPS * batch, 3, 32, 32), dtype=torch.uint8)
        images = Images(pixels, torch.arange(STEPS * batch) % 10)
        feed = Feed(images, Preprocessor(torch.full((3,), 0.5), torch.full((3,), 0.25), "none"), batch)
        ours = place(Architecture.full(base).build(0), CPU).train()
        bare = Architecture.full(base).build(0).to(memory_format=torch.channels_last).train()
        optimizer = make_optimizer("sgd", ours.parameters(), 0.01, 0.9, 1e-4)
        theirs = torch.optim.SGD(bare.parameters(), 0.01, 0.9, weight_decay=1e-4)
        batches = list(feed.evaluation(CPU))
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(REPEATS):
            start = time.process_time()
            train_epoch(ours, feed, optimizer, torch.Generator().manual_seed(0), CPU, CrossEntropy())
            middle = time.process_time()
            for one in batches:
                theirs.zero_grad()
                functional.cross_entropy(bare(one.images), one.labels).backward()  # type: ignore[no-untyped-call]
                theirs.step()
            seconds["ours"].append(middle - start)
            seconds["bare"].append(time.process_time() - middle)
        spent = {name: statistics.median(times[1:]) for name, times in seconds.items()}
        figures[f"training in batches of {batch}: bare loop's time / ours"] = spent["bare"] / spent["ours"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
