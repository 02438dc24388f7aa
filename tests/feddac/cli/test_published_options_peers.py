"""docs/published-options-peers.md: our options exist, with the defaults it names, and no published one is left out."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from common.config import Config
from common.effects import require_effect
from common.presets import without_preset
from feddac.cli.main import application

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "published-options-peers.md").read_text(encoding="utf-8")
HEAD = r"^## [^\n]* is `feddac simulate --method (\w+)`\n(.*?)(?=^## |\Z)"
SECTIONS: dict[str, str] = dict(re.findall(HEAD, PAGE, re.M | re.S))
PUBLISHED = {
    "fednas": "gpu stage model dataset partition batch_size wd epochs local_points client_number comm_round "
    "init_channels layers learning_rate learning_rate_min momentum weight_decay arch_learning_rate arch_weight_decay "
    "grad_clip lambda_train_regularizer lambda_valid_regularizer report_freq tau_max tau_min auxiliary arch "
    "frequency_of_the_test",
    "fedgkt": "model_client model_server dataset data_dir partition_method partition_alpha batch_size lr wd "
    "epochs_client local_points client_number comm_round gpu loss_scale no_bn_wd temperature epochs_server alpha "
    "optimizer whether_training_on_client whether_distill_on_the_server client_model weight_init_model running_name "
    "sweep multi_gpu_server test gpu_num_per_server",
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


def options(words: list[str]) -> dict[str, str | bool]:
    """Each setting of a command line and its value: of a flag whether it is on."""
    found: dict[str, str | bool] = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--no-"):
            found[word.removeprefix("--no-")] = False
        elif word.startswith("--"):
            found[word.removeprefix("--")] = True if after.startswith("--") else after
    return found


def flags() -> set[str]:
    """The options that `feddac simulate` takes."""
    found = typer.main.get_command(application()).commands["simulate"]  # type: ignore[attr-defined]
    return {flag for option in found.params for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")}


def test_the_page_has_a_section_for_each() -> None:
    assert set(SECTIONS) == set(PUBLISHED)


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_published_option_has_a_row(method: str) -> None:
    assert sorted(row[0].strip("`").removeprefix("--") for row in rows(method)) == sorted(PUBLISHED[method].split())


@pytest.mark.parametrize("method", PUBLISHED)
def test_every_option_of_ours_exists(method: str) -> None:
    known = flags()
    for published, _, ours, _, remark in rows(method):
        named = [*re.findall(r"`(--[\w-]+)", ours), *re.findall(r"`(--[\w-]+)", remark)]
        assert set(named) <= known, published
        assert named or ours == "none", published
        assert remark or ours != "none", f"{published}: say what became of it"
    for block in re.findall(r"```sh\n(.*?)```", SECTIONS[method], re.S):
        assert set(re.findall(r"(--[\w-]+)", block)) <= known


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_commands_are_not_refused(method: str) -> None:
    for block in re.findall(r"```sh\n(.*?)```", SECTIONS[method], re.S):
        for words in map(shlex.split, block.replace("\\\n", " ").strip().splitlines()):
            assert words[:2] == ["feddac", "simulate"]
            require_effect(Config.from_mapping(without_preset(options(words[2:]))))


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_defaults_are_ours(method: str) -> None:
    known = Config().to_mapping()
    for _, _, ours, default, _ in rows(method):
        value = known.get(ours.strip("`").removeprefix("--"), "")
        assert default in ({"none", "runs/DATE-TIME", ""} if value == "" else {str(value)}), ours
