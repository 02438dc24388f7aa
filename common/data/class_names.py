"""Labels by the names of their classes, where two data sets number the same classes differently."""

from collections.abc import Sequence

import torch

from common.data.images import Images
from common.errors import DataError

MOST_NAMED = 8
"""So many names stand in an error message."""

LONGEST_NAME = 40
"""So much of a name."""


def renumbered(images: Images, own: Sequence[str], run: Sequence[str], where: str) -> Images:
    """The images with labels as the run numbers its classes; those they have count in `own`, their set's class names.

    Names are the same if they have the same letters and digits, in upper or lower case: "T-shirt/top" is called
    "T - shirt / top" elsewhere. A set without names, whose classes are called 0, 1, 2 and so on, stays as it is, and so
    does any if `run` is empty. `where` names the set in errors.

    Raises DataError for images of a class that the run does not have, or has twice.
    """
    if not run or tuple(own) in (tuple(run), without_names(len(own))):
        return images
    numbers = {int(label): _number(own[int(label)], run) for label in torch.unique(images.labels)}
    unknown = [own[label] for label, number in numbers.items() if number is None]
    if unknown:
        raise DataError(
            f"{where} has images of {_listed(unknown)}, but the run's classes are {_listed(run)}: rename them to these"
        )
    table = torch.zeros(len(own), dtype=torch.int64)
    for label, number in numbers.items():
        table[label] = number or 0
    return Images(images.images, table[images.labels])


def numbered(*parts: Images) -> tuple[str, ...]:
    """The names of the classes of a data set with these parts, which does not name them."""
    return without_names(1 + max(int(part.labels.max()) for part in parts))


def without_names(classes: int) -> tuple[str, ...]:
    """What the classes of a data set are called that does not name them."""
    return tuple(map(str, range(classes)))


def _number(name: str, run: Sequence[str]) -> int | None:
    """The one class of the run that has this name; None if there is none, or more than one."""
    for same in (str, _letters):
        found = [number for number, other in enumerate(run) if same(other) == same(name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _letters(name: str) -> str:
    """A name by its letters and digits; itself where it has none."""
    return "".join(filter(str.isalnum, name.casefold())) or name


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:LONGEST_NAME] for name in names[:MOST_NAMED])
    return shown + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
