"""The settings with which a run goes on in its folder: those it began with, but for a few that change no result."""

from collections.abc import Mapping

from common.config import Config
from common.errors import CheckpointError
from common.fleet import is_fleet_file
from common.groups import ModelSettings
from common.settings import Scalar
from dac.strides import is_chosen
from server.run_folder import RunFolder

FREE_SETTINGS = frozenset(("out", "data-folder", "rounds", "handshake-timeout", "round-timeout", "accelerator"))
"""Settings that may differ when a run is resumed: they say how and how long it runs, not what it computes."""


def require_same_settings(
    saved: Mapping[str, Scalar], settings: Mapping[str, Scalar], whose: str = "the checkpoint is of a run with"
) -> None:
    """Raise CheckpointError, naming the setting, where `settings` differ from what a run began with (`saved`).

    `whose` begins the message.
    """
    for key, value in settings.items():
        before = saved.get(key)
        if key == "fleet" and is_fleet_file(str(before)) and is_fleet_file(str(value)):
            continue  # the folder that holds the file may have been moved
        if key not in FREE_SETTINGS and before != value:
            raise CheckpointError(
                f"{whose} {key} = {before!r}, not {value!r}: resume it with its own settings, or start a new run"
            )


def with_saved_strides(config: Config, folder: RunFolder) -> Config:
    """`config`, whose strides may still say auto, with those that the run in the folder has chosen."""
    if is_chosen(config.model) or not folder.config_path.exists():
        return config
    saved = ModelSettings.picked_from(folder.read_config())
    return config.changed({"stem-stride": saved.stem_stride, "strides": saved.strides})
