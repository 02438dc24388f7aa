"""docs/add-a-method.md, followed to the letter: its files make a method that works, and is the one that ships."""

import re
import shlex
from pathlib import Path

import pytest

from feddac.cli.main import run
from tests.e2e.conftest import ROOT, feddac, weights_of

PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SHIPPED = ("common/methods/fedprox.py", "server/methods/fedprox.py", "client/methods/fedprox.py")
SMALL = ["--engine", "inline", "--model", "mlp", "--train-images", "300", "--pretraining-epochs", "1"]


def code_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The page's files in a folder of their own, on the import path and nowhere else."""
    place = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    return {"PYTHONPATH": f"{place}:{ROOT}"}


def command(name: str) -> list[str]:
    """The first command of the page that begins with `feddac NAME`."""
    (line,) = re.findall(rf"^feddac {name} .*$", PAGE, re.MULTILINE)
    return shlex.split(line)[1:]


def test_the_method_is_short_on_the_page_and_as_it_ships() -> None:
    assert len(FILES) == 3
    assert sum(map(code_lines, FILES.values())) < 60
    assert sum(code_lines((ROOT / name).read_text(encoding="utf-8")) for name in SHIPPED) < 60


@pytest.mark.slow
def test_it_runs_as_the_page_says_and_ends_with_the_weights_of_the_shipped_one(
    package: dict[str, str], tmp_path: Path
) -> None:
    done = feddac([*command("simulate"), *SMALL, "--out", "own"], tmp_path, package)
    assert done.returncode == 0, done.stderr
    shipped = ["--method", "fedprox", "--proximal-coefficient", "0.1", "--rounds", "3"]
    assert feddac(["simulate", *shipped, *SMALL, "--out", "shipped"], tmp_path).returncode == 0
    assert weights_of(tmp_path / "own") == weights_of(tmp_path / "shipped")
    again = feddac(["simulate", "--resume", "own", "--rounds", "4", "--engine", "inline"], tmp_path, package)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_it_stands_in_a_comparison_beside_the_others(package: dict[str, str], tmp_path: Path) -> None:
    (experiment,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "nearby.toml").write_text(experiment)
    small = ["--model", "mlp", "--train-images", "300", "--pretraining-epochs", "1", "--engine", "inline"]
    done = feddac(["compare", "nearby.toml", *small, "--out", "out"], tmp_path, package)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert "| nearby |" in table
    assert "| fedavg |" in table


def test_its_flags_are_checked_and_listed_like_all_others(package: dict[str, str], tmp_path: Path) -> None:
    named = ["simulate", "--method", "nearby.contract:Nearby"]
    assert "--nearby-coefficient" in feddac([*named, "--help"], tmp_path, package).stdout
    assert "--nearby-coefficient" not in feddac(["simulate", "--help"], tmp_path, package).stdout
    wrong = feddac([*named, "--nearby-coefficient", "-1"], tmp_path, package)
    assert (wrong.returncode, wrong.stderr) == (2, "Error: nearby-coefficient must be at least 0, not -1.0\n")
    unread = feddac([*named, "--aggregation", "overlap"], tmp_path, package)
    assert unread.returncode == 2
    assert "method nearby does not read aggregation" in unread.stderr


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("nearby.contract:Nearby", "method nearby.contract:Nearby cannot be imported here: No module named 'nearby'"),
        ("json:loads", "method json:loads is not a class that derives from common.methods.contract.Contract"),
        ("common.methods.fedprox:Missing", "cannot be imported here: module 'common.methods.fedprox' has no"),
        ("fedporx", "or package.module:Class, not 'fedporx': did you mean 'fedprox'?"),
        ("no such", "method cannot be 'no such'; see the help of --method"),
    ],
)
def test_what_cannot_be_found_is_one_clear_line(
    method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "--method", method, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
