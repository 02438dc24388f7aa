"""Random cells of the size that a search found: what FedNAS's search has to beat.

    python benchmarks/random_cells.py RUN/method/genotype-00004.json --seed 1 --out random.json
    feddac simulate --method fednas --fednas-genotype random.json ...

Genotypes are drawn until the network's parameters and multiply-accumulates are both within a share of those of the
found one; then the genotype is written as a search writes them.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from common.architecture import Architecture
from common.budget import Costs
from common.models.darts import Design
from common.models.darts_space import INPUTS, KINDS, NODES, OPERATIONS, Cell, Genotype
from common.models.description import BaseNetwork
from server.methods.genotypes import FORMAT, VERSION


def drawn(generator: np.random.Generator) -> Genotype:
    """For each node two different earlier nodes and, for each edge, any operation but none, all equally likely."""

    def cell() -> Cell:
        sources = [int(one) for node in range(NODES) for one in generator.permutation(INPUTS + node)[:2]]
        return tuple((OPERATIONS[int(generator.integers(1, len(OPERATIONS)))], source) for source in sources)

    return Genotype(*(cell() for _ in KINDS))


def near(found: Design, seed: int, share: float, attempts: int = 1000) -> tuple[Design, Costs]:
    """The first random design, and its costs, that is within `share` of the found one; SystemExit if there is none."""
    generator, wanted = np.random.default_rng(seed), costs_of(found)
    for _ in range(attempts):
        design = Design(found.channels, found.cells, drawn(generator))
        costs = costs_of(design)
        if all(abs(costs.get(one) / wanted.get(one) - 1) <= share for one in ("params", "macs")):
            return design, costs
    raise SystemExit(f"none of {attempts} random genotypes is within {share:.0%} of {wanted}; raise --share")


def costs_of(design: Design) -> Costs:
    """Of the network for colour images of 32 pixels in ten classes."""
    return Architecture.full(BaseNetwork(design.name, (3, 32, 32), 10)).costs


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="genotype file of a run of fednas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.05, help="largest relative difference of either size")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = Design.of(json.loads(arguments.file.read_text())["model"])
    design, costs = near(found, arguments.seed, arguments.share)
    assert design.genotype is not None
    document = {"format": FORMAT, "version": VERSION, **design.genotype.to_dict(), "model": design.name}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"found:  {found.name}: {costs_of(found)}\nrandom: {design.name}: {costs}")


if __name__ == "__main__":
    main()
