"""What of the server's log is shown."""

from feddac.deployment.control import RunStatus
from feddac.deployment.log_lines import LogLines, unseen

FRAMES = ["Traceback (most recent call last):", '  File "server/app.py", line 35, in main', "    federate()"]


def shown(lines: list[str]) -> list[str]:
    result: list[str] = []
    view = LogLines(result.append)
    for line in lines:
        view(line)
    return result


def test_progress_and_warnings_are_shown() -> None:
    lines = ["handshake: started", "warning: round 1: camera rejected: its weights are not finite"]
    assert shown(lines) == lines


def test_a_mistake_has_no_traceback() -> None:
    lines = ["error: ServerApp raised an exception", *FRAMES, "common.errors.FederationError: no device reported"]
    assert shown([*lines, "error: Exit Code: 201", "rounds: over"]) == ["rounds: over"]


def test_a_bug_keeps_its_traceback() -> None:
    lines = [*FRAMES, "ZeroDivisionError: division by zero"]
    assert shown(lines) == lines


def test_lines_that_came_with_an_earlier_time_are_found_in_the_whole_log() -> None:
    seen = ["rounds: started", "round 1", "round 1"]
    assert unseen(seen, ["round 2", "rounds: started", "round 1", "round 1", "round 1"]) == ["round 2", "round 1"]
    assert unseen(seen, seen) == []
    assert unseen(["rounds: sta", "rted", "round 1"], ["rounds: started", "round 1"]) == []


def test_the_end_of_a_run_in_one_line() -> None:
    status = RunStatus("finished", "failed", "ServerApp failed with exception: no device\nreported")
    assert str(status) == "the run failed: no device reported"
    assert not status.completed
    assert str(RunStatus("finished", "stopped", "")) == "the run stopped"
    assert RunStatus("finished", "completed", "").completed
