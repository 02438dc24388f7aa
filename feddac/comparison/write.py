"""The files of a finished comparison."""

from collections.abc import Sequence
from pathlib import Path

from common.atomic import write_atomically
from feddac.comparison.collect import CellResult
from feddac.comparison.csv_file import comparison_csv, differences_csv
from feddac.comparison.execute import Failure
from feddac.comparison.figures import costs, overview, standalone_svg
from feddac.comparison.json_file import to_json
from feddac.comparison.latex import comparison_tex
from feddac.comparison.page import render
from feddac.comparison.plan import Experiment
from feddac.comparison.tables import cell_tables, markdown, notes
from server.json_files import write_json
from server.report.drawing import marks_of


def write_comparison(
    experiment: Experiment, results: Sequence[CellResult], failed: Sequence[Failure], out: Path
) -> list[Path]:
    """Write comparison.json, .md, .svg, .csv, .tex and .html, costs.svg and differences.csv; returns their paths."""
    failures = [(one.run.title, one.reason) for one in failed]
    paths = [out / f"comparison.{kind}" for kind in ("json", "md", "svg", "csv", "tex", "html")]
    write_json(paths[0], to_json(experiment, results, {one.run.folder.as_posix(): one.reason for one in failed}))
    write_atomically(paths[1], markdown(experiment, results, failures).encode())
    marks = marks_of(experiment.methods)
    write_atomically(paths[2], standalone_svg(overview, results, marks).encode())
    write_atomically(paths[3], comparison_csv(results).encode())
    tex = comparison_tex(experiment.title, cell_tables(results), notes(experiment))
    write_atomically(paths[4], tex.encode())
    write_atomically(paths[5], render(experiment, results, failures).encode())
    paths += [out / "costs.svg", out / "differences.csv"]
    write_atomically(paths[-2], standalone_svg(costs, results, marks).encode())
    write_atomically(paths[-1], differences_csv(experiment.baseline, results).encode())
    return paths
