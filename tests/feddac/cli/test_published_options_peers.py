"""docs/published-options-peers.md: every option of the peers' programs has a row, and what it calls ours is ours."""

import re
from pathlib import Path

import pytest
import typer

from common.config import Config
from feddac.cli.main import application

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "published-options-peers.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(
    re.findall(r"^## .* is `feddac simulate --method (\w+)`\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
)
PUBLISHED = {
    "autoflip": "exp_name seed device device_ids data_path log_path result_path use_tb tb_port tb_host dataset "
    "test_fraction rawsmpl resize imnorm randrot randhf randvf randjit split_type mincls cncntrtn model_name "
    "hidden_size dropout use_model_tokenizer use_pt_model seq_len num_layers num_embeddings embedding_size init_type "
    "init_gain algorithm eval_type eval_fraction eval_every eval_metrics K R C E B beta no_shuffle optimizer "
    "max_grad_norm weight_decay momentum lr lr_server lr_decay lr_decay_step criterion mu Patience_mask epoochs_mask "
    "perc_clients_for_mask guidence_normalization mask_pruining treeshold_pruining initial_value_threshold beta1 tau "
    "plot CEXP2 random_pruning",
}


def rows(method: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[method].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_section_is_held_to_its_program() -> None:
    assert set(SECTIONS) == set(PUBLISHED)


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_published_option_has_one_row(method: str) -> None:
    assert sorted(row[0].strip("`").removeprefix("--") for row in rows(method)) == sorted(PUBLISHED[method].split())


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_option_of_ours_exists_with_the_default_that_is_said(method: str) -> None:
    command = typer.main.get_command(application()).commands["simulate"]  # type: ignore[attr-defined]
    known = {flag for option in command.params for flag in option.opts if flag.startswith("--")}
    defaults = Config().to_mapping()
    for published, _, ours, default, remark in rows(method):
        named = [*re.findall(r"`(--[\w-]+)", ours), *re.findall(r"`(--[\w-]+)", remark)]
        assert set(named) <= known, published
        assert named or ours == "none", published
        assert remark or ours != "none", f"{published}: say what became of it"
        value = defaults.get(ours.strip("`").removeprefix("--"), "")
        assert default in ({"none", "runs/DATE-TIME", ""} if value == "" else {str(value)}), ours
