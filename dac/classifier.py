"""A trained network with the preparation of its images inside: raw images in, logits or class names out."""

import torch
from torch import nn

from common.architecture import Architecture
from common.data.augment import scale_and_shift
from common.data.resize import resize_and_crop
from common.errors import ArchitectureError, DataError
from common.learning import place
from dac.model_file import Model


class Classifier(nn.Module):
    """Takes images as they are, of any size: uint8, or floats from 0 to 255, of shape (N, C, H, W).

    They are resized to cover the network's image size and cropped at the centre, then normalised. Attributes: `name`,
    `stage` (see `dac.model_file.STAGES`), `architecture`, `class_names`, `image_size` (height, width), and `network`,
    which takes images that are prepared already. In evaluation mode from the start.

    Raises ArchitectureError if the model's file does not say how images are prepared.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.preparation is None:
            raise ArchitectureError(f"the file of {model.name} does not say how images are prepared")
        self.name, self.stage = model.name, model.stage
        self.architecture: Architecture = model.architecture
        self.class_names: tuple[str, ...] = model.preparation.class_names
        _, height, width = model.architecture.base.input_shape
        self.image_size = height, width
        self.network = place(model.architecture.build_from(model.state), torch.device("cpu"))
        mean, std = torch.tensor(model.preparation.mean), torch.tensor(model.preparation.std)
        scale, shift = scale_and_shift(mean, std)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, classes)."""
        logits: torch.Tensor = self.network(self.prepare(images))
        return logits

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes: float32 of shape (N, C, height, width).

        Raises DataError for images of another number of channels or axes.
        """
        channels = self.scale.shape[1]
        if images.ndim != 4 or images.shape[1] != channels:
            raise DataError(f"{self.name} takes images of shape (N, {channels}, H, W), not {tuple(images.shape)}")
        layout = torch.channels_last if channels > 1 else torch.contiguous_format
        resized = resize_and_crop(images.to(self.scale.device, torch.float32), self.image_size)
        return resized.contiguous(memory_format=layout) * self.scale + self.shift

    @torch.no_grad()
    def classify(self, images: torch.Tensor) -> list[str]:
        """The name of the most likely class of each of (N, C, H, W) images."""
        return [self.class_names[index] for index in self(images).argmax(1).tolist()]
