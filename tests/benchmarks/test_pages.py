"""The pages in docs/ say what the results beside them say."""

import json
from pathlib import Path

import pytest

from benchmarks.pages import DOCS, pages, table

PEERS = DOCS / "results" / "peers-quick.json"


def test_every_page_agrees_with_its_results() -> None:
    # Not the plots, whose bytes depend on the version of matplotlib.
    stale = [path.name for path, text in pages(DOCS) if path.suffix == ".md" and path.read_text("utf-8") != text]
    assert not stale, "python benchmarks/pages.py writes them anew"


def test_a_changed_result_changes_the_table_its_means_and_its_tests(tmp_path: Path) -> None:
    content = json.loads(PEERS.read_text("utf-8"))
    run = content["cells"][0]["methods"][0]["runs"][0]
    run["fleet_accuracy"] += 0.3
    changed = tmp_path / "peers-quick.json"
    changed.write_text(json.dumps(content), "utf-8")
    wanted = "accuracy of all devices, difference [95 %], p (Holm)"
    before, after = (table(path, wanted).splitlines()[2:] for path in (PEERS, changed))
    assert all(one != other for one, other in zip(before, after, strict=True))  # the baseline is in every difference


def test_a_table_by_setting_has_a_row_for_each_method_and_a_column_for_each_setting(tmp_path: Path) -> None:
    content = json.loads(PEERS.read_text("utf-8"))
    [cell] = content["cells"]
    content["cells"] = [{**cell, "cell": name, "labels": {"fleet": name}} for name in ("even", "skewed")]
    (tmp_path / "two.json").write_text(json.dumps(content), "utf-8")
    heading, _, *rows = table(tmp_path / "two.json", "accuracy by setting").splitlines()
    assert heading == "| method | fleet even | fleet skewed |"
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [one["method"] for one in cell["methods"]]


@pytest.mark.parametrize("wanted", ["beauty", "accuracy, beauty", "beauty by setting"])
def test_a_heading_that_does_not_exist_is_an_error(wanted: str) -> None:
    with pytest.raises(ValueError, match="'beauty'"):
        table(PEERS, wanted)
