"""What everything in a run works with, and nothing changes."""

from dataclasses import dataclass

import torch

from common.config import Config
from common.progress import Progress
from server.reference import Reference
from server.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """The settings, the run folder, the server's images, where tensors live, and who is told how far the work is."""

    config: Config
    folder: RunFolder
    reference: Reference
    accelerator: torch.device
    progress: Progress

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.run.seed
