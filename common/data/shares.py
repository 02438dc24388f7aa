"""Who holds which training images: the server's reference set and every device's part, the same on every machine."""

from torch import Tensor

from common.data.images import DataSet
from common.data.partition import partition
from common.data.split import split_reference
from common.groups import DataSettings


def device_shares(data: DataSet, settings: DataSettings, seed: int, devices: int) -> list[Tensor]:
    """For each of `devices` devices the sorted int64 indices of its images in `data.train`.

    Raises DataError if the images left beside the reference set cannot be divided as `settings.partition` asks.
    """
    pool = split_reference(data, settings, seed).devices
    return [pool[part] for part in partition(data.train.labels[pool], settings.partition, devices, seed)]
