"""What a run of fedgkt leaves classifies as the run says: the pair, with its features cut, or the small network."""

import json
from pathlib import Path

import pytest

import feddac
from common.data.sources import load
from common.groups import DataSettings
from feddac.cli.main import run

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

QUICK = ["--method", "fedgkt", "--fedgkt-server", "resnet11", "--fedgkt-server-epochs", "1", "--devices", "2"]
QUICK += ["--fleet", "workstation", "--max-latency-ms", "1000", "--pretraining-epochs", "4", "--rounds", "2"]
QUICK += ["--local-epochs", "2", "--accelerator", "cpu", "--engine", "inline"]


@pytest.mark.parametrize(
    ("flags", "scored", "other"),
    [
        (["--fedgkt-feature-clip", "0.5"], "cohort-0", "cohort-0-device"),
        (["--fedgkt-score", "device"], "cohort-0-device", "cohort-0"),
    ],
    ids=["pair with a clip", "small network"],
)
def test_the_scored_network_is_loaded_and_exported_as_it_was_scored(
    flags: list[str], scored: str, other: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(["simulate", *QUICK, *flags, "--out", str(out)]) == 0
    reported = json.loads((out / "summary.json").read_text())["cohorts"][0]["test_accuracy"]
    test = load(DataSettings()).test
    right = feddac.load(out, scored)(test.images).argmax(1) == test.labels
    assert float(right.float().mean()) == pytest.approx(reported, abs=1.001 / len(test))
    (exported,) = feddac.export(out, scored)
    assert exported.model.reported_accuracy == reported
    assert exported.float32.accuracy == pytest.approx(reported, abs=1.001 / len(test))
    (unscored,) = feddac.export(out, other)
    assert unscored.model.reported_accuracy is None
