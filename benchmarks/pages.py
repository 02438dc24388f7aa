"""Tables and plots of docs/ from the results that are committed beside them: nobody copies a number by hand.

    python benchmarks/pages.py [--check]

A table stands between two comments in a page and is written anew:

    <!-- results/peers.json: accuracy of all devices, difference [95 %], p (Holm) -->
    <!-- end -->

The file is the comparison.json of `feddac compare`; the words are headings of its comparison.md, for one table in each
setting. `HEADING by setting` instead has a row for every method and a column for every setting. Each file
docs/results/X.json also gives docs/X.svg and docs/X-costs.svg, each docs/quality*.jsonl its page and plot. With
`--check` nothing is written, and the exit status is 1 if a page says something else than its results.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality.page import write_page
from benchmarks.quality.rows import read_lines
from feddac.comparison.figures import costs, overview, standalone_svg
from feddac.comparison.from_json import read_comparison
from feddac.comparison.tables import HEADINGS, cell_tables, columns, markdown_table
from server.report.drawing import marks_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(?<=<!-- )(results/\S+\.json): (.+?)( -->\n)((?:(?!<!-- results/).)*?)(?=<!-- end -->)", re.DOTALL)
BY_SETTING = " by setting"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of date")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in pages(DOCS) if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(DOCS.parent)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(text, "utf-8")
    return int(check and bool(stale))


def pages(docs: Path) -> Iterator[tuple[Path, str]]:
    """Every file that results decide about, and what it should say."""
    for path in sorted(docs.glob("*.md")):
        text = path.read_text("utf-8")
        if BLOCK.search(text):
            yield path, BLOCK.sub(lambda found: _filled(docs, found), text)
    for path in sorted(docs.glob("results/*.json")):
        experiment, results = read_comparison(path)
        marks = marks_of(experiment.methods)
        yield docs / f"{path.stem}.svg", standalone_svg(overview, results, marks)
        yield docs / f"{path.stem}-costs.svg", standalone_svg(costs, results, marks)
    for path in sorted(docs.glob("quality*.jsonl")):
        yield from _quality(path)


def _filled(docs: Path, found: re.Match[str]) -> str:
    """The block with the table that its comment asks for."""
    name, wanted, end, _ = found.groups()
    return f"{name}: {wanted}{end}{table(docs / name, wanted)}"


def table(path: Path, wanted: str) -> str:
    """The table, or tables, that a comment asks for, of the comparison at `path`; ValueError for an unknown heading."""
    tables = cell_tables(read_comparison(path)[1])
    asked = [wanted.removesuffix(BY_SETTING)] if wanted.endswith(BY_SETTING) else wanted.split(", ")
    unknown = set(asked) - set(HEADINGS)
    if unknown:
        raise ValueError(f"a comparison has no column {min(unknown)!r}; there are {', '.join(HEADINGS)}")
    if wanted.endswith(BY_SETTING):
        [column] = columns(*asked)
        headings = ("method", *(one.title for one in tables))
        names = [row[0] for row in tables[0].rows]
        rows = [(name, *(one.rows[n][column] for one in tables)) for n, name in enumerate(names)]
        return markdown_table(headings, rows, range(len(headings)))
    shown = columns("method", *asked)
    parts = [markdown_table(HEADINGS, one.rows, shown) for one in tables]
    if len(parts) == 1:
        return parts[0]
    return "\n".join(f"**{one.title}**\n\n{part}" for one, part in zip(tables, parts, strict=True))


def _quality(results: Path) -> Iterator[tuple[Path, str]]:
    """The page and plot of benchmarks/quality."""
    [key] = {row["protocol"] for row in read_lines(results)}
    with tempfile.TemporaryDirectory() as folder:
        for path in write_page(results, key, Path(folder)):
            yield results.with_name(path.name), path.read_text("utf-8")


if __name__ == "__main__":
    sys.exit(main())
