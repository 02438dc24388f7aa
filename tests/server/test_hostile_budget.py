"""A device that claims to be smaller than it is, and what the others are given then."""

from collections.abc import Callable
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
from common.search_space import SearchSpace
from dac.files import load_member
from dac.strides import LADDER, base_of
from server.federation import federate
from server.run_folder import RunFolder

SIDE, WIDTH = 32, 0.25
STRIDES = {"stem_stride": LADDER[0][0], "strides": LADDER[0][1]}


def tiny_macs() -> int:
    """What the smallest network fits only if images are reduced sixteen times as much as in the publication."""
    stem, strides = LADDER[4]
    description = describe(base_of(ModelSettings(width=WIDTH, stem_stride=stem, strides=strides), (1, SIDE, SIDE), 10))
    return int(description.costs(SearchSpace().floor_sizes(description)).macs / 0.9) + 2


def app_that_claims(macs: int) -> ClientApp:
    """The real client, except that the device of partition 0 reports this bound on MACs."""
    app = ClientApp()

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        reply = real_client(message, context)
        if int(context.node_config["partition-id"]) == 0:
            reply.content.config_records["report"]["macs"] = macs
        return reply

    return app


@pytest.mark.parametrize("fixed", [False, True], ids=["strides auto", "strides given"])
def test_one_device_decides_everyones_strides_unless_they_are_given(
    fixed: bool, run_inline: Callable[..., Any], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = small_config(
        **{"model": "mobilenet_v2", "width": WIDTH, "image_size": SIDE, "train_images": 60, "test_images": 20},
        **{"fleet": "workstation", "max_params": "", "warmup_epochs": 0, "fine_tune_epochs": 0, "rounds": 0},
        **(STRIDES if fixed else {}),
    )
    chosen, reached = {}, {}
    for name, app in (("honest", real_client), ("lied", app_that_claims(tiny_macs()))):
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
    for name, app in (("honest", real_client), ("lied", app_that_claims(3000))):
        with RunFolder.create(tmp_path / name) as folder:
            folder.write_config(config.to_mapping())
            run_inline(lambda grid, folder=folder: federate(grid, config, folder, Silent(), False), config, app)
            cohort = next(entry.cohort for entry in folder.read_budgets() if entry.partition == 1)
            params[name] = load_member(folder.architecture_path(cohort)).architecture.costs.params
    assert (params["lied"] < params["honest"]) == others_lose
