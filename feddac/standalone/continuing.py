"""What may change when a search or a training goes on in its folder: nothing that what lies there came of."""

from collections.abc import Collection, Mapping
from pathlib import Path

from common.groups import DataSettings, ModelSettings
from common.settings import Scalar, keys_of
from feddac.standalone.settings import Groups, whole
from server.resumed_settings import FREE_SETTINGS, require_same_settings
from server.run_folder import RunFolder

NETWORK_AND_DATA = keys_of(ModelSettings, DataSettings)


def require_continuable(
    folder: RunFolder,
    settings: Mapping[str, Scalar],
    groups: Groups,
    checkpoint: Path,
    fixed: Collection[str] = NETWORK_AND_DATA,
) -> frozenset[str]:
    """Those of all `settings` in which what was begun in `folder` would go on otherwise.

    Raises CheckpointError for one that may not change: one of `fixed`, and once the file `checkpoint` is there any.
    """
    saved = whole(folder.read_config(), groups)
    bound = {key: value for key, value in settings.items() if checkpoint.exists() or key in fixed}
    require_same_settings(saved, bound, f"{folder.path} was begun with")
    return frozenset(key for key, value in settings.items() if key not in FREE_SETTINGS and saved.get(key) != value)


def keep_settings(folder: RunFolder, settings: Mapping[str, Scalar]) -> None:
    """Have config.toml say with which settings the work in the open `folder` goes on."""
    if folder.read_config() != dict(settings):
        folder.write_config(settings)
