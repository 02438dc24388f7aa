"""`feddac export`: one ONNX file that computes what PyTorch computes, its size and speed printed."""

from pathlib import Path

import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.models.description import BaseNetwork
from dac.export import read_metadata
from dac.files import Member, save_member
from simulation.cli import run

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def saved(folder: Path, base: BaseNetwork) -> Path:
    path = folder / "member.json"
    architecture = Architecture.full(base)
    member = Member(architecture, DeviceBudget(), architecture.build(0).state_dict(), 0.5)
    save_member(path, member, name="m", parent=None, seed=0)
    return path


@pytest.fixture
def member(tmp_path: Path) -> Path:
    return saved(tmp_path, BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25))


def test_the_file_is_written_beside_the_architecture(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(member)]) == 0
    path = member.with_suffix(".onnx")
    output = capsys.readouterr().out
    assert str(path) in output
    assert "equal to PyTorch" in output
    assert f"{path.stat().st_size / 1e6:.2f} MB" in output
    assert "ms per image on one thread" in output
    assert "mean" not in read_metadata(path)


def test_with_data_it_tests_quantises_and_notes_the_normalisation(
    member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phone.onnx"
    assert run(["export", str(member), "--data", "digits", "--int8", "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("test accuracy") == 2
    assert out.with_suffix(".int8.onnx").stat().st_size < out.stat().st_size
    assert {"mean", "std", "macs", "params", "peak_memory_bytes"} <= set(read_metadata(out))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{member}", "--int8"], 2, "--int8 needs images to calibrate with"),
        (["{missing}"], 1, "cannot read the architecture file"),
        (["{other}", "--data", "digits"], 1, "is for images of 3x16x16 and 10 classes, but digits has 1x8x8"),
        ([], 2, "Missing argument"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], code: int, message: str, member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = saved(elsewhere, BaseNetwork("cnn", (3, 16, 16), 10))
    names = {"{member}": member, "{missing}": tmp_path / "none.json", "{other}": other}
    assert run(["export", *(str(names.get(one, one)) for one in arguments)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_that_were_changed_are_noticed(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = member.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(content)
    assert run(["export", str(member)]) == 1
    assert "SHA-256" in capsys.readouterr().err
