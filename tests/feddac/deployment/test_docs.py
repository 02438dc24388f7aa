"""Every command in docs/deployment.md has only flags that exist."""

import os
import re
import shlex
import subprocess
from functools import cache

import pytest

from feddac.deployment.processes import program
from tests.e2e.conftest import FEDDAC, ROOT

TEXT = (ROOT / "docs" / "deployment.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith(("feddac ", "flower-", "flwr "))]


@cache
def flags_of(program_words: tuple[str, ...]) -> set[str]:
    first, *rest = program_words
    command = FEDDAC if first == "feddac" else [program(first)]
    wide = {**os.environ, "COLUMNS": "250"}
    done = subprocess.run([*command, *rest, "--help"], capture_output=True, text=True, cwd=ROOT, env=wide, check=True)
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
