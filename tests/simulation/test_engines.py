"""All engines: the same result, the server's own exceptions, error replies, and no hanging."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common.errors import ConfigurationError, DataError, FederationError
from simulation.engines import ENGINES, run_federation, workers_of_each
from simulation.environment import CODE_ROOT, CPU_TUNING
from simulation.local_grid import LocalGrid
from tests.examples import slow

T = TypeVar("T")
DEVICES = 3
WORKERS = 2
PATIENCE = 600
"""Seconds to wait for a reply that must come: a process of Ray has taken more than a minute to start."""
CLIENT = "tests.simulation.counting_app:app"


def run(engine: str, server: Callable[[Grid, Context], T], bad_partition: int = -1) -> T:
    workers = WORKERS if engine == "ray" else 0
    return run_federation(engine, server, CLIENT, {"bad-partition": bad_partition, "rounds": 2}, DEVICES, workers)


def request(node_id: int, weights: list[float], misbehave: str) -> Message:
    arrays = ArrayRecord({"weights": Array(np.array(weights, np.float32))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"misbehave": misbehave})})
    return Message(content, node_id, "train", group_id="round")


def requests(grid: Grid, misbehave: str) -> list[Message]:
    return [request(node_id, [0.0, 0.5], misbehave) for node_id in grid.get_node_ids()]


def train_round(grid: Grid, misbehave: str = "") -> list[Message]:
    return list(grid.send_and_receive(requests(grid, misbehave), timeout=PATIENCE))


def round_of_a_device_that_hangs(grid: Grid) -> list[Message]:
    """The replies of the others, when both are there; then nobody waits for that device any more."""
    message_ids = list(grid.push_messages(requests(grid, "hang")))
    replies: list[Message] = []
    deadline = time.monotonic() + PATIENCE
    while len(replies) < DEVICES - 1 and time.monotonic() < deadline:
        replies += grid.pull_messages(message_ids)
        time.sleep(0.05)
    assert isinstance(grid, LocalGrid)
    grid.forget(message_ids)
    return replies


def by_partition(replies: list[Message]) -> dict[int, list[float]]:
    return {
        int(str(reply.content.metric_records["metrics"]["partition"])): arrays_of(reply)
        for reply in replies
        if not reply.has_error()
    }


def arrays_of(reply: Message) -> list[float]:
    weights: list[float] = reply.content.array_records["arrays"]["weights"].numpy().tolist()
    return weights


@dataclass
class Answers:
    """What three devices answered in one run: rounds, then one in which device 1 misbehaves, then one as before."""

    rounds: list[list[Message]]
    raised: list[Message]
    after_raised: list[Message]
    facts: list[ConfigRecord] = field(default_factory=list)
    died: list[Message] = field(default_factory=list)
    after_died: list[list[Message]] = field(default_factory=list)
    hung: list[list[Message]] = field(default_factory=list)
    after_hung: list[Message] = field(default_factory=list)


def facts(grid: Grid, question: str) -> list[ConfigRecord]:
    questions = [Message(RecordDict(), node_id, f"query.{question}") for node_id in grid.get_node_ids()]
    replies = grid.send_and_receive(questions, timeout=PATIENCE)
    return [reply.content.config_records["facts"] for reply in replies if reply.has_content()]


def server(grid: Grid, context: Context) -> Answers:
    rounds = [train_round(grid) for _ in range(int(context.run_config["rounds"]))]
    return Answers(rounds, train_round(grid, "raise"), train_round(grid))


def server_on_ray(grid: Grid, context: Context) -> Answers:
    answers = server(grid, context)
    answers.facts = facts(grid, "environment")
    answers.died, answers.after_died = train_round(grid, "die"), [train_round(grid), train_round(grid)]
    answers.hung = [round_of_a_device_that_hangs(grid) for _ in range(WORKERS)]
    answers.after_hung = train_round(grid)
    grid.push_messages(requests(grid, "hang"))  # which nobody waits for, nor does the run's end
    return answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


@pytest.fixture(scope="module", params=ENGINES)
def answers(request: pytest.FixtureRequest, folder: Path) -> Answers:
    if request.param != "ray":
        return run(request.param, server, bad_partition=1)
    result: Answers = request.getfixturevalue("on_ray")
    return result


@pytest.fixture(scope="module")
def on_ray(folder: Path) -> Answers:
    """One run on Ray, which takes seconds to start; that it ends although a device hangs is a result, too."""
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run("ray", server_on_ray, bad_partition=1)
    assert {name: os.environ.get(name) for name in before} == before
    assert not CPU_TUNING.keys() & (os.environ.keys() - before.keys())
    return result


def test_result_state_and_configuration(answers: Answers) -> None:
    first, second = map(by_partition, answers.rounds)
    assert first == {0: [1.0, 1.5], 1: [2.0, 2.5], 2: [3.0, 3.5]}
    # Every device remembers its first visit, which adds 100.
    assert second == {0: [101.0, 101.5], 1: [102.0, 102.5], 2: [103.0, 103.5]}


def test_a_client_that_raises_is_an_error_reply_and_the_run_goes_on(answers: Answers) -> None:
    assert by_partition(answers.raised).keys() == {0, 2}
    [error] = [reply.error for reply in answers.raised if reply.has_error()]
    assert error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert error.reason == "<class 'ValueError'>:<'out of battery'>"
    assert by_partition(answers.after_raised).keys() == {0, 1, 2}


def test_a_process_that_dies_costs_one_reply(on_ray: Answers) -> None:
    assert [reply.error.code for reply in on_ray.died if reply.has_error()] == [ErrorCode.UNKNOWN]
    assert all(by_partition(replies).keys() == {0, 1, 2} for replies in on_ray.after_died)


def test_a_device_that_hangs_in_as_many_rounds_as_there_are_processes_costs_its_own_replies_only(
    on_ray: Answers,
) -> None:
    assert [by_partition(replies).keys() for replies in on_ray.hung] == [{0, 2}] * WORKERS
    assert by_partition(on_ray.after_hung).keys() == {0, 1, 2}


def test_ray_workers_are_tuned_and_stay_in_the_callers_folder(on_ray: Answers, folder: Path) -> None:
    assert len(on_ray.facts) == DEVICES
    for answer in on_ray.facts:
        assert answer["threads"] == "1"
        assert answer["malloc"] == str(2**30)
        assert answer["folder"] == str(folder)
        assert answer["process"] != os.getpid()


@pytest.mark.parametrize("engine", ["inline", *slow("ray")])
@pytest.mark.parametrize("error", [DataError("the digits are gone"), *slow(KeyboardInterrupt())])
def test_the_servers_exception_comes_out_as_it_is(engine: str, error: BaseException) -> None:
    def server(grid: Grid, context: Context) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(engine, server)
    assert caught.value is error


QUIET_SCRIPT = """
from tests.simulation.test_engines import DEVICES, facts, run, train_round

def server(grid, context):
    assert len(train_round(grid, "die")) == DEVICES
    return facts(grid, "code")

print(*[answer["client"] for answer in run("ray", server, bad_partition=1)], sep="\\n")
"""


@pytest.mark.slow  # starts Ray once more, in a process of its own
def test_ray_is_silent_even_when_a_process_dies_and_imports_our_client_although_the_folder_has_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(CODE_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", QUIET_SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(CODE_ROOT / "client" / "__init__.py")] * DEVICES
    assert done.stderr == ""


def test_ray_that_cannot_start_suggests_the_inline_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(FederationError, match=r"Ray could not start \(.*--engine inline") as caught:
        run("ray", lambda grid, context: None)
    assert "\n" not in str(caught.value)


def test_unknown_engine() -> None:
    with pytest.raises(ConfigurationError, match="engine must be one of ray, inline, batched, not 'cluster'"):
        run("cluster", lambda grid, context: None)


@pytest.mark.parametrize(
    ("engine", "together", "reason"),
    [
        ("inline", 4, "--together is for the batched engine, not for inline: leave out one of the two"),
        ("batched", -1, "--together must be at least 0, not -1"),
    ],
)
def test_a_number_of_devices_at_once_that_cannot_be(engine: str, together: int, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        run_federation(engine, lambda grid, context: None, CLIENT, {}, 1, together=together)


@pytest.mark.parametrize(
    ("engine", "workers", "reason"),
    [
        ("inline", 2, "--workers is for the ray engine, not for inline: leave out one of the two"),
        ("batched", 2, "--workers is for the ray engine, not for batched: leave out one of the two"),
        ("ray", -1, "--workers must be at least 0, not -1"),
    ],
)
def test_a_number_of_workers_that_cannot_be(engine: str, workers: int, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        run_federation(engine, lambda grid, context: None, CLIENT, {}, 1, workers=workers)


def test_runs_beside_each_other_share_the_cpus() -> None:
    assert workers_of_each("ray", 1) >= workers_of_each("ray", 2) >= workers_of_each("ray", 10**6) == 1
    assert workers_of_each("inline", 1) == workers_of_each("batched", 1) == 0


def test_client_app_that_cannot_be_imported() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run_federation("inline", lambda grid, context: None, "no_such_module:app", {}, 1)


@pytest.mark.parametrize("engine", ["inline", "batched"])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_engines_of_this_process_are_as_quiet_as_the_other(level: int, engine: str) -> None:
    """A device's own log line would stand in the user's terminal beside the server's note about it."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, handler = logging.getLogger("flwr"), Kept()
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        run_federation(engine, lambda grid, context: log.error("a device failed"), CLIENT, {}, 1)
        assert lines == []
        log.error("afterwards")
        assert lines == ["afterwards"]
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
