"""What several tests of federations share: a fleet of two budgets, a server that is cut short, and what a run left."""

from pathlib import Path

from common.progress import Silent

TWO_BUDGETS = """
[[device]]
name = "small"
count = 2
params = "6k"
[[device]]
name = "large"
params = "12k"
"""


class Crash(Silent):
    """Progress that ends the process, so to speak, at its n-th call."""

    def __init__(self, instant: int) -> None:
        self.left = instant

    def advance(self, stage: str, units: int, message: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def models(path: Path) -> dict[str, bytes]:
    """The files of a run's final models, by name."""
    return {file.name: file.read_bytes() for file in (path / "models").iterdir()}
