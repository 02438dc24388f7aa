"""`feddac describe`: what it prints is what the description says, for names and for files."""

import re
from pathlib import Path

import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.models.description import BaseNetwork
from dac.files import Member, save_member
from feddac.cli.main import run


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def figures(text: str, name: str) -> list[str]:
    """The numbers of the row that starts with `name`."""
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return re.findall(r"[\d,]+", line.strip().removeprefix(name))


def test_a_network_by_name_and_by_three_counters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", "mobilenet_v2", "--stem-stride", "2"]) == 0
    text = capsys.readouterr().out
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2)
    costs = Architecture.full(base).costs
    assert figures(text, "FedDAC")[:3] == [f"{one:,}" for one in (costs.macs, costs.params, costs.peak_memory_bytes)]
    assert figures(text, "torch's FlopCounterMode") == [f"{costs.macs:,}", f"{costs.params:,}"]
    assert figures(text, "block2.inner")[:2] == ["144", "144"]
    assert "no: it is the image" in text
    assert re.search(r"^ +blocks\.2 +yes", text, re.M)


def test_a_file_shows_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture = Architecture.with_kept(BaseNetwork("resnet8", (1, 8, 8), 4), {"stem_conv": range(5)}, ["blocks.0"])
    state = architecture.build(0).state_dict()
    path = tmp_path / "small.json"
    save_member(path, Member(architecture, DeviceBudget(), state, 0.5), name="small", parent=None, seed=0)
    assert run(["describe", str(path)]) == 0
    text = capsys.readouterr().out
    assert figures(text, "stem_conv")[:2] == ["1", "5"]
    assert re.search(r"^ +blocks\.0 +no", text, re.M)
    assert "blocks.0.conv1 " not in text.partition("Channel groups")[0]
    macs = f"{architecture.costs.macs:,}"
    assert (figures(text, "FedDAC")[0], figures(text, "torch's FlopCounterMode")[0]) == (macs, macs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg"], "unknown base network 'vgg'; known are mobilenet_v2,"),
        (["no.such:network"], "cannot find the network no.such:network"),
        (["cnn", "--input-shape", "32x32"], "--input-shape is written as 3x32x32, not '32x32'"),
        (["cnn", "--model", "mlp"], "--model goes with an architecture file"),
        (["one.json", "--classes", "4"], "leave out all options but --model"),
        (["one.json"], "cannot read the architecture file one.json"),
        (["torchvision:resnet18", "--width", "0.5"], "has neither --width nor --strides"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error
