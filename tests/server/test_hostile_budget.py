"""A device that claims to be smaller than it is, and what the others are given then."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import app as real_client
from common.config import Config
from common.groups import ModelSettings
from common.models import describe
from common.progress import Silent
from common.rates import COUNTED
from common.search_space import SearchSpace
from dac.files import load_member
from dac.strides import LADDER, base_of
from server.federation import federate
from server.run_folder import RunFolder
from tests.altered_client import altered_client
from tests.server.helpers import Notes

SIDE, WIDTH = 32, 0.25
IMAGES = {"model": "mobilenet_v2", "width": WIDTH, "image_size": SIDE, "train_images": 60, "test_images": 20}
STRIDES = {"stem_stride": LADDER[0][0], "strides": LADDER[0][1]}


def tiny_macs() -> int:
    """What the smallest network fits only if images are reduced sixteen times as much as in the publication."""
    stem, strides = LADDER[4]
    description = describe(base_of(ModelSettings(width=WIDTH, stem_stride=stem, strides=strides), (1, SIDE, SIDE), 10))
    return int(description.costs(SearchSpace().floor_sizes(description)).macs / 0.9) + 2


def app_that_reports(fields: Mapping[str, Any]) -> ClientApp:
    """The real client, except for these fields of what the device of partition 0 reports."""

    def report(request: Message, reply: Message, context: Context) -> Message:
        if int(context.node_config["partition-id"]) == 0:
            reply.content.config_records["report"].update(fields)
        return reply

    return altered_client(at_handshake=report)


@pytest.mark.parametrize("fixed", [False, True], ids=["strides auto", "strides given"])
def test_one_device_decides_everyones_strides_unless_they_are_given(
    fixed: bool, run_inline: Callable[..., Any], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = small_config(
        **IMAGES,
        **{"fleet": "workstation", "max_params": "", "warmup_epochs": 0, "fine_tune_epochs": 0, "rounds": 0},
        **(STRIDES if fixed else {}),
    )
    chosen, reached = {}, {}
    for name, app in (("honest", real_client), ("lied", app_that_reports({"macs": tiny_macs()}))):
        with RunFolder.create(tmp_path / name) as folder:
            folder.write_config(config.to_mapping())
            run_inline(lambda grid, folder=folder: federate(grid, config, folder, Silent(), False), config, app)
            model = ModelSettings.picked_from(folder.read_config())
            chosen[name] = (model.stem_stride, model.strides)
            reached[name] = {entry.partition for entry in folder.read_budgets() if entry.cohort}
    assert chosen["honest"] == LADDER[0]
    assert chosen["lied"] == (LADDER[0] if fixed else LADDER[4])
    assert reached["honest"] == {0, 1, 2}
    assert reached["lied"] == ({1, 2} if fixed else {0, 1, 2})


@pytest.mark.parametrize(
    ("settings", "others_lose"),
    [
        ({}, False),
        ({"max_cohorts": 1}, True),
        ({"method": "fedavg"}, True),
        ({"method": "fedavg", "fedavg_model": "drop-weak"}, False),
    ],
    ids=["a cohort each", "merged", "fedavg", "fedavg drop-weak"],
)
def test_what_others_train_beside_a_device_that_claims_to_be_tiny(
    settings: dict[str, Any],
    others_lose: bool,
    run_inline: Callable[..., Any],
    small_config: Callable[..., Config],
    tmp_path: Path,
) -> None:
    config = small_config(**{"fleet": "workstation", "max_params": "", "rounds": 0, **settings})
    params = {}
    for name, app in (("honest", real_client), ("lied", app_that_reports({"macs": 3000}))):
        with RunFolder.create(tmp_path / name) as folder:
            folder.write_config(config.to_mapping())
            run_inline(lambda grid, folder=folder: federate(grid, config, folder, Silent(), False), config, app)
            cohort = next(entry.cohort for entry in folder.read_budgets() if entry.partition == 1)
            params[name] = load_member(folder.architecture_path(cohort)).architecture.costs.params
    assert (params["lied"] < params["honest"]) == others_lose


@pytest.mark.parametrize("settings", [{"method": "fedavg"}, {"max_cohorts": 1}], ids=["fedavg", "merged"])
def test_a_device_that_trains_on_impossibly_many_images_at_once_is_left_out(
    settings: dict[str, Any], run_federation: Callable[..., Any], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Its memory suffices for that, but the smaller memory of others does not."""
    (tmp_path / "fleet.toml").write_text('[[device]]\ncount = 3\ntraining-memory = "500KB"\n')
    config = small_config(**{"fleet": str(tmp_path / "fleet.toml"), "max_params": "", "rounds": 1, **settings})
    app = app_that_reports({"training-memory-bytes": 2**61, "training-batch-size": 2**38})
    summary = run_federation(config, tmp_path / "run", client_app=app)
    assert {entry.partition for entry in RunFolder(tmp_path / "run").read_budgets()} == {1, 2}
    assert summary["outcomes"]["trained"] == 2


@pytest.mark.parametrize(
    ("settings", "milliseconds", "shares"),
    [
        ({**IMAGES, "rounds": 0}, 20.0, [1.7e308] * len(COUNTED)),
        ({"rounds": 1}, 1e-200, [1e-200] * len(COUNTED)),
        ({"rounds": 1}, 1e5, [1.7e308 if kind == "grouped" else 1e-9 for kind, _ in COUNTED]),  # it has no work
        ({"rounds": 1, "method": "fedavg", "fedavg_model": "largest"}, 20.0, [1e307] * len(COUNTED)),
    ],
    ids=["for the strides", "too small for its pace", "too large for its pace", "for its time of an image"],
)
def test_a_latency_that_nobody_can_compute_with_costs_its_device_alone(
    settings: dict[str, Any],
    milliseconds: float,
    shares: list[float],
    run_federation: Callable[..., Any],
    small_config: Callable[..., Config],
    tmp_path: Path,
) -> None:
    config = small_config(**{"fleet": "workstation", "max_params": "", **settings})
    app = app_that_reports({"profile": "sensor", "latency-ms": milliseconds, "latency-shares": shares})
    notes = Notes()
    summary = run_federation(config, tmp_path / "run", progress=notes, client_app=app)
    assert {entry.partition for entry in RunFolder(tmp_path / "run").read_budgets()} == {1, 2}
    assert summary["outcomes"]["trained"] == 2 * summary["rounds"]
    (note,) = (line for line in notes.lines if "left out" in line)
    assert re.search(r"^node 1000 is left out: .*latency-(ms|shares) must", note)
