"""The results file: one JSON object a line, appended when a task is done."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from common.atomic import write_atomically

Row: TypeAlias = dict[str, Any]


def read_lines(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file, and without a line that a crash cut short."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def append(path: Path, row: Row) -> None:
    """One more line, on a line of its own whatever a crash left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")


def rewrite(path: Path, rows: Iterable[Row]) -> None:
    """These rows and no others."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
