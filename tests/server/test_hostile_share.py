"""Whole runs in which one of five devices works against the others in every round, within what admission allows."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from client.app import app as real_client
from common.architecture import Architecture
from common.config import Config
from common.errors import FederationError
from common.messages import Task
from common.progress import Silent
from server.federation import federate
from server.run_folder import RunFolder

HOSTILE = 2
LIE = 2**40
POINTS = 0.03
"""What protection may cost: a median of five models is not their mean, hostile or not."""


def hostile_app(factor: float, lies: bool = False) -> ClientApp:
    """The real client, except that one device sends back its update times `factor`, and may lie about its samples."""
    app = ClientApp()

    def is_hostile(context: Context) -> bool:
        return int(context.node_config["partition-id"]) == HOSTILE

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        reply = real_client(message, context)
        if lies and is_hostile(context):
            reply.content.config_records["report"]["samples"] = LIE
        return reply

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = real_client(message, context)
        if is_hostile(context):
            sent = Task.decode(message.content, Architecture).weights
            update = reply.content.array_records["arrays"]["weights"].numpy() - sent
            weights = (sent + np.float32(factor) * update).astype(np.float32)
            reply.content["arrays"] = ArrayRecord({"weights": Array(weights)})
            if lies:
                reply.content.metric_records["result"]["num-examples"] = LIE
        return reply

    return app


@pytest.fixture
def accuracy(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], tmp_path: Path
) -> Callable[..., float]:
    """The mean test accuracy of the last three evaluations of five devices that train one model from scratch.

    Training is over by then; before, a device that works against the others makes them slower under any protection.
    """

    def run(app: ClientApp = real_client, **settings: Any) -> float:
        training = {"rounds": 20, "evaluate_every": 2, "local_epochs": "2", "learning_rate": 0.1, "momentum": 0.8}
        config = small_config(
            **{"devices": 5, "initial_weights": "random", "fine_tune_epochs": 0, "device_evaluation": False},
            **{**training, **settings},
        )
        with RunFolder.create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}") as folder:
            run_inline(lambda grid: federate(grid, config, folder, Silent(), False), config, app)
            assert {event["status"] for event in folder.events("device")} == {"trained"}
            assert all(event.get("protected", True) for event in folder.events("round"))
            evaluations = [event["test_accuracy"] for event in folder.events("evaluation")]
        assert len(evaluations) == 11  # of one cohort
        return statistics.fmean(evaluations[-3:])

    return run


@pytest.mark.slow
@pytest.mark.parametrize("robust", ["median", "trimmed-mean"])
def test_a_device_that_sends_the_opposite_is_outvoted(robust: str, accuracy: Callable[..., float]) -> None:
    clean, opposite = accuracy(), hostile_app(-10.0)
    assert clean > 0.9
    assert accuracy(opposite) < 0.5
    assert accuracy(opposite, robust_aggregation=robust) > clean - POINTS


@pytest.mark.slow
def test_a_device_that_exaggerates_is_outvoted_or_cut(accuracy: Callable[..., float]) -> None:
    clean, louder = accuracy(), hostile_app(1000.0)
    with pytest.raises(FederationError, match="training diverged"):
        accuracy(louder)  # the others cannot even train what the mean makes of it
    assert accuracy(louder, robust_aggregation="median") > clean - POINTS
    assert accuracy(louder, clip_norm=1.0) > clean - POINTS


@pytest.mark.slow
def test_a_device_that_lies_about_its_samples_has_no_more_than_its_share(accuracy: Callable[..., float]) -> None:
    liar = hostile_app(-1.0, lies=True)
    assert accuracy(liar) < 0.5  # its model is the cohort's
    assert accuracy(liar, max_device_share=0.2) > 0.7


@pytest.mark.slow
def test_a_device_that_lies_about_its_samples_is_outvoted(accuracy: Callable[..., float]) -> None:
    clean, liar = accuracy(), hostile_app(-1.0, lies=True)
    assert accuracy(liar, robust_aggregation="median") > clean - POINTS


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("robust", ["none", "median", "trimmed-mean"])
def test_a_device_that_lies_about_its_samples_does_not_stop_other_cohorts_under_overlap(
    alone: bool, robust: str, run_inline: Callable[..., Any], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Partition 2 claims 2^40 images; the cohort it is not in ends within two points of a run in which it does not."""
    small, large = '[[device]]\nname = "small"\ncount = {}\nparams = "6k"\n', '[[device]]\nname = "large"\ncount = {}\n'
    fleet = small.format(2) + large.format(1) + small.replace("small", "little").format(3)
    if not alone:
        fleet = large.format(4) + small.format(3)
    (tmp_path / "fleet.toml").write_text(fleet)
    training = {"rounds": 20, "evaluate_every": 2, "local_epochs": "2", "learning_rate": 0.1, "momentum": 0.8}
    config = small_config(
        **{"devices": 6 + (not alone), "fleet": str(tmp_path / "fleet.toml"), "max_params": "", "warmup_epochs": 2},
        **{"aggregation": "overlap", "robust_aggregation": robust, "initial_weights": "random", **training},
    )
    ends = []
    for name, app in (("clean", real_client), ("lied", hostile_app(1.0, lies=True))):
        with RunFolder.create(tmp_path / name) as folder:
            run_inline(lambda grid, folder=folder: federate(grid, config, folder, Silent(), False), config, app)
            (others,) = {entry.cohort for entry in folder.read_budgets() if entry.partition == 5}
            evaluations = [one["test_accuracy"] for one in folder.events("evaluation") if one["cohort"] == others]
            ends.append((evaluations[0], statistics.fmean(evaluations[-3:])))
    (start, clean), (_, lied) = ends
    assert clean > start + 0.3, "the others learn"
    assert lied > clean - 0.02
