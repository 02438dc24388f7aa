"""A round begins with a device that can take part: the run waits for one, as long as a round may take."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from common.budget import DeviceBudget
from common.errors import FederationError
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid
from tests.server.helpers import CountingGrid, Notes
from tests.server.test_changing_devices import Reports

EVERYONE = ["device-00", "device-01", "device-02"]
AWAY_SECONDS = 1.0


class AwayGrid(CountingGrid):
    """After the second round nobody is online for a while."""

    seconds = AWAY_SECONDS
    back = 0.0

    def get_node_ids(self) -> list[int]:
        if self.trains == 2 and not self._pending:
            self.back = self.back or time.monotonic() + self.seconds
        return [] if time.monotonic() < self.back else self.come_back()

    def come_back(self) -> list[int]:
        return super().get_node_ids()


class GoneGrid(AwayGrid):
    """After the second round nobody comes back."""

    seconds = 3600.0


class RestartedGrid(AwayGrid):
    """Those who come back are new nodes."""

    def come_back(self) -> list[int]:
        if self.back:
            self._node_configs = {2000 + i: one for i, one in enumerate(self._node_configs.values())}
            self.back = 0.0
            self.trains += 1  # they leave only once
        return super().come_back()


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def run(
    run_inline: Callable[..., Any], small_config: Callable[..., Any], run_folder: RunFolder, notes: Notes
) -> Callable[..., Any]:
    """Run a small federation on a grid, or with a client app."""

    def start(how: dict[str, Any], **settings: Any) -> None:
        config = small_config(**settings)
        run_inline(lambda grid: federate(grid, config, run_folder, notes, False), config, **how)

    return start


@pytest.mark.parametrize("grid_class", [AwayGrid, RestartedGrid])
def test_a_moment_without_any_device_costs_no_round(
    grid_class: type[InlineGrid], run: Callable[..., None], run_folder: RunFolder, notes: Notes
) -> None:
    run({"grid_class": grid_class}, rounds=4)
    assert [event["trained"] for event in run_folder.events("round")] == [EVERYONE] * 4
    waits = [note for note in notes.lines if "online" in note]
    assert waits == ["round 3: no device is online; waiting up to 600 s for one"]


def test_devices_that_stay_away_end_the_run_after_three_rounds_time(run: Callable[..., None]) -> None:
    start = time.monotonic()
    with pytest.raises(FederationError, match="in 3 rounds in a row; no device is online"):
        run({"grid_class": GoneGrid}, rounds=9, round_timeout=0.5)
    assert time.monotonic() - start >= 3 * 0.5


def test_nobody_is_waited_for_where_those_online_may_not_take_part(run: Callable[..., None]) -> None:
    """After the first round no device can hold a network any more: that would not pass with time."""
    reports = Reports({(name, 2): DeviceBudget(params=20) for name in EVERYONE})
    with pytest.raises(FederationError, match="in 3 rounds in a row; no device that is online may take part"):
        run({"client_app": reports.app}, rounds=9, handshake_every=1, round_timeout=3600)
