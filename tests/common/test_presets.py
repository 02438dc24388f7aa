"""A preset is its settings, and what is said beside it wins."""

import pytest

from common.config import Config
from common.effects import require_effect
from common.errors import ConfigurationError
from common.presets import PRESETS, without_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration_that_its_method_reads(name: str) -> None:
    config = Config.from_mapping(without_preset({"preset": name}))
    require_effect(config)
    assert (config == Config()) == (name == "default")


def test_the_recommended_setting_is_one_word() -> None:
    config = Config.from_mapping(without_preset({"preset": "recommended", "rounds": 3}))
    assert config.to_mapping() == Config().to_mapping() | {
        "aggregation": "overlap",
        "batch-norm": "frozen",
        "joint-epochs": 15,
        "distillation-epochs": 1,
        "max-gradient-norm": 5.0,
        "rounds": 3,
    }


def test_other_settings_win_also_with_the_default_value() -> None:
    assert without_preset({"preset": "recommended", "joint-epochs": 0})["joint-epochs"] == 0


def test_a_command_takes_what_it_knows() -> None:
    assert without_preset({"preset": "recommended"}, ["joint-epochs", "width"]) == {"joint-epochs": 15}


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigurationError, match=r"preset must be one of default, recommended, paper, .*, not 'best'"):
        without_preset({"preset": "best"})
