"""Features on disk: what is read is what was put, nothing half written is seen, and memory does not grow."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from server.feature_bank import PARTIAL, FeatureBank


def arrays(rows: int, start: int = 0) -> dict[str, np.ndarray]:
    values = np.arange(start, start + rows)
    return {"features": (values[:, None] * np.ones((1, 4))).astype("<f2"), "ids": values.astype("<i4")}


def test_rows_are_numbered_over_all_names_in_their_order(tmp_path: Path) -> None:
    bank = FeatureBank(tmp_path / "features")
    bank.put("b", arrays(2, 10))
    bank.put("a", arrays(3))
    rows = bank.rows(["a", "none", "b"])
    assert (rows.names, len(rows)) == (("a", "b"), 5)
    assert rows.of("b").tolist() == [3, 4]
    found = rows.batch(np.array([4, 0, 3, 2]), ["ids", "features"])
    assert found["ids"].tolist() == [11, 0, 10, 2]
    assert found["features"][:, 0].tolist() == [11, 0, 10, 2]
    assert found["features"].dtype == "<f2"


def test_a_second_answer_replaces_the_first(tmp_path: Path) -> None:
    bank = FeatureBank(tmp_path / "features")
    bank.put("a", arrays(3))
    bank.put("a", arrays(2, 7))
    rows = bank.rows(["a"])
    assert rows.batch(rows.of("a"), ["ids"])["ids"].tolist() == [7, 8]


def test_what_a_crash_left_is_never_read_and_goes_with_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    FeatureBank(folder).put("old", arrays(3))
    bank = FeatureBank(folder)
    assert len(bank.rows(["old"])) == 0
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        bank.put("new", arrays(3))
    assert not (folder / "new").exists()
    assert (folder / f"new{PARTIAL}").exists()
    assert len(bank.rows(["new"])) == 0
    bank.clear()
    assert not folder.exists()


def test_memory_is_that_of_a_batch_and_not_of_all_rows(tmp_path: Path) -> None:
    bank = FeatureBank(tmp_path / "features")
    row = 16 * 16 * 16
    for name in range(8):
        bank.put(str(name), {"features": np.zeros((64, row), "<f4")})  # 1 MiB each
    rows = bank.rows([str(name) for name in range(8)])
    tracemalloc.start()
    for start in range(0, len(rows), 16):
        rows.batch(np.arange(start, start + 16), ["features"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 16 * row * 4  # a batch, and what is copied into it
