"""Every command in docs/deployment.md has only flags that exist; its promises and the threat model's have tests."""

import os
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from client.node_config import NODE_KEYS
from feddac.deployment.processes import program
from tests.e2e.conftest import ROOT
from tests.forked import feddac_forked

TEXT = (ROOT / "docs" / "deployment.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith(("feddac ", "flower-", "flwr "))]


@cache
def flags_of(program_words: tuple[str, ...]) -> set[str]:
    first, *rest = program_words
    wide = {**os.environ, "COLUMNS": "250", "PYTHONPATH": str(ROOT)}
    if first == "feddac":
        with TemporaryDirectory() as home:
            done = feddac_forked([*rest, "--help"], Path(home), wide, timeout=60)
    else:
        done = subprocess.run([program(first), *rest, "--help"], capture_output=True, text=True, env=wide, check=True)
    assert done.returncode == 0
    return set(re.findall(r"(?<![\w-])--?[\w-]+", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)))


def test_the_page_shows_every_role() -> None:
    programs = {shlex.split(line)[0] for line in COMMANDS}
    assert programs == {"feddac", "flwr", "flower-superlink", "flower-superexec"}
    assert {shlex.split(line)[1] for line in COMMANDS if line.startswith("feddac")} == {
        "up",
        "supernode",
        "submit",
        "certificates",
        "register",
        "unregister",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_its_flags_exist(command: str) -> None:
    words = shlex.split(command)
    own = tuple(words[:2] if words[0] in ("feddac", "flwr") else words[:1])
    if own == ("feddac", "supernode"):  # which passes them on
        own = ("flower-supernode",)
    used = {word for word in words if word.startswith("-")}
    assert used
    assert used <= flags_of(own)


def rows(page: str, heading: str) -> list[str]:
    """The lines of the table whose head begins so."""
    _, found, rest = (ROOT / "docs" / page).read_text().partition(f"\n| {heading} |")
    assert found
    table = rest.partition("\n\n")[0]
    return table.splitlines()[2:]


@pytest.mark.parametrize(
    ("page", "heading", "home"),
    [
        ("deployment.md", "what fails", "tests/feddac/deployment"),
        ("threat-model.md", "a hostile or broken device", "tests/server"),
    ],
)
def test_every_row_names_its_tests_and_they_exist(page: str, heading: str, home: str) -> None:
    found = rows(page, heading)
    assert len(found) > 10
    for row in found:
        named = re.findall(r"`([\w/]*test_\w+\.py)(?:::(\w+))?`", row)
        assert named, row
        for path, function in named:
            file = ROOT / (path if path.startswith("tests/") else f"{home}/{path}")
            assert f"def {function or 'test_'}" in file.read_text(), (row, path, function)


def test_it_says_what_every_key_of_a_node_configuration_means() -> None:
    named = [
        key for row in rows("deployment.md", "key of `--node-config`") for key in re.findall(r"`([a-z][\w-]+)`", row)
    ]
    assert set(named) == set(NODE_KEYS)


@pytest.mark.parametrize("page", ["deployment.md", "threat-model.md"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    for path in re.findall(r"`(tests/[\w/]+\.py)", (ROOT / "docs" / page).read_text()):
        assert (ROOT / path).is_file(), path
