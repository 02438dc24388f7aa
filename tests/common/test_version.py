"""One version everywhere: the project file, the citation, the package."""

import re
from pathlib import Path

import pytest

import common.version
from common.version import PROJECT_FILE, version

ROOT = Path(__file__).resolve().parents[2]


def test_every_place_says_the_same_version() -> None:
    said = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert said is not None
    assert cited is not None
    assert said[1] == cited[1] == version()
    assert f"## {version()}" in (ROOT / "CHANGELOG.md").read_text()


def test_another_projects_file_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    monkeypatch.setattr(common.version, "PROJECT_FILE", tmp_path / "pyproject.toml")
    version.cache_clear()
    assert version() != "9"
    monkeypatch.setattr(common.version, "PROJECT_FILE", PROJECT_FILE)
    version.cache_clear()
