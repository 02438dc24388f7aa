"""A full disk and a folder that vanishes: one clear line, nothing lost, and the run goes on when there is room."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from feddac.cli.main import run
from tests.e2e.conftest import FEDDAC, environment, feddac, weights_of

SHORT = [
    *("--engine", "inline", "--model", "mlp", "--devices", "2", "--rounds", "4", "--max-params", "15k"),
    *("--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "1", "--accelerator", "cpu"),
]
SCRIPT = """
mount -t tmpfs -o size="$1" tmpfs "$2" && cd "$2" && shift 2
"$@" > ../out 2> ../err
echo $? > ../code
mount -o remount,size=100m "$PWD"
"$PYTHON" -c "from feddac.cli.main import main; main()" simulate --engine inline --resume run > ../again 2>&1
cp -r run ../run
"""


def may_mount(tmp_path: Path) -> bool:
    (tmp_path / "probe").mkdir()
    command = ["unshare", "-r", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "probe")]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("size", ["60k", "330k"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(size: str, tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("this system does not permit a small disk to be mounted in a namespace (unshare)")
    (tmp_path / "disk").mkdir()
    variables = {**environment(tmp_path), "PYTHON": sys.executable}
    command = [*FEDDAC, "simulate", *SHORT, "--out", "run"]
    subprocess.run(
        ["unshare", "-r", "-m", "bash", "-c", SCRIPT, "script", size, str(tmp_path / "disk"), *command],
        env=variables,
        cwd=tmp_path,
        check=True,
        timeout=200,
    )
    shown = (tmp_path / "err").read_text()
    last = shown.splitlines()[-1]
    assert (tmp_path / "code").read_text() == "1\n", shown
    assert last.startswith("Error: cannot write in run: No space left on device"), shown
    assert last.endswith("resume with: feddac simulate --resume run")
    assert "Traceback" not in shown
    assert "a bug" not in shown
    done = feddac(["simulate", *SHORT, "--out", "undisturbed"], tmp_path)
    assert done.returncode == 0
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "undisturbed"), (tmp_path / "again").read_text()


def test_a_folder_that_vanishes_ends_the_run_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"

    def remove() -> None:
        while "round" not in (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else True:
            time.sleep(0.01)
        folder.rename(tmp_path / "elsewhere")

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    assert run(["simulate", *SHORT, "--rounds", "400", "--out", str(folder)]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert "was removed, moved or replaced" in shown[-1]
