"""The published file of widths: read into architectures with the published counts, written, refused when damaged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.architecture import Architecture
from common.costs import thop_macs
from common.errors import ArchitectureError, BudgetError
from common.models.description import BaseNetwork
from dac.published import by_key, first_within, is_published, read_published, write_published

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
RELEASED = json.loads((Path(__file__).parents[1] / "common" / "published_architectures.json").read_text())
OUT_AND_STRIDE = [
    *[(16, 1), (24, 1), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1)],
    *[(96, 1), (160, 2), (160, 1), (160, 1), (320, 1)],
]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The released file, put together again from its facts."""
    entries = {
        key: {
            "macs": float(entry["thop_macs"]),
            "params": float(entry["params"]),
            "cfg": [[inner, *rest] for inner, rest in zip(entry["inner"], OUT_AND_STRIDE, strict=True)],
        }
        for key, entry in RELEASED.items()
    }
    path = tmp_path / "net_cfg.json"
    path.write_text(json.dumps(entries))
    return path


def test_every_released_architecture_has_the_released_counts(released: Path) -> None:
    entries = read_published(released, BASE)
    assert list(entries) == list(RELEASED)
    assert len(entries) == 75
    for entry in entries.values():
        assert entry.architecture.costs.params == entry.params
        assert thop_macs(entry.architecture) == entry.macs


def test_a_width_keeps_the_first_channels_of_its_block(released: Path) -> None:
    architecture = by_key(read_published(released, BASE), "195")
    assert architecture.indices["block0.inner"] == tuple(range(8))
    assert architecture.sizes["block16.inner"] == 215
    assert architecture.sizes["stage7"] == 320


@pytest.mark.parametrize(
    ("params", "key"), [(714_658, "128"), (840_828, "39"), (1_096_978, "15"), (1_338_288, "10"), (2_932_095, "0")]
)
def test_a_budget_takes_the_first_entry_strictly_below_it(released: Path, params: int, key: str) -> None:
    entries = read_published(released, BASE)
    assert first_within(entries, 113_329_664, params) == key
    assert first_within(entries, 113_329_664, entries[key].params + 1) == key
    with pytest.raises(BudgetError, match="the smallest have 26,128,384 and 714,032"):
        first_within(entries, 113_329_664, 714_032)


def test_a_budget_below_every_entry_is_refused(released: Path) -> None:
    with pytest.raises(BudgetError, match="no architecture of the file"):
        first_within(read_published(released, BASE), 1e6, 1e6)


def test_what_is_written_is_read_and_the_largest_comes_first(tmp_path: Path) -> None:
    base = replace(BASE, width=0.5, strides=(1, 2, 2, 2, 1, 2, 1), stem_stride=2)
    small = Architecture.with_kept(base, {"block3.inner": range(9), "block16.inner": range(100)})
    path = tmp_path / "net_cfg.json"
    write_published(path, {"small": small, "large": Architecture.full(base)})
    entries = read_published(path, base)
    assert list(entries) == ["large", "small"]
    assert {key: entry.architecture for key, entry in entries.items()} == {
        "small": small,
        "large": Architecture.full(base),
    }
    assert (entries["small"].macs, entries["small"].params) == (thop_macs(small), small.costs.params)


def test_our_own_files_are_told_apart(released: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours.json"
    ours.write_text('{"format": "feddac-architecture"}')
    assert is_published(released)
    assert not is_published(ours)


def test_another_model_cannot_be_written_or_read(released: Path, tmp_path: Path) -> None:
    cnn = BaseNetwork("cnn", (3, 32, 32), 10)
    with pytest.raises(ArchitectureError, match="mobilenet_v2, not cnn"):
        write_published(tmp_path / "x.json", {"a": Architecture.full(cnn)})
    with pytest.raises(ArchitectureError, match="--model mobilenet_v2"):
        read_published(released, cnn)


def test_an_unknown_key_is_refused_with_the_known_ones(released: Path) -> None:
    with pytest.raises(ArchitectureError, match="no architecture '196'; the file has 0, 1, 2"):
        by_key(read_published(released, BASE), "196")


@pytest.mark.parametrize(
    ("base", "message"),
    [(replace(BASE, width=0.5), "change --width"), (replace(BASE, strides=(1, 2, 2, 2, 1, 2, 1)), "change --strides")],
)
def test_another_base_network_is_refused(released: Path, base: BaseNetwork, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        read_published(released, base)


ENTRY: dict[str, Any] = {
    "macs": 1.0,
    "params": 1.0,
    "cfg": [[inner, *rest] for inner, rest in zip(RELEASED["0"]["inner"], OUT_AND_STRIDE, strict=True)],
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ("[]", "not a JSON object"),
        ("{}", "holds no architecture"),
        ('{"0": 3}', "macs, params and cfg"),
        (json.dumps({"0": {**ENTRY, "cfg": ENTRY["cfg"][1:]}}), "17 blocks"),
        (json.dumps({"0": {**ENTRY, "cfg": [[1.5, 16, 1], *ENTRY["cfg"][1:]]}}), "block 0 must be"),
        (json.dumps({"0": {**ENTRY, "cfg": [[33, 16, 1], *ENTRY["cfg"][1:]]}}), "1 to 32 channels, not 33"),
        (json.dumps({"0": {**ENTRY, "cfg": [[0, 16, 1], *ENTRY["cfg"][1:]]}}), "1 to 32 channels, not 0"),
        (json.dumps({"0": {**ENTRY, "macs": "many"}}), "macs must be a positive number"),
        (json.dumps({"0": {**ENTRY, "params": float("nan")}}), "NaN is not JSON"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "net_cfg.json"
    path.write_text(content)
    with pytest.raises(ArchitectureError, match=message) as caught:
        read_published(path, BASE)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="cannot read"):
        read_published(tmp_path / "none.json", BASE)
