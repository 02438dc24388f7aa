"""What a family of five budgets costs, against training the network once in the plainest possible loop.

    python benchmarks/search_cost.py [--data digits] [--train-images 2000] [--stem-stride 2] [--strides 1,2,2,2,1,2,1]
        [--search-space inner]

All see the same images, batches and number of supernet epochs, one after the other in one process. The search has the
default settings of `feddac search`, fine-tuning included; the loop is forward, backward, step on the whole network
without gates, as PyTorch has it and with FedDAC's faster convolutions. Besides seconds, which other load on the machine
stretches, processor time is printed; that of the processes in which a search trains what it found is part of it.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.quality.budgets import published_budgets
from common.architecture import Architecture
from common.groups import DataSettings, ModelSettings, SearchSettings
from common.learning import Feed, place
from common.progress import Silent
from dac.search import search
from feddac.standalone.material import load_material
from server.reference import base_network


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", default="digits")
    found.add_argument("--train-images", type=int, default=2000)
    found.add_argument("--stem-stride", type=int, default=2)
    found.add_argument("--strides", default="1,2,2,2,1,2,1")
    found.add_argument("--search-space", choices=("inner", "all"), default=SearchSettings().search_space)
    found.add_argument("--threads", type=int, default=torch.get_num_threads())
    return found


def processor_seconds() -> float:
    """Of this process and of those that it has begun and seen end, as a search's do before it returns."""
    return sum(os.times()[:4])


def main() -> None:
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    settings = SearchSettings(search_space=arguments.search_space)
    material = load_material(
        DataSettings(data=arguments.data, train_images=arguments.train_images), settings.search_batch_size, 0
    )
    model = ModelSettings(stem_stride=arguments.stem_stride, strides=arguments.strides)
    base = base_network(model, material.data)
    epochs: list[object] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter(), processor_seconds()
        search(
            base,
            list(published_budgets(base).values()),
            material.train,
            material.validation,
            settings,
            seed=0,
            accelerator=torch.device("cpu"),
            progress=Silent(),
            checkpoint=Path(folder) / "search.safetensors",
            record=epochs.append,
        )
        family = time.perf_counter() - start[0], processor_seconds() - start[1]
    print(f"images {len(material.train.images)}, supernet epochs {len(epochs)}, threads {torch.get_num_threads()}")
    print(f"family of five budgets   {family[0]:7.1f} s   {family[1]:7.1f} s of processor time")
    for name in ("PyTorch's loop", "our convolutions"):
        module = Architecture.full(base).build(0)
        if name == "our convolutions":
            place(module, torch.device("cpu"))
        once = plain_loop(module, material.train, settings, len(epochs))
        print(f"{name:<24} {once[0]:7.1f} s   {once[1]:7.1f} s of processor time")
        print(f"  ratio                  {family[0] / once[0]:7.2f}     {family[1] / once[1]:7.2f}")


def plain_loop(module: nn.Module, feed: Feed, settings: SearchSettings, epochs: int) -> tuple[float, float]:
    """Seconds and processor seconds of `epochs` epochs of the whole network."""
    images = torch.cat([batch.images for batch in feed.evaluation(torch.device("cpu"))])
    loader = DataLoader(TensorDataset(images, feed.images.labels), settings.search_batch_size, shuffle=True)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), settings.search_learning_rate, settings.search_momentum)
    start = time.perf_counter(), processor_seconds()
    for _ in range(epochs):
        for batch, labels in loader:
            loss = F.cross_entropy(module(batch), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - start[0], processor_seconds() - start[1]


if __name__ == "__main__":
    from simulation.environment import restart_with_cpu_tuning

    restart_with_cpu_tuning()
    main()
