"""The pages in a real browser: legible, whole and accessible on a desk and on a phone, by day and by night.

Needs the extra `pages` (pip install '.[pages]') and a Chromium; skipped where there is none.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feddac.cli.main import run
from feddac.comparison.collect import collect
from feddac.comparison.plan import read_experiment
from feddac.comparison.write import write_comparison
from server.report.build import build_report
from tests.e2e.conftest import Finished
from tests.server.report.fake_run import write_fake_run

SMALLEST_TEXT = 11.0  # pixels
RELOAD = '<meta http-equiv="refresh" content="10">'
SEARCH = ["--model", "cnn", "--warmup-epochs", "2", "--epochs-per-step", "1", "--fine-tune-epochs", "1"]
EXPERIMENT = """
title = "Two methods"
seeds = [0, 1]
[grid]
partition = ["iid", "classes:2"]
[methods.cohort]
[methods.overlap]
aggregation = "overlap"
[methods.fedavg-smallest]
method = "fedavg"
"""

# Each text with the size at which it is shown, whatever scales it.
TEXT_SIZES = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.checkVisibility()) continue;
    const size = parseFloat(getComputedStyle(element).fontSize);
    const matrix = element.ownerSVGElement ? element.getScreenCTM() : {a: 1, b: 0};
    found.push([text, size * Math.hypot(matrix.a, matrix.b)]);
  }
  return found;
}"""

# Tables of which a part is out of sight until they are scrolled.
SCROLLED = """() => [...document.querySelectorAll(".scroll, .figure")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => [one.ariaLabel, one.scrollWidth, one.clientWidth])
"""

# Elements that hide a part of what is in them, and texts that a drawing's edge hides.
CUT = """() => {
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    const hides = (overflow) => ["hidden", "clip"].includes(overflow);
    if (element.ownerSVGElement || element.tagName === "svg" || !element.checkVisibility()) continue;
    if ((hides(style.overflowX) && element.scrollWidth > element.clientWidth + 1)
        || (hides(style.overflowY) && element.scrollHeight > element.clientHeight + 1)
        || style.textOverflow === "ellipsis") found.push(element.outerHTML.slice(0, 200));
  }
  for (const text of document.querySelectorAll("svg text")) {
    const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect();
    if (inner.left < outer.left - 1 || inner.right > outer.right + 1
        || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1) found.push(text.textContent);
  }
  return found;
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `pages`")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    executable = next((path for path in map(shutil.which, names) if path), None)
    with playwright.sync_playwright() as started:
        try:
            chromium = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="needs the extra `pages`")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, finished_run: Finished) -> dict[str, Path]:
    """A page of each kind, by its name."""
    home = tmp_path_factory.mktemp("pages")
    (home / "experiment.toml").write_text(EXPERIMENT)
    assert run(["search", *SEARCH, "--max-params", "30k,20k", "--out", str(home / "search")]) == 0
    trained = ["--epochs", "2", "--out", str(home / "train")]
    assert run(["train", str(home / "search/architectures/budget-1.json"), *trained]) == 0
    plan = read_experiment(home / "experiment.toml")
    for number, one in enumerate(plan.runs):
        write_fake_run(home / "compare" / one.folder, cohorts=3 + number % 2)
    write_comparison(plan, collect(plan, home / "compare"), [], home / "compare")
    large = write_fake_run(home / "large", cohorts=12, devices=40, rounds=30, trouble="battery " * 20)
    stopped = write_fake_run(home / "stopped", rounds=3, finished=False)
    live = write_fake_run(home / "live", rounds=3, finished=False)
    return {
        "run": finished_run.folder / "report.html",
        "large": build_report(large.path),
        "stopped": build_report(stopped.path),
        "live": without_reload(build_report(live.path, live=True)),
        "search": build_report(home / "search"),
        "train": build_report(home / "train"),
        "comparison": home / "compare/comparison.html",
    }


def without_reload(page: Path) -> Path:
    """The page as it is, but that it does not load itself anew while it is looked at."""
    text = page.read_text(encoding="utf-8")
    assert RELOAD in text
    page.write_text(text.replace(RELOAD, ""), encoding="utf-8")
    return page


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["run", "large", "stopped", "live", "search", "train", "comparison"])
def test_a_page_is_legible_whole_and_accessible(
    name: str, width: int, colours: str, pages: dict[str, Path], browser: Any, axe: str, tmp_path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=colours, bypass_csp=True, java_script_enabled=True
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.screenshot(path=tmp_path / f"{name}-{width}-{colours}.png", full_page=True)

    small = {(text, round(size, 1)) for text, size in page.evaluate(TEXT_SIZES) if size < SMALLEST_TEXT - 0.05}
    assert not small
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280 and name != "large":  # twelve cohorts have twelve columns
        assert page.evaluate(SCROLLED) == []
    page.evaluate(axe)
    violations = page.evaluate("async () => (await axe.run()).violations")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in violations] == []
    assert complaints == []
    context.close()
