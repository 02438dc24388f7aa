"""docs/published-options.md: what it calls our options exists, with the defaults it names, and nothing is left out."""

import re
from pathlib import Path

import pytest
import typer

from common.config import Config
from common.groups import ModelSettings, RunSettings, TrainSettings
from feddac.cli.main import application

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "published-options.md").read_text(encoding="utf-8")
SECTIONS = {
    command: (program, text)
    for program, command, text in re.findall(r"^## `(\w+\.py)` is `feddac (\w+)`\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
}
PUBLISHED = {
    "simulate": "epochs num_users local_models frac local_ep local_bs bs lr momentum split model cfg macs_bugget "
    "params_bugget json_name kernel_num kernel_sizes norm num_filters max_pool dataset iid num_classes num_channels "
    "gpu stopping_rounds verbose seed random_epoch save_ckpt log_dir",
    "search": "lr resume epochs batch_size path_dir wm momentum weight_decay penalty_factor",
    "train": "lr resume epochs batch_size path_dir wm momentum weight_decay json_name net_config_id",
}


def rows(command: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[command][1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def flags(command: str) -> set[str]:
    """The options that the command takes."""
    found = typer.main.get_command(application()).commands[command]  # type: ignore[attr-defined]
    return {flag for option in found.params for flag in option.opts if flag.startswith("--")}


@pytest.mark.parametrize("command", PUBLISHED)
def test_every_published_option_has_a_row(command: str) -> None:
    assert {row[0].strip("`").removeprefix("--") for row in rows(command)} == set(PUBLISHED[command].split())
    assert len(rows(command)) == len(PUBLISHED[command].split())


@pytest.mark.parametrize("command", PUBLISHED)
def test_every_option_of_ours_exists(command: str) -> None:
    known = flags(command)
    for published, _, ours, _, remark in rows(command):
        named = [*re.findall(r"`(--[\w-]+)", ours), *re.findall(r"`(--[\w-]+)", remark)]
        assert set(named) <= known, published
        assert named or ours in ("none", f"`feddac {command} FILE`"), published
        assert remark or ours != "none", f"{published}: say what became of it"


@pytest.mark.parametrize("command", PUBLISHED)
def test_the_defaults_are_ours(command: str) -> None:
    known = (TrainSettings() if command == "train" else Config()).to_mapping() | RunSettings().to_mapping()
    known |= ModelSettings().to_mapping()
    for _, _, ours, default, _ in rows(command):
        value = known.get(ours.strip("`").removeprefix("--"), "")
        assert default in ({"none", "runs/DATE-TIME", ""} if value == "" else {str(value)}), ours


@pytest.mark.parametrize(("command", "others"), [("simulate", {"resume", "quiet"}), ("search", {"resume"})])
def test_what_is_not_the_commands_own_is_a_key_of_a_federated_run(command: str, others: set[str]) -> None:
    named = {key for row in rows(command) for key in re.findall(r"`--([\w-]+)", row[2])}
    assert named - set(Config().to_mapping()) == others
