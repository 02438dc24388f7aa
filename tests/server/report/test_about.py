"""What the page says beyond the rounds: how sure, better or worse, class by class, who has what, on what it ran."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import Feed
from common.progress import Silent
from server.quality import quality_of
from server.report.build import build_report
from server.report.interval import interval
from server.report.live import LiveReport
from server.report.partition import heat_map
from server.report.record import read_run
from tests.server.report.fake_run import write_fake_run


def test_the_interval_by_hand() -> None:
    assert interval(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    low, high = interval(1.0, 10)
    assert [low, high] == pytest.approx([10 / (10 + 1.959964**2), 1.0])
    assert all(map(math.isnan, (*interval(math.nan, 10), *interval(0.5, math.nan), *interval(0.5, 0))))


def test_accuracy_class_by_class_by_hand() -> None:
    class Bright(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([images.mean((1, 2, 3)) <= 0.5, images.mean((1, 2, 3)) > 0.5, images[:, 0, 0, 0] > 9], 1)

    pixels = torch.tensor([0, 255, 255, 0, 255], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 2, 2).contiguous()
    labels = torch.tensor([0, 0, 1, 1, 1])
    feed = Feed(Images(pixels, labels), Preprocessor(torch.zeros(1), torch.ones(1), "none"), 2)
    found = list(quality_of(_as_float(Bright()), feed, torch.device("cpu")).class_accuracy)
    assert found == [0.5, pytest.approx(2 / 3), None]


def _as_float(module: nn.Module) -> nn.Module:
    class Floats(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return module(images).float()  # type: ignore[no-any-return]

    return Floats()


def with_facts(path: Path, before: float = 0.5) -> Path:
    folder = write_fake_run(path, cohorts=2, devices=4, rounds=3)
    facts = {
        "accuracy_before": before,
        "test_images": 400,
        "class_names": ["cat", "<dog>"],
        "class_accuracy": {"cohort-0": [0.75, None], "cohort-1": [1.0, 0.25]},
        "versions": {"feddac": "1.2.3", "torch": "9.9"},
        "host": {"name": "lab", "system": "Linux", "cpus": 7, "gpu": None},
        "date": "2020-02-03",
    }
    folder.write_summary({**folder.read_summary(), **facts})
    folder.write_partition(["cat", "<dog>"], {"0": [10, 0], "1": [5, 5], "2": [0, 1], "3": [2, 2]})
    return folder.path


def test_the_page_says_it_all(tmp_path: Path) -> None:
    page = build_report(with_facts(tmp_path / "run")).read_text()
    for text in ("Before the first round", "95 % interval", "from\n400 images", "feddac 1.2.3", "7 CPUs", "2020-02-03"):
        assert text in page
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "The rounds made it worse" not in page
    assert "refresh" not in page


def test_the_page_tells_test_accuracy_from_own_accuracy(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=4, rounds=2)
    page = build_report(folder.path).read_text().replace("\u202f", " ")
    mean = (1 + 7 / 10 + 9 / 11 + 11 / 12) / 4
    tile = page.partition("Accuracy on the devices' own images, mean over devices</dt>")[2].partition("</div>")[0]
    assert f"<dd>{100 * mean:.1f} %</dd>" in tile
    assert "42 images that 4 devices" in tile
    assert page.count("<th>Test accuracy</th><th>Own accuracy</th>") == 2  # of cohorts, and of devices
    rows = page.partition("Devices, one by one")[2].split("<tr>")[2:]
    assert [("70.0 %" in row, "10 images" in row) for row in rows[:4]].count((True, True)) == 1
    unfinished = write_fake_run(tmp_path / "unfinished", rounds=2, finished=False)
    (unfinished.path / "metrics.jsonl").write_text(
        "".join(line for line in unfinished.metrics_path.open() if "device_evaluation" not in line)
    )
    assert "Own accuracy" not in build_report(unfinished.path).read_text()


def test_rounds_that_made_it_worse_are_pointed_out(tmp_path: Path) -> None:
    folder = with_facts(tmp_path / "run", before=0.9999)
    accuracy = json.loads((folder / "summary.json").read_text())["test_accuracy"]
    assert accuracy < 0.98
    assert "The rounds made it worse" in build_report(folder).read_text()


def test_less_than_chance_can_explain_is_no_warning(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run")
    summary = folder.read_summary()
    before = summary["test_accuracy"] + 0.01
    folder.write_summary({**summary, "test_images": 300, "accuracy_before": before})
    assert "The rounds made it worse" not in build_report(folder.path).read_text()


def test_the_heat_map_is_darkest_where_most_images_are(tmp_path: Path) -> None:
    from server.run_folder import RunFolder

    rows = heat_map(read_run(RunFolder.open(with_facts(tmp_path / "run"))))
    assert [(row.device, [one.count for one in row.squares], row.total) for row in rows] == [
        ("0", [10, 0], 10),
        ("1", [5, 5], 10),
        ("2", [0, 1], 1),
        ("3", [2, 2], 4),
    ]
    assert (rows[0].squares[0].background, rows[0].squares[0].ink) == ("rgb(86,160,211)", "#1f2328")
    assert (rows[0].squares[1].background, rows[0].squares[1].ink) == ("rgb(243,248,252)", "#1f2328")


def test_a_live_page_reloads_itself_and_is_not_drawn_too_often(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", finished=False)
    # the clock when it is made; too early; before and after the first build (one second); too early; the second build
    times = iter([0.0, 9.0, 10.0, 11.0, 29.0, 31.0, 32.0])
    live = LiveReport(folder.path, Silent(), lambda: next(times))
    live.update()
    assert not folder.report_path.exists()
    live.update()
    page = folder.report_path.read_text()
    assert '<meta http-equiv="refresh" content="10">' in page
    assert "This run is under way" in page
    folder.report_path.unlink()
    live.update()
    assert not folder.report_path.exists()
    live.update()
    assert folder.report_path.exists()


def test_a_page_that_cannot_be_drawn_does_not_end_the_run(tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    times = iter(range(0, 1000, 100))
    live = LiveReport(tmp_path / "nowhere", Notes(), lambda: float(next(times)))
    live.update()
    live.update()
    assert len(notes) == 1
    assert "could not be written" in notes[0]
