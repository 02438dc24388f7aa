"""Which settings a search and a training have, and which of a federated run's file they pass over."""

import pytest

from common.config import Config
from common.errors import ConfigurationError
from common.groups import SearchSettings, TrainSettings
from feddac.standalone.settings import SEARCH, TRAIN, checker, own


def test_own_settings_keep_their_order_and_lack_what_only_a_federation_divides() -> None:
    kept = own(Config().to_mapping(), SEARCH)
    assert list(kept) == [key for key in Config().to_mapping() if key in kept]
    assert {"data", "validation-fraction", "warmup-epochs", "model", "seed"} <= set(kept)
    assert not {"reference-fraction", "partition", "rounds", "devices", "method"} & set(kept)
    assert set(own(TrainSettings().to_mapping() | SearchSettings().to_mapping(), TRAIN)) == set(TrainSettings.keys())


def test_a_file_is_checked_for_other_keys_and_for_values() -> None:
    checker(TRAIN)({"epochs": 3, "partition": "iid"})
    with pytest.raises(ConfigurationError, match="unknown setting 'epoch': did you mean 'epochs'"):
        checker(TRAIN)({"epoch": 3})
    with pytest.raises(ConfigurationError, match="warmup-epochs must be a whole number"):
        checker(SEARCH)({"warmup-epochs": "many"})
