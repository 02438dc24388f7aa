"""`feddac device`: figures of this machine, for people, for programs and for a SuperNode."""

import json
from dataclasses import replace

import pytest
from flwr.common.config import parse_config_args

from client.identity import identify
from common.budget import DeviceBudget
from common.fleet import PROFILES, DeviceProfile
from common.groups import FleetSettings
from common.models.description import BaseNetwork
from common.rates import COUNTED, KINDS
from common.search_space import SearchSpace
from feddac.cli.main import run


def test_json_holds_positive_figures_and_the_budget_that_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "--json", "--max-latency-ms", "5"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert all(document[key] > 0 for key in ("memory_bytes", "storage_bytes"))
    assert set(document["rates"]) == set(KINDS)
    assert all(document["rates"][kind]["mac"] > 0 for kind in ("conv", "pointwise", "linear"))
    latency = document["budget"]["latency"]
    assert latency["milliseconds"] == 5.0
    rates = [document["rates"][kind][figure] for kind, figure in COUNTED]
    assert latency["shares"] == pytest.approx([seconds / 0.005 for seconds in rates])
    assert document["budget"]["params"] == int(0.75 * document["storage_bytes"]) // 4
    assert document["budget"]["peak_memory_bytes"] == int(0.75 * document["memory_bytes"]) // 4 * 4


def test_a_supernode_takes_the_line_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    identity = identify(parse_config_args([document["node_config"]]), FleetSettings())
    assert identity.profile == "declared"
    declared = DeviceBudget.from_dict(document["budget"])
    # the device measures its own rates once more, by which the milliseconds that it declares are judged
    assert replace(identity.budget, latency=None) == replace(declared, latency=None)
    assert identity.budget.latency is not None
    assert declared.latency is not None
    assert identity.budget.latency.milliseconds == declared.latency.milliseconds == 20


def test_the_table_fits_a_terminal_and_ends_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device"]) == 0
    table, _, line = capsys.readouterr().out.partition("To declare it, start the device with:\n")
    assert line.startswith("--node-config 'partition-id=0 device-name=")
    assert "20 ms per image" in table
    assert all(len(row) <= 80 for row in table.splitlines())


def test_an_impossible_latency_is_a_usage_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "--max-latency-ms", "0"]) == 2
    assert "max-latency-ms must be above 0" in capsys.readouterr().err


def test_a_preset_chooses_the_space_that_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces: list[SearchSpace] = []

    def measured(base: BaseNetwork, space: SearchSpace) -> DeviceProfile:
        spaces.append(space)
        return PROFILES["phone"]

    monkeypatch.setattr("client.measure.measured_profile", measured)
    assert run(["device", "--preset", "paper"]) == 0
    assert run(["device", "--recipe", "paper", "--search-space", "inner", "--channel-multiple", "1"]) == 0
    assert spaces[0].kind == spaces[1].kind == "inner"
    assert spaces[0].multiple == spaces[1].multiple
    assert run(["device", "--preset", "nonsense"]) == 2
    assert "preset must be one of" in capsys.readouterr().err
