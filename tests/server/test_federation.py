"""Whole runs: what they leave in the run folder, cohorts of different sizes, and resuming after a crash."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.architecture import Architecture
from common.config import Config
from common.errors import BudgetError, CheckpointError, ConfigurationError
from common.progress import Silent
from common.slicing import coordinates
from server import federation
from server.federation import federate
from server.report.own_scores import OWN_EVENT
from server.run_folder import RunFolder
from tests.examples import slow
from tests.server.helpers import TWO_BUDGETS, Crash, models


@pytest.fixture
def config(small_config: Callable[..., Config], tmp_path: Path) -> Config:
    (tmp_path / "fleet.toml").write_text(TWO_BUDGETS)
    fleet = str(tmp_path / "fleet.toml")
    return small_config(fleet=fleet, rounds=3, fraction=0.5, local_epochs="1-2", max_params="")


@pytest.fixture
def run(run_inline: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def start(config: Config, path: Path, progress: Silent | None = None, resume: bool = False) -> dict[str, Any]:
        with RunFolder.open(path) if resume else RunFolder.create(path) as folder:
            folder.write_config(config.to_mapping())
            summary: dict[str, Any] = run_inline(
                lambda grid: federate(grid, config, folder, progress or Silent(), resume), config
            )
        return summary

    return start


def test_a_run_leaves_everything_in_its_folder(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    summary = run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert folder.read_summary() == json.loads(json.dumps(summary))
    assert [cohort["devices"] for cohort in summary["cohorts"]] == [1, 2]
    assert summary["rounds"] == 3
    assert list(summary["stages"]) == ["handshake", "search", "rounds"]
    assert [event["stage"] for event in folder.events("stage")] == ["handshake", "search", "rounds"]
    assert [event["round"] for event in folder.events("evaluation")] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(folder.events("architecture")) == 2
    last = {event["cohort"]: event for event in folder.events("evaluation")}
    for entry in summary["cohorts"]:
        name = entry["cohort"]
        architecture = Architecture.from_json(folder.architecture_path(name).read_text())
        costs = architecture.costs
        assert (entry["macs"], entry["params"]) == (costs.macs, costs.params)
        module = architecture.build(0)
        module.load_state_dict(folder.load_model(name))
        assert entry["test_accuracy"] == last[name]["test_accuracy"]
    accuracies = [entry["test_accuracy"] for entry in summary["cohorts"]]
    assert summary["test_accuracy"] == pytest.approx((accuracies[0] + 2 * accuracies[1]) / 3)


def test_a_run_that_goes_on_for_more_rounds_is_the_one_that_had_them_from_the_start(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path
) -> None:
    """Its third round was its last and so evaluated, for which batch norms were measured anew; clipping sees none."""
    changes: dict[str, Any] = {"clip_norm": 0.5, "batch_norm": "recalibrate", "evaluate_every": 2}
    changes |= {"method": "fedavg", "model": "resnet8", "width": 0.25, "fleet": "workstation", "max_params": ""}
    changes |= {"pretraining_epochs": 1, "train_images": 120, "test_images": 20}
    run(small_config(rounds=5, **changes), tmp_path / "whole")
    run(small_config(rounds=3, **changes), tmp_path / "cut")
    run(small_config(rounds=5, **changes), tmp_path / "cut", resume=True)
    assert models(tmp_path / "cut") == models(tmp_path / "whole")


def test_own_accuracy_stands_beside_test_accuracy(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    """Of devices, cohorts and the run; devices are asked after the last round, all of them, whoever trained."""
    summary = run(config, tmp_path / "run")
    scores = {event["device"]: event for event in RunFolder(tmp_path / "run").events(OWN_EVENT)}
    assert [one["round"] for one in scores.values()] == [3, 3, 3]
    large, small = summary["cohorts"]
    assert {name: one["test_accuracy"] for name, one in summary["devices"].items()} == {
        "large": large["test_accuracy"],
        **dict.fromkeys(("small-00", "small-01"), small["test_accuracy"]),
    }
    for name, one in summary["devices"].items():
        event = scores[name]
        assert (one["cohort"], one["profile"], one["own_accuracy"], one["own_images"]) == (
            *(event["cohort"], name.partition("-")[0], event["own_accuracy"], event["own_images"]),
        )
        assert one["own_images"] * one["own_accuracy"] == pytest.approx(round(one["own_images"] * one["own_accuracy"]))
    own = [summary["devices"][name]["own_accuracy"] for name in ("large", "small-00", "small-01")]
    assert large["own_accuracy"] == own[0]
    assert small["own_accuracy"] == pytest.approx((own[1] + own[2]) / 2)
    assert summary["own_accuracy"] == pytest.approx(sum(own) / 3)
    assert (summary["own_devices"], summary["own_images"]) == (3, sum(one["own_images"] for one in scores.values()))


def test_devices_with_few_images_report_no_accuracy_of_their_own_and_nobody_fails(
    config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run(config.changed({"train-images": 60, "rounds": 1}), tmp_path / "run")
    assert (summary["own_accuracy"], summary["own_devices"], summary["own_images"]) == (None, 0, 0)
    assert {one["own_accuracy"] for one in summary["devices"].values()} == {None}
    assert summary["outcomes"]["trained"] == 2
    assert summary["outcomes"]["failed"] == 0


def test_every_device_can_hold_its_architecture(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    budgets = folder.read_budgets()
    assert [entry.name for entry in budgets] == ["small-00", "small-01", "large"]
    for entry in budgets:
        architecture = Architecture.from_json(folder.architecture_path(entry.cohort).read_text())
        assert entry.budget.params is not None
        assert architecture.costs.params < entry.budget.params


def test_events_and_summary_agree_about_what_the_run_cost(
    config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    steps = folder.events("step")
    assert {event["step"] for event in steps} == {"train", "evaluate"}
    for key in ("bytes_down", "bytes_up"):
        assert summary[key] == sum(event[key] for event in steps)
        assert summary[key] == sum(entry[key] for entry in summary["cohorts"])
        assert summary[key] == sum(step[key] for step in summary["traffic"].values())
    parameters = {entry["cohort"]: entry["params"] for entry in summary["cohorts"]}
    sent = sum(4 * parameters[event["cohort"]] * len(event["sampled"]) for event in folder.events("round"))
    assert summary["traffic"]["train"]["bytes_down"] > sent
    assert summary["traffic"]["evaluate"]["bytes_up"] > 0
    training = [event for event in steps if event["step"] == "train"]
    macs, answers = (sum(event[key] for event in training) for key in ("device_macs", "answers"))
    assert summary["device_macs_per_round"] == macs / answers
    assert 0 < summary["server_seconds"] < summary["seconds_total"]
    assert summary["server_bytes"] == sum(
        4 * Architecture.from_json(path.read_text()).layout.size for path in folder.architectures_folder.glob("*.json")
    )
    assert summary["epochs_on_reference"] > 0


@pytest.mark.parametrize("instant", [1, 6, 12, *slow(4, 5, 9, 11, 14, 15)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    instant: int, config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Crash(instant))
    resumed = run(config, tmp_path / "cut", resume=True)
    assert models(tmp_path / "cut") == models(tmp_path / "whole")
    for key in ("cohorts", "devices", "bytes_down", "bytes_up", "test_accuracy", "own_accuracy", "rounds"):
        assert resumed[key] == whole[key]
    for event in ("search", "evaluation", "architecture", OWN_EVENT):
        assert RunFolder(tmp_path / "cut").events(event) == RunFolder(tmp_path / "whole").events(event)


@pytest.mark.parametrize(
    ("instants", "pieces"),
    [([1], (2, 1)), ([6], (2, 2)), ([7, 4, 7], (4, 3)), ([12], (2, 1))],
    ids=["in the handshake", "in the search", "again and again", "in the rounds"],
)
def test_time_that_was_spent_before_a_run_was_cut_short_counts_once(
    instants: list[int], pieces: tuple[int, int], config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    for number, instant in enumerate(instants):
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run", Crash(instant), resume=number > 0)
    summary = run(config, tmp_path / "run", resume=True)
    events = RunFolder(tmp_path / "run").events("stage")
    spent = {
        stage: [event["seconds"] for event in events if event["stage"] == stage] for stage in ("handshake", "search")
    }
    assert (len(spent["handshake"]), len(spent["search"])) == pieces
    assert {stage: summary["stages"][stage] for stage in spent} == pytest.approx(
        {stage: sum(seconds) for stage, seconds in spent.items()}
    )
    assert sum(spent["search"]) < summary["server_seconds"] < summary["seconds_total"]


@pytest.mark.parametrize("instant", [9, *slow(6, 12, 15)])
def test_cohorts_that_learn_from_each_other_resume_to_the_same_weights_too(
    instant: int, config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    changes = {"aggregation": "overlap", "masked-loss": "exclude", "distillation-epochs": 1, "partition": "classes:2"}
    config = Config.from_mapping({**config.to_mapping(), **changes})
    run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Crash(instant))
    run(config, tmp_path / "cut", resume=True)
    assert models(tmp_path / "cut") == models(tmp_path / "whole")


def test_cohorts_agree_where_they_average_weights(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    """After averaging weights, every weight that two cohorts hold is one and the same; of updates, only the change."""

    def shared(aggregation: str) -> bool:
        place = tmp_path / aggregation
        run(Config.from_mapping({**config.to_mapping(), "aggregation": aggregation}), place)
        folder = RunFolder.open(place)
        found = []
        for number in range(2):
            text = folder.architecture_path(f"cohort-{number}").read_text()
            architecture = Architecture.from_dict(json.loads(text))
            weights = architecture.layout.flatten(folder.load_model(f"cohort-{number}"))
            found.append(dict(zip(coordinates(architecture).tolist(), weights.tolist(), strict=True)))
        both = found[0].keys() & found[1].keys()
        assert both
        return all(found[0][one] == found[1][one] for one in both)

    assert shared("overlap-weights")
    assert not shared("overlap")
    assert not shared("cohort")


def test_a_finished_search_is_not_repeated(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    (tmp_path / "run/checkpoint/search.safetensors").write_bytes(b"nobody reads this any more")
    searched = len(RunFolder(tmp_path / "run").events("search"))
    run(config, tmp_path / "run", resume=True)
    assert len(RunFolder(tmp_path / "run").events("search")) == searched


def test_a_finished_run_can_go_on_for_more_rounds(
    config: Config, run: Callable[..., Any], run_inline: Callable[..., Any], tmp_path: Path
) -> None:
    run(config, tmp_path / "long")
    shorter = Config.from_mapping({**config.to_mapping(), "rounds": 1})
    run(shorter, tmp_path / "short")
    run(config, tmp_path / "short", resume=True)
    assert models(tmp_path / "short") == models(tmp_path / "long")


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(
    config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    other = Config.from_mapping({**config.to_mapping(), "seed": 1})
    run(config, tmp_path / "a")
    run(config, tmp_path / "b")
    run(other, tmp_path / "c")
    assert models(tmp_path / "a") == models(tmp_path / "b") != models(tmp_path / "c")


def test_a_damaged_checkpoint_is_not_resumed(config: Config, run: Callable[..., Any], tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    (tmp_path / "run/checkpoint/latest").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        run(config, tmp_path / "run", resume=True)


def test_a_run_whose_checkpoint_is_gone_is_not_started_anew(
    config: Config, run: Callable[..., Any], tmp_path: Path
) -> None:
    run(config, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "run/checkpoint/latest").unlink()
    with pytest.raises(CheckpointError, match=r"latest is missing, though 3 rounds were made"):
        run(config, tmp_path / "run", resume=True)
    del before[tmp_path / "run/checkpoint/latest"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_device_that_can_hold_nothing_is_left_out(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(TWO_BUDGETS.replace('"12k"', '"100"'))
    summary = run(small_config(fleet=str(tmp_path / "fleet.toml"), max_params="", rounds=1), tmp_path / "run")
    assert [cohort["devices"] for cohort in summary["cohorts"]] == [2]
    refused = [event for event in RunFolder(tmp_path / "run").events("device") if event["status"] == "rejected"]
    assert [(event["device"], event["round"]) for event in refused] == [("large", 0)]
    assert "the smallest mlp" in refused[0]["reason"]


def test_when_no_device_can_hold_anything_the_floor_is_named(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="the smallest mlp"):
        run(small_config(max_params="100"), tmp_path / "run")
    assert RunFolder(tmp_path / "run").events("search") == []


def test_random_initial_weights_forget_what_the_search_learnt(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path
) -> None:
    inherited = run(small_config(rounds=0, warmup_epochs=6), tmp_path / "inherited")
    scratch = run(small_config(rounds=0, warmup_epochs=6, initial_weights="random"), tmp_path / "random")
    assert inherited["test_accuracy"] > 0.5
    assert scratch["test_accuracy"] < 0.35


def test_it_stops_when_validation_no_longer_improves(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path
) -> None:
    # So small a step changes no prediction, so no evaluation after the first is better.
    summary = run(small_config(rounds=20, patience=2, learning_rate=1e-12, momentum=0.0), tmp_path / "run")
    assert (summary["rounds"], summary["stopped_early"]) == (2, True)


def test_a_run_begun_with_a_setting_that_has_no_effect_any_more_is_resumed(
    small_config: Callable[..., Config], run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default that changed, or a stricter FedDAC, must not cost anybody a run."""
    config = small_config(rounds=1).changed({"trim-share": 0.3})
    with pytest.raises(ConfigurationError, match=r"trim-share = 0\.3 would have no effect"):
        run(config, tmp_path / "refused")
    with monkeypatch.context() as patch:
        patch.setattr(federation, "require_effect", lambda config: None)
        run(config, tmp_path / "run")
    assert run(config.changed({"rounds": 2}), tmp_path / "run", resume=True)["rounds"] == 2
