"""Genotypes as files: what a search would choose after each round, to be looked at, and to be trained later."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.atomic import write_atomically
from common.errors import ArchitectureError, ConfigurationError
from common.models.darts_space import OPERATIONS, PUBLISHED, Genotype, chosen, shares_of
from common.paths import user_path
from common.reading import Unreadable, printable, read_json

FORMAT = "feddac-genotype"
VERSION = 1


def write_genotype(path: Path, number: int, alphas: NDArray[np.float32], model: str) -> None:
    """Write what `alphas`, shape (2, edges, operations), stand for after round `number`; `model` is its network.

    `shares` are the softmax over each edge's operations, in the order of `operations`.
    """
    genotype = chosen(alphas)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "round": number,
        **genotype.to_dict(),
        "model": model,
        "operations": OPERATIONS,
        "shares": [[[round(float(one), 6) for one in edge] for edge in kind] for kind in shares_of(alphas)],
    }
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def read_genotype(name: str) -> Genotype:
    """A published genotype by its name, or the one in the file `name`.

    Raises ConfigurationError where there is neither, ArchitectureError for a file that holds none.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    path = user_path(name)
    if not path.is_file():
        raise ConfigurationError(
            f"fednas-genotype: {name!r:.200} is neither a file nor one of {', '.join(PUBLISHED)}; a search leaves "
            "method/genotype-ROUND.json in its folder"
        )
    try:
        data = read_json(path)
    except Unreadable as error:
        raise ArchitectureError(f"cannot read the genotype file {printable(path)}: {error}") from None
    if not isinstance(data, dict) or (data.get("format"), data.get("version")) != (FORMAT, VERSION):
        raise ArchitectureError(f"{path} is no genotype file of version {VERSION}")
    try:
        return Genotype.from_dict(data)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path} is damaged: {error}") from None
