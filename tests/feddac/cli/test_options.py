"""Options come from the settings dataclasses; defaults < file < flags."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from common.config import GROUPS, Config
from common.errors import ConfigurationError
from common.groups import FederationSettings, FleetSettings, RunSettings, TrainSettings
from common.settings import key_of, name_of
from feddac.cli.help import GroupedCommand
from feddac.cli.options import with_settings
from feddac.resolve import merge


def given_settings(*arguments: str) -> dict[str, Any]:
    """What a command with every setting gets for these arguments."""
    app, seen = typer.Typer(), []

    @app.command()
    @with_settings(*GROUPS)
    def command(settings: dict[str, Any], extra: Annotated[int, typer.Option()] = 5) -> None:
        """A command."""
        seen.append((settings, extra))

    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    [(settings, extra)] = seen
    assert extra == 5
    return settings


def test_only_what_was_given_arrives_with_its_type() -> None:
    assert given_settings() == {}
    assert given_settings("--rounds", "3", "--width", "0.5", "--local-epochs", "3-5", "--device-evaluation") == {
        "rounds": 3,
        "width": 0.5,
        "local-epochs": "3-5",
        "device-evaluation": True,
    }
    assert given_settings("--no-device-evaluation") == {"device-evaluation": False}


def test_every_setting_is_an_option() -> None:
    for key, default in Config().to_mapping().items():
        if isinstance(default, bool):
            assert given_settings(f"--{key}") == {key: True}
        else:
            assert given_settings(f"--{key}", str(default)) == {key: default}


def test_help_all_shows_every_option_its_default_and_its_group_and_help_the_common_ones() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=GroupedCommand)(with_settings(FleetSettings, FederationSettings)(lambda settings: None))
    whole, short = (CliRunner().invoke(app, [flag]).output for flag in ("--help-all", "--help"))
    for key in [*FleetSettings.keys(), *FederationSettings.keys()]:
        assert f"--{key} " in whole
    for text in (whole, short):
        assert "Number of devices. [default: 8]" in text
        assert "\nFleet:\n" in text
        assert "\nFederation:\n" in text
    assert "--rounds N" in short
    assert "--clip-norm" not in short


@given(st.dictionaries(st.sampled_from(["rounds", "devices", "seed"]), st.integers(1, 99)))
def test_names_and_keys_are_one_to_one(settings: dict[str, int]) -> None:
    arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    assert given_settings(*arguments) == settings
    assert [key_of(name_of(key)) for key in settings] == list(settings)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text("rounds = 7\nlocal-epochs = '2'\n")
    config = Config.from_mapping(merge(file, {"rounds": 3}))
    assert (config.federation.rounds, config.federation.local_epochs, config.fleet.devices) == (3, "2", 8)
    assert merge(None, {"rounds": 3}) == {"rounds": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds = ", "is not valid TOML"),
        ("rouns = 3", "unknown setting 'rouns': did you mean 'rounds'"),
        ("rounds = 'many'", "rounds must be a whole number"),
        ("[rounds]\na = 1", "rounds must be a whole number"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        merge(file, {})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        merge(Path("/nowhere/experiment.toml"), {})


def test_omitted_settings_get_no_option_and_another_check_reads_other_files(tmp_path: Path) -> None:
    @with_settings(RunSettings, omit=("out",))
    def command(settings: dict[str, Any]) -> None:
        """Do nothing."""

    assert set(inspect.signature(command).parameters) == {"seed", "accelerator", "quiet"}
    file = tmp_path / "train.toml"
    file.write_text("epochs = 3\n")
    assert merge(file, {"seed": 1}, TrainSettings.from_mapping) == {"epochs": 3, "seed": 1}
    with pytest.raises(ConfigurationError, match="unknown setting 'epochs'"):
        merge(file, {})
