"""A file is replaced whole or not at all."""

import os
from pathlib import Path

import pytest

from common.atomic import replacing, write_atomically


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    for data in (b"first", b"second and longer"):
        write_atomically(path, data)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_if_the_writer_fails_the_old_file_stays(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("name"), replace(old, new))[1])
    write_atomically(tmp_path / "file.bin", b"data")
    assert order == ["sync", "name"]
