"""Which models a folder has, whom they are for, and by which names they are found."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, CheckpointError, ConfigurationError
from common.models.description import BaseNetwork
from dac.files import Member, save_member
from dac.model_file import Preparation, metadata, read_model
from server.budget_entries import BudgetEntry
from server.run_folder import RunFolder
from server.run_models import StoredModel, choose_models, find_models

ARCHITECTURE = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
PREPARATION = Preparation((0.3,), (0.4,), tuple("0123456789"))
MODELS = [
    StoredModel("cohort-0", Path("0"), ("device-00", "device-03"), ("phone", "workstation")),
    StoredModel("cohort-1", Path("1"), ("device-01",), ("phone",)),
    StoredModel("cohort-2", Path("2"), ("device-02",), ("microcontroller",)),
]


def save(path: Path, stage: str, seed: int) -> None:
    member = Member(ARCHITECTURE, DeviceBudget(), ARCHITECTURE.build(seed).state_dict(), 0.5)
    save_member(path, member, name=path.stem, parent=None, seed=0, stage=stage, preparation=PREPARATION)


@pytest.fixture
def federated(tmp_path: Path) -> Path:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"data": "digits", "rounds": 2})
    folder.write_budgets(
        [
            BudgetEntry("device-00", DeviceBudget(), "phone", cohort="cohort-0"),
            BudgetEntry("device-01", DeviceBudget(), "declared", cohort="cohort-10"),
            BudgetEntry("device-02", DeviceBudget(), "phone", cohort="cohort-0"),
        ]
    )
    for cohort, seed in (("cohort-0", 1), ("cohort-10", 2), ("cohort-2", 3)):
        save(folder.architecture_path(cohort), "before-federation", 0)
        state = ARCHITECTURE.build(seed).state_dict()
        folder.save_model(cohort, state, metadata(cohort, "federated", ARCHITECTURE, PREPARATION))
    folder.write_summary({"cohorts": [{"cohort": "cohort-0", "test_accuracy": 0.75}]})
    return folder.path


def names(models: Sequence[StoredModel]) -> list[str]:
    return [model.name for model in models]


def test_a_federated_run_has_the_weights_after_its_last_round(federated: Path) -> None:
    models = find_models(federated)
    assert names(models) == ["cohort-0", "cohort-2", "cohort-10"]
    assert (models[0].devices, models[0].profiles) == (("device-00", "device-02"), ("phone",))
    assert [model.reported_accuracy for model in models] == [0.75, None, None]
    assert {read_model(model.path).stage for model in models} == {"federated"}


def test_a_device_takes_home_what_it_can_hold_and_the_cohort_is_what_was_scored(federated: Path) -> None:
    state = ARCHITECTURE.build(4).state_dict()
    facts = metadata("cohort-0-device", "federated", ARCHITECTURE, PREPARATION)
    RunFolder.open(federated).save_model("cohort-0-device", state, facts)
    models = find_models(federated)
    assert names(models) == ["cohort-0", "cohort-0-device", "cohort-2", "cohort-10"]
    for wanted in ("device-00", "phone", "cohort-0-device"):
        assert names(choose_models(models, wanted)) == ["cohort-0-device"]
    (scored,) = choose_models(models, "cohort-0")
    assert (scored.name, scored.reported_accuracy, scored.devices) == ("cohort-0", 0.75, ())
    assert models[1].reported_accuracy is None


def test_a_trained_folder_has_one_and_a_searched_one_has_one_per_budget(tmp_path: Path) -> None:
    trained, searched = RunFolder.create(tmp_path / "trained"), RunFolder.create(tmp_path / "searched")
    trained.write_config({"epochs": 3})
    save(trained.architecture_path("trained"), "trained", 0)
    trained.write_summary({"test_accuracy": 0.5})
    searched.write_config({"warmup-epochs": 3})
    searched.write_budgets([BudgetEntry("large", DeviceBudget()), BudgetEntry("camera", DeviceBudget())])
    save(searched.architecture_path("large"), "search", 0)
    save(searched.architecture_path("camera"), "search", 0)
    assert [(one.name, one.reported_accuracy) for one in find_models(trained.path)] == [("trained", 0.5)]
    assert find_models(trained.path)[0].path.name == "trained.safetensors"
    assert names(find_models(searched.path)) == ["large", "camera"]
    assert find_models(searched.path)[1].path.name == "camera.search.safetensors"


def test_a_budget_of_a_search_may_be_called_trained(tmp_path: Path) -> None:
    searched = RunFolder.create(tmp_path / "searched")
    searched.write_config({"warmup-epochs": 3})
    searched.write_budgets([BudgetEntry(name, DeviceBudget()) for name in ("trained", "small")])
    for name in ("trained", "small"):
        save(searched.architecture_path(name), "search", 0)
    assert names(find_models(searched.path)) == ["trained", "small"]


def test_a_file_is_a_model_of_its_own(federated: Path) -> None:
    assert names(find_models(federated / "models/cohort-2.safetensors")) == ["cohort-2"]
    (model,) = find_models(federated / "architectures/cohort-2.json")
    assert read_model(model.path).stage == "before-federation"


def test_weights_that_were_changed_are_noticed(federated: Path) -> None:
    weights = federated / "architectures/cohort-2.before-federation.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(content)
    with pytest.raises(ArchitectureError, match="SHA-256"):
        find_models(federated / "architectures/cohort-2.json")


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    for command, settings in (("simulate", {"rounds": 1}), ("train", {"epochs": 1}), ("search", {"warmup-epochs": 1})):
        folder = RunFolder.create(tmp_path / command)
        folder.write_config(settings)
        with pytest.raises(CheckpointError, match=f"feddac {command} --resume"):
            find_models(folder.path)
    with pytest.raises(CheckpointError, match="there is no run"):
        find_models(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("wanted", "kind", "expected"),
    [
        ("all", "", ["cohort-0", "cohort-1", "cohort-2"]),
        ("cohort-1", "", ["cohort-1"]),
        ("device-03", "", ["cohort-0"]),
        ("phone", "", ["cohort-0", "cohort-1"]),
        ("microcontroller", "profile", ["cohort-2"]),
        ("device-02", "device", ["cohort-2"]),
    ],
)
def test_names_of_cohorts_devices_and_profiles(wanted: str, kind: str, expected: list[str]) -> None:
    assert names(choose_models(MODELS, wanted, kind)) == expected


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ("phon", "", "no cohort, device or profile called 'phon': did you mean phone?"),
        ("phone", "cohort", "no cohort called 'phone'"),
        ("all", "device", "no device called 'all'"),
    ],
)
def test_other_names_are_refused(wanted: str, kind: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        choose_models(MODELS, wanted, kind)


def test_the_federation_says_in_its_files_which_weights_they_are(federated: Path) -> None:
    text = json.loads((federated / "architectures/cohort-0.json").read_text())
    assert text["weights"]["file"] == "cohort-0.before-federation.safetensors"
