"""docs/published-options-peers.md: every published option has a row, what it calls ours exists, and its presets run."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

from common.architecture import Architecture
from common.config import Config, require_read
from common.methods import contract_of
from common.models.description import BaseNetwork
from feddac.cli.main import application
from server.methods import server_half

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "published-options-peers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## [^\n]*`feddac simulate --method ([\w-]+)`\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
PUBLISHED = {
    "fednas": "gpu stage model dataset partition batch_size wd epochs local_points client_number comm_round "
    "init_channels layers learning_rate learning_rate_min momentum weight_decay arch_learning_rate arch_weight_decay "
    "grad_clip lambda_train_regularizer lambda_valid_regularizer report_freq tau_max tau_min auxiliary arch "
    "frequency_of_the_test",
}


def rows(method: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[method].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_method_with_a_section_has_its_published_options_here() -> None:
    assert set(SECTIONS) == set(PUBLISHED)


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_published_option_has_a_row(method: str) -> None:
    assert sorted(row[0].strip("`").removeprefix("--") for row in rows(method)) == sorted(PUBLISHED[method].split())


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_option_of_ours_exists_is_read_and_has_the_default_that_is_named(method: str) -> None:
    command = typer.main.get_command(application()).commands["simulate"]  # type: ignore[attr-defined]
    known = {flag for option in command.params for flag in option.opts}
    defaults, contract = Config().to_mapping(), contract_of(method)
    for published, _, ours, default, remark in rows(method):
        flag = ours.strip("`")
        named = re.findall(r"`(--[\w-]+)", ours + remark.replace(f"`{published.strip('`')}`", ""))
        there = {f"--{one}" for one in PUBLISHED[method].split()}
        assert set(named) <= known | there, published
        if flag == "none":
            assert remark, f"{published}: say what became of it"
            continue
        assert flag in known, published
        assert contract.reads_setting(flag.removeprefix("--")), published
        value = defaults[flag.removeprefix("--")]
        assert default == ("none" if value == "" else str(value)), published


@pytest.mark.parametrize("method", PUBLISHED)
def test_its_presets_are_configurations_that_the_method_reads(method: str) -> None:
    presets = re.findall(r"```toml\n(.*?)```", SECTIONS[method], re.S)
    assert presets
    for text in presets:
        config = Config.from_mapping(tomllib.loads(text))
        assert config.method.method == method
        require_read(config)
        server_half(config).check(config, BaseNetwork("mlp", (3, 32, 32), 10), {})


def test_fednas_has_its_published_network() -> None:
    config = Config.from_mapping(tomllib.loads(re.findall(r"```toml\n(.*?)```", SECTIONS["fednas"], re.S)[0]))
    own = config.to_mapping()
    name = f"darts_{own['fednas-channels']}x{own['fednas-cells']}"
    assert Architecture.full(BaseNetwork(name, (3, 32, 32), 10)).costs.params == 1_930_842
