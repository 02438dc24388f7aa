import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.budget import DeviceBudget
from common.config import Config
from common.errors import CheckpointError, ConfigurationError
from common.fleet import PROFILES
from feddac.cli.main import run
from server.budget_entries import BudgetEntry
from server.json_files import MAX_JSON_BYTES, read_json, write_json
from server.report.build import build_report
from server.run_folder import RunFolder
from server.run_models import find_models


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    created = RunFolder.create(tmp_path / "run")
    created.write_config(Config().to_mapping())
    return created


def test_files_beside_each_other_have_one_mode(tmp_path: Path) -> None:
    flags = ["--model", "mlp", "--max-macs", "2k", "--warmup-epochs", "1", "--epochs-per-step", "0"]
    assert run(["search", *flags, "--fine-tune-epochs", "0", "--out", str(tmp_path / "run")]) == 0
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "budget-1.search.safetensors" in modes
    assert "search.safetensors" in modes
    assert len(set(modes.values())) == 1, modes


def test_a_new_folder_is_opened_again_with_its_settings(folder: RunFolder) -> None:
    assert RunFolder.open(folder.path).read_config() == Config().to_mapping()


def test_an_empty_path_makes_dated_folders_that_never_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {RunFolder.create("").path for _ in range(3)}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {Path("runs")}


def test_a_folder_that_holds_a_run_is_not_overwritten(folder: RunFolder) -> None:
    with pytest.raises(ConfigurationError, match=r"--resume .*another --out"):
        RunFolder.create(folder.path)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError, match="choose another --out") as caught:
        RunFolder.create(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_opening_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.toml"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"rounds": 3, "warmup-epochs": 1}, "simulate"),
        ({"rounds": 3, "epochs": 2}, "simulate"),  # a method of one's own may call a setting so
        ({"epochs": 3}, "train"),
        ({"warmup-epochs": 1}, "search"),
    ],
)
def test_kinds_are_told_by_their_settings(folder: RunFolder, settings: dict[str, int], kind: str) -> None:
    folder.write_config(settings)
    assert folder.kind == kind


def test_settings_of_no_command_are_damage_whoever_reads_them(folder: RunFolder) -> None:
    folder.write_config({"data": "digits"})
    for read in (lambda: folder.kind, folder.require_federation, lambda: find_models(folder.path)):
        with pytest.raises(CheckpointError, match=r"config\.toml is damaged: it has none of rounds, epochs"):
            read()
    with pytest.raises(CheckpointError, match=r"config\.toml is damaged"):
        build_report(folder.path)


def test_budgets_and_summary_are_read_as_written(folder: RunFolder) -> None:
    entries = [
        BudgetEntry("7", DeviceBudget(macs=10**12), "phone", 3, 9, "cohort-0"),
        BudgetEntry("camera", DeviceBudget(params=5, peak_memory_bytes=6)),
        BudgetEntry("watch", PROFILES["phone"].budget(2.5), "phone", 4, 9, "cohort-0", 12, 1.5),
    ]
    assert folder.read_budgets() == []
    folder.write_budgets(entries)
    folder.write_summary({"test_accuracy": 0.5})
    assert folder.read_budgets() == entries
    assert folder.read_summary() == {"test_accuracy": 0.5}


def test_json_holds_null_where_a_number_is_not_finite(folder: RunFolder) -> None:
    folder.write_summary({"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": (-float("inf"), True)})
    assert folder.read_summary() == {"a": None, "b": [None, 3], "c": [None, True]}
    folder.append("search", epoch=1, train_loss=float("nan"))
    assert folder.metrics_path.read_text() == '{"event": "search", "epoch": 1, "train_loss": null}\n'


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "\x00", "[1] 2", "[" * 100_000])
def test_damaged_json_is_named(folder: RunFolder, text: str) -> None:
    folder.budgets_path.write_text(text)
    with pytest.raises(CheckpointError, match=r"budgets\.json is damaged"):
        folder.read_budgets()


@pytest.mark.parametrize(
    "row",
    ['{"name": 3}', '{"samples": "9"}', '{"samples": true}', '{"macs": 0}', '{"macs": "30M"}', '{"cohort": null}'],
)
def test_a_budget_of_the_wrong_kind_is_damage(row: str, folder: RunFolder) -> None:
    folder.budgets_path.write_text(f"[{row}]")
    with pytest.raises(CheckpointError, match=r"budgets\.json is damaged"):
        folder.read_budgets()


def test_json_of_another_kind_is_damage(folder: RunFolder) -> None:
    write_json(folder.budgets_path, {"device": "0"})
    write_json(folder.summary_path, [])
    with pytest.raises(CheckpointError, match="list of JSON objects"):
        folder.read_budgets()
    with pytest.raises(CheckpointError, match="JSON object"):
        folder.read_summary()


def test_a_missing_file_and_a_damaged_config_are_named(folder: RunFolder) -> None:
    with pytest.raises(CheckpointError, match=r"summary\.json"):
        folder.read_summary()
    folder.config_path.write_text("= 1")
    with pytest.raises(CheckpointError, match=r"config\.toml is damaged"):
        folder.read_config()


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(folder: RunFolder) -> None:
    folder.write_summary({"rounds": 1})
    with pytest.raises(TypeError):
        folder.write_summary({"rounds": object()})
    assert folder.read_summary() == {"rounds": 1}
    assert [name for name in os.listdir(folder.path) if name.startswith(".")] == []


def test_weights_come_back_exactly_even_as_views_of_one_buffer(folder: RunFolder) -> None:
    flat = torch.arange(12, dtype=torch.float32)
    state = {"a": flat[:6].view(2, 3), "b": flat[6:].view(2, 3).T, "steps": torch.tensor(7)}
    folder.save_model("cohort-0", state, {"round": "3"})
    loaded = folder.load_model("cohort-0")
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)


def test_missing_and_damaged_weights_are_named(folder: RunFolder) -> None:
    with pytest.raises(CheckpointError, match=r"cohort-1\.safetensors"):
        folder.load_model("cohort-1")
    folder.model_path("cohort-1").write_bytes(b"\xff" * 20)
    with pytest.raises(CheckpointError, match="damaged"):
        folder.load_model("cohort-1")


@pytest.mark.parametrize("name", ["../x", "", "a/b", "A", "cohort 0", "x.json", "cohort-0\n", "ü"])
def test_no_odd_text_becomes_a_path(folder: RunFolder, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot name"):
        folder.architecture_path(name)
    with pytest.raises(CheckpointError, match="cannot name"):
        folder.save_model(name, {})


def test_events_are_read_in_order_and_by_name(folder: RunFolder) -> None:
    assert folder.events() == []
    folder.append("stage", stage="search", seconds=1.5)
    folder.append("search", epoch=1)
    folder.append("search", epoch=2)
    assert [event["event"] for event in folder.events()] == ["stage", "search", "search"]
    assert [event["epoch"] for event in folder.events("search")] == [1, 2]


def test_an_event_is_on_disk_before_append_returns(folder: RunFolder) -> None:
    folder.append("search", epoch=1)
    assert RunFolder.open(folder.path).events() == [{"event": "search", "epoch": 1}]


def test_a_torn_last_line_is_ignored_and_never_glued_to_the_next(folder: RunFolder) -> None:
    folder.append("search", epoch=1)
    with open(folder.metrics_path, "ab") as file:
        file.write(b'{"event": "sea')
    again = RunFolder.open(folder.path)
    assert [event["epoch"] for event in again.events()] == [1]
    again.append("search", epoch=2)
    assert [event["epoch"] for event in again.events()] == [1, 2]


def test_a_damaged_line_in_the_middle_is_named_by_number(folder: RunFolder) -> None:
    folder.metrics_path.write_text('{"event": "search"}\nnonsense\n{"event": "search"}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2, is damaged"):
        folder.events()
    folder.metrics_path.write_text('{"round": 1}\n')
    with pytest.raises(CheckpointError, match="line 1"):
        folder.events()


def test_resuming_forgets_later_rounds_and_keeps_the_rest(folder: RunFolder) -> None:
    folder.append("search", epoch=5)
    folder.append("evaluation", round=0, cohort="cohort-0", test_accuracy=0.1, loss=2.3, validation_accuracy=0.1)
    for number in (1, 2, 3):
        folder.append("device", round=number, device="0", cohort="cohort-0", status="trained")
        folder.append("round", round=number, cohort="cohort-0", bytes_down=10, bytes_up=10)
        folder.append(
            "evaluation", round=number, cohort="cohort-0", test_accuracy=0.5, loss=1.0, validation_accuracy=0.5
        )
    folder.close()
    with open(folder.metrics_path, "ab") as file:
        file.write(b'{"event": "round", "round": 4')
    again = RunFolder.open(folder.path)
    again.truncate_after(1)
    again.append("round", round=2, cohort="cohort-0", bytes_down=1, bytes_up=1)
    assert [(event["event"], event.get("round")) for event in again.events()] == [
        ("search", None), ("evaluation", 0), ("device", 1), ("round", 1), ("evaluation", 1), ("round", 2),
    ]  # fmt: skip


def test_forgetting_before_anything_was_recorded_does_nothing(folder: RunFolder) -> None:
    folder.truncate_after(0)
    assert folder.events() == []


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(-1, 7))
def test_truncation_keeps_exactly_the_earlier_rounds_and_is_idempotent(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int], last: int
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for number in rounds:
        folder.append("device", round=number)
    for _ in range(2):
        folder.truncate_after(last)
        assert [event["round"] for event in folder.events()] == [number for number in rounds if number <= last]


@given(st.text())
def test_any_text_a_device_sends_stays_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    with folder:
        folder.append("device", reason=text)
        folder.append("device", reason="next")
    assert [event["reason"] for event in folder.events()] == [text, "next"]


def test_a_lone_surrogate_does_not_break_the_log(folder: RunFolder) -> None:
    folder.append("device", reason="\ud800")
    assert folder.events()[0]["reason"] == "?"


def test_tensorboard_shows_the_figures_of_every_round(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    with folder:
        for number in (1, 2):
            for cohort in ("cohort-0", "cohort-1"):
                for step, down in (("train", 90), ("evaluate", 10)):
                    folder.append(
                        "step", round=number, cohort=cohort, step=step, bytes_down=down * number, bytes_up=3.5
                    )
                folder.append(
                    "evaluation",
                    round=number,
                    cohort=cohort,
                    test_accuracy=0.5,
                    loss=float("nan"),
                    validation_accuracy=0.25,
                )
    accumulator = EventAccumulator(str(folder.tensorboard_folder)).Reload()
    assert set(accumulator.Tags()["scalars"]) == {
        "bytes", "test_accuracy/cohort-0", "test_accuracy/cohort-1",
        "validation_accuracy/cohort-0", "validation_accuracy/cohort-1",
    }  # fmt: skip
    assert [(item.step, item.value) for item in accumulator.Scalars("bytes")] == [(1, 214.0), (2, 414.0)]
    assert [item.value for item in accumulator.Scalars("validation_accuracy/cohort-1")] == [0.25, 0.25]


def test_tensorboard_shows_the_epochs_of_a_search_beside_the_rounds_that_are_taken_back(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with folder:
        for epoch in (1, 2, 3):
            folder.append("search", epoch=epoch, train_loss=1 / epoch, validation_accuracy=0.5, note="no figure")
        folder.append("evaluation", round=1, cohort="cohort-0", test_accuracy=0.5, loss=1.0, validation_accuracy=0.25)
        folder.truncate_after(0)
        folder.append("evaluation", round=1, cohort="cohort-0", test_accuracy=0.75, loss=1.0, validation_accuracy=0.25)
    epochs = EventAccumulator(str(folder.tensorboard_folder / "search")).Reload()
    assert set(epochs.Tags()["scalars"]) == {"search/train_loss", "search/validation_accuracy"}
    assert [item.step for item in epochs.Scalars("search/train_loss")] == [1, 2, 3]
    rounds = EventAccumulator(str(folder.tensorboard_folder)).Reload()
    assert [item.value for item in rounds.Scalars("test_accuracy/cohort-0")] == [0.75]


def test_read_json_is_the_inverse_of_write_json(tmp_path: Path) -> None:
    data = {"ü": [1, 2.5, None, {"nested": "π"}]}
    write_json(tmp_path / "a" / "b.json", data)
    assert read_json(tmp_path / "a" / "b.json") == data
    assert json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8")) == data


def test_a_document_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    with path.open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match=r"cannot read .*summary\.json"):
        read_json(path)
