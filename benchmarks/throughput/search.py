"""A search on few images against its own epochs without anything around them."""

import json
import tempfile
import time
from pathlib import Path

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.data.augment import Preprocessor
from common.data.images import Images
from common.groups import SearchSettings
from common.learning import Feed
from common.models.description import BaseNetwork
from common.progress import Silent
from dac.search import search

IMAGES = 96


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(IMAGES) % 10)
    preprocessor = Preprocessor(torch.full((3,), 0.5), torch.full((3,), 0.25), "none")
    feed = Feed(images, preprocessor, 32)
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
    budget = DeviceBudget(macs=int(0.7 * Architecture.full(base).costs.macs))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        search(
            base,
            [budget],
            feed,
            feed,
            SearchSettings(warmup_epochs=3, epochs_per_step=1, fine_tune_epochs=2),
            seed=0,
            accelerator=torch.device("cpu"),
            progress=Silent(),
            checkpoint=Path(folder) / "search.safetensors",
            record=lambda row: None,
        )
        print(json.dumps({f"a search on {IMAGES} images, s": time.process_time() - start}))


if __name__ == "__main__":
    main()
