import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from common.budget import DeviceBudget
from common.errors import CheckpointError
from common.wording import count
from server.report.build import build_report
from server.run_folder import RunFolder
from tests.server.report.fake_run import write_fake_run

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "$\\frac{1}$ $unclosed",
    "]]></svg></style><script>alert(1)</script>",
    "{{ run.config }}{% raw %}",
    "\x00\x1b[31m\r\n\u202e\U0001f600 日本",
]
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; `balanced` says whether every tag was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.balanced = True
        self.feed(text)
        self.close()
        self.balanced = self.balanced and not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.balanced = self.balanced and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def built(folder: RunFolder) -> str:
    return build_report(folder.path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_fake_run(tmp_path_factory.mktemp("run") / "whole", trouble="battery empty")


@pytest.fixture(scope="module")
def text(whole: RunFolder) -> str:
    return built(whole)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(with_names(tmp_path_factory.mktemp("run") / "a", [f"x{number}" for number in range(len(HOSTILE))]))


def with_names(path: Path, names: list[str]) -> str:
    """The page of a run whose devices call themselves so."""
    folder = write_fake_run(path, cohorts=2, devices=len(names), rounds=2, trouble="".join(names))
    entries = zip(folder.read_budgets(), names, strict=True)
    folder.write_budgets([replace(entry, name=name, profile=name) for entry, name in entries])
    return built(folder)


def test_the_report_of_a_whole_run_is_well_formed_and_has_every_part(text: str) -> None:
    page = Page(text)
    assert page.balanced
    assert page.tags.count("svg") == 2 + 3 + 1 + 3 + 3 + 1
    for heading in (
        "Result", "Learning, round by round", "What accuracy costs a device", "Budgets and their use",
        "What each architecture keeps", "The search", "Time and traffic",
        "Round by round, device by device", "Devices whose work did not count",
        "Reproduce it",
    ):  # fmt: skip
        assert heading in page.text
    for index in range(5):
        assert f"cohort-{index}" in page.text
    assert "feddac simulate --config config.toml" in page.text


def test_the_page_refers_to_nothing_outside_itself(text: str) -> None:
    assert not re.search(r"https?://|//[a-z]|@import|\bsrc\s*=", text)
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\(\s*[\"']?([^)]*)\)", text))
    page = Page(text)
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "xlink:href"))
    assert "link" not in page.tags


def test_ids_are_unique_and_every_inner_reference_resolves(text: str) -> None:
    ids = [value for name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used
    assert used <= set(ids)


def test_building_twice_gives_the_same_bytes_and_leaves_no_style_behind(whole: RunFolder, text: str) -> None:
    before = dict(matplotlib.rcParams)
    assert built(whole) == text
    assert dict(matplotlib.rcParams) == before


def test_headline_numbers_are_the_summary_s(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=3, rounds=2)
    folder.write_summary(folder.read_summary() | {"test_accuracy": 0.87654, "seconds_total": 3725.0})
    text = Page(built(folder)).text.replace("\u202f", " ")
    assert "87.7 % accuracy on digits" in text
    assert "1 h 2 min" in text
    assert "3 devices in 2 cohorts, 2 rounds with method dac" in text


def test_what_devices_say_stays_text(tmp_path: Path, harmless: Page) -> None:
    page = Page(with_names(tmp_path / "run", HOSTILE))
    assert page.balanced
    assert page.tags == harmless.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in harmless.attributes}
    for hostile in HOSTILE:
        shown = " ".join("".join(letter if letter.isprintable() else " " for letter in hostile).split())
        assert shown in page.text


def test_only_the_page_s_own_script_may_run(text: str) -> None:
    assert text.count("<script") == 1
    assert "default-src 'none'" in text
    assert "script-src 'sha256-" in text


def test_an_over_full_budget_is_marked_and_one_below_is_not(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    assert '<div class="words over">' not in built(folder)
    first, *others = folder.read_budgets()
    # The bounds are strict, so a network exactly at the bound does not fit.
    bound = next(row["macs"] for row in folder.read_summary()["cohorts"])
    folder.write_budgets([replace(first, budget=replace(first.budget, macs=bound)), *others])
    assert built(folder).count('<div class="words over">') == 1


def test_what_no_device_bounds_has_no_column(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    table = built(folder).partition("Budgets and their use")[2].partition("</table>")[0]
    assert re.findall(r'<th class="text">(.*?)</th>', table) == [
        *("Cohort", "Devices", "MACs", "Parameters", "Peak memory"),
    ]
    first, second = folder.read_budgets()
    folder.write_budgets(
        [
            replace(first, budget=DeviceBudget(training_memory_bytes=10**6), training_memory_bytes_used=250_000),
            replace(second, budget=DeviceBudget()),
        ]
    )
    page = built(folder)
    table = page.partition("Budgets and their use")[2].partition("</table>")[0]
    assert re.findall(r'<th class="text">(.*?)</th>', table) == ["Cohort", "Devices", "Training memory"]
    assert re.findall(r'data-value="([-\d.]+)">(?:<div class="words"|no bound)', table) == ["0.250000", "-1"]
    assert "No device has a bound" not in page
    folder.write_budgets([replace(first, budget=DeviceBudget())])
    assert "No device has a bound" in built(folder)


def test_the_bounds_of_a_device_without_an_architecture_are_shown(tmp_path: Path) -> None:
    """It was refused, or the search is still under way."""
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    entry = replace(folder.read_budgets()[0], cohort="", budget=DeviceBudget(params=12_000))
    folder.write_budgets([entry, replace(entry, name="other", budget=DeviceBudget(macs=5_000_000))])
    table = built(folder).partition("Budgets and their use")[2].partition("</table>")[0]
    assert re.findall(r'<th class="text">(.*?)</th>', table) == ["Cohort", "Devices", "MACs", "Parameters"]
    assert re.findall(r'data-value="-1">(.*?)</td>', table) == ["no bound", count(12_000), count(5_000_000), "no bound"]


def test_an_interrupted_run_is_reported_as_far_as_it_went(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=3, devices=6, rounds=4, finished=False)
    text = Page(built(folder)).text
    assert "This run did not finish" in text
    assert "until round 4" in text
    assert "6 devices in 3 cohorts" in text
    assert "cohort-2" in text


@pytest.mark.parametrize(
    "missing", ["metrics.jsonl", "budgets.json", "summary.json", "architectures/cohort-0.json", "architectures"]
)
def test_a_missing_piece_is_left_out(tmp_path: Path, missing: str) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    target = folder.path / missing
    for path in [*target.glob("*"), target]:
        path.rmdir() if path.is_dir() else path.unlink()
    assert Page(built(folder)).balanced


def test_a_run_that_only_began_has_a_report(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"data": "digits", "rounds": 3})
    page = Page(built(folder))
    assert page.balanced
    assert "Run on digits" in page.text
    assert "svg" not in page.tags


def test_values_that_were_not_finite_leave_gaps(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=3, finished=False)
    nan = float("nan")
    folder.append("evaluation", round=4, cohort="cohort-0", test_accuracy=nan, loss=nan, validation_accuracy=nan)
    folder.append("search", epoch=99, train_loss=nan, validation_accuracy=nan, macs=None, params=None)
    folder.append("round", round=4, cohort="cohort-1", seconds=nan)
    folder.append("step", round=4, cohort="cohort-1", step="train", bytes_down=nan, bytes_up=4, device_macs=nan)
    folder.close()
    text = built(folder)
    assert Page(text).balanced
    assert "nan" not in Page(text).text.lower()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    folder.architecture_path("cohort-1").write_text("{")
    with pytest.raises(CheckpointError, match=r"cohort-1\.json is damaged"):
        build_report(folder.path)
    with pytest.raises(CheckpointError, match="no run"):
        build_report(tmp_path)


def test_many_cohorts_devices_and_rejections_stay_readable(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=12, devices=120, rounds=1)
    for number in range(300):
        folder.append("device", round=1, device=str(number), cohort="cohort-1", status="late", seconds=1.0, reason="")
    folder.close()
    page = Page(built(folder))
    assert "and 4 more" in page.text
    assert "And 100 more in metrics.jsonl" in page.text
    assert page.text.index("cohort-2") < page.text.index("cohort-10")


def test_kept_ranges_stand_in_for_missing_sizes(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path / "run", cohorts=2, devices=2, rounds=1)
    path = folder.architecture_path("cohort-0")
    architecture = json.loads(path.read_text())
    del architecture["sizes"]
    architecture["kept"]["block0.inner"] = "0-3,7,9-12"
    path.write_text(json.dumps(architecture))
    assert "cohort-0, block0.inner: 9 of 32 channels" in built(folder)
