"""Data sets that this process was handed, so that it need not find them on a disk of its own."""

from common.data.images import DataSet
from common.groups import DataSettings

_given: dict[DataSettings, DataSet] = {}


def give(settings: DataSettings, data: DataSet) -> None:
    """From here on `common.data.sources.load` returns `data` for these settings."""
    _given[settings] = data


def given(settings: DataSettings) -> DataSet | None:
    """What was given for these settings."""
    return _given.get(settings)
