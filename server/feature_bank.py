"""What devices said of their images in one round, on disk: memory does not grow with devices or images.

    FOLDER/NAME/features.npy    (rows, C, H, W), and likewise ids.npy, labels.npy and logits.npy
    FOLDER/NAME.partial/        being written

The folder belongs to one round. It is emptied before and after it, so that what a crash left behind is never read. A
device's arrays are written beside their place and moved there together: a folder without `.partial` is whole. Rows are
read through a memory map that lives only as long as the batch, so that its pages do not pile up in this process.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.arrays import Array, Arrays

PARTIAL = ".partial"


@dataclass(frozen=True)
class Rows:
    """Rows of the bank, by number over all names in their order."""

    folder: Path
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    def batch(self, rows: NDArray[np.int64], kinds: Sequence[str]) -> dict[str, Array]:
        """The named arrays at these rows, in their order; shape (B, ...) each."""
        ends = np.cumsum(self.counts)
        owners = np.searchsorted(ends, rows, side="right")
        found: dict[str, Array] = {}
        for owner in np.unique(owners):
            here = owners == owner
            own = rows[here] - (ends[owner] - self.counts[owner])
            for kind in kinds:
                mapped = _mapped(self.folder / self.names[owner], kind)
                if kind not in found:
                    found[kind] = np.empty((len(rows), *mapped.shape[1:]), mapped.dtype)
                found[kind][here] = mapped[own]
        return found

    def of(self, name: str) -> NDArray[np.int64]:
        """The rows of one name."""
        place = self.names.index(name)
        start = sum(self.counts[:place])
        return np.arange(start, start + self.counts[place])


class FeatureBank:
    """Arrays by name, each a folder of `folder`. Names are file names, so they must not come from a device."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: dict[str, int] = {}

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep arrays of equally many rows, one at least, under a name; what was there is replaced."""
        partial, place = self._folder / (name + PARTIAL), self._folder / name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for kind, values in arrays.items():
            np.save(partial / f"{kind}.npy", values)
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        self._counts[name] = min(len(values) for values in arrays.values())

    def rows(self, names: Sequence[str]) -> Rows:
        """The rows that were put since the last `clear` under those of `names` that have any, in this order."""
        held = tuple(name for name in names if name in self._counts)
        return Rows(self._folder, held, tuple(self._counts[name] for name in held))

    def clear(self) -> None:
        """Forget everything, also what a crash left half written."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._counts = {}


def _mapped(place: Path, kind: str) -> Array:
    mapped: Array = np.load(place / f"{kind}.npy", mmap_mode="r")
    return mapped
