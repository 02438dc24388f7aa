"""What is fuzzed: the command line, in this process, given sound files of which one is damaged, or damaged flags.

`Fuzzer.case(n)` is always the same case for the same n. A case is right if the command ends
- with exit code 0, having done what was asked: the run's folder says so;
- with 1 or 2 and one clear line, no traceback, and less than MEMORY_BYTES of memory more than before;
- or is still at work, as asked, after CPU_SECONDS of its own and its children, and ends by Ctrl-C;
- and nothing that it started goes on after it. One that computes nothing for IDLE_SECONDS hangs.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from common.config import GROUPS, Config
from common.settings import key_of
from feddac.cli.main import run
from server.run_folder import RunFolder
from tests.fuzz.damage import damaged_bytes, damaged_flag, damaged_text

MEMORY_BYTES = 100 * 2**20
CPU_SECONDS = 6.0
IDLE_SECONDS = 60.0
LOOK_SECONDS, NOTHING_SECONDS = 0.2, 0.05
FIELDS = [one for group in GROUPS for one in dataclasses.fields(group)]
TINY = {
    "model": "mlp",
    "devices": "2",
    "rounds": "1",
    "local-epochs": "1",
    "max-params": "15k",
    "warmup-epochs": "0",
    "epochs-per-step": "0",
    "fine-tune-epochs": "0",
    "accelerator": "cpu",
    "train-images": "200",
    "test-images": "40",
}
FLEET = '[[device]]\nname = "small"\ncount = 2\nparams = "15k"\nmacs = 20000\n\n[[device]]\nname = "large"\n'
SETTINGS = "".join(f"{key} = {json.dumps(int(value) if value.isdigit() else value)}\n" for key, value in TINY.items())
SETTINGS = SETTINGS.replace("local-epochs = 1", 'local-epochs = "1"')
EXPERIMENT = f'title = "Two"\nseeds = [0]\nbaseline = "a"\n\n[settings]\n{SETTINGS}\n[methods.a]\n'


HANGS = -1


class _StillAtWork(KeyboardInterrupt):
    """Ctrl-C after CPU_SECONDS."""


class _Hangs(KeyboardInterrupt):
    """Ctrl-C after IDLE_SECONDS in which nothing was computed."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, what it printed, and how much more memory it had at its peak than before."""

    code: int
    output: str
    errors: str
    memory_bytes: int


@dataclass(frozen=True)
class Case:
    """A command line, and what must be true of the folder it ran in if it ends with 0."""

    arguments: list[str]
    done: Callable[[Outcome], bool]


class Fuzzer:
    """Sound files in `folder`, and damaged copies of them, one case at a time."""

    def __init__(self, folder: Path) -> None:
        self.sound = folder / "sound"
        self.place = folder / "case"
        self.sound.mkdir()
        for name, text in (("fleet.toml", FLEET), ("settings.toml", SETTINGS), ("experiment.toml", EXPERIMENT)):
            (self.sound / name).write_text(text)
        _write_images(self.sound / "images")
        with _inside(self.sound):
            assert run(["simulate", *_flags({"rounds": "1"}), "--out", "cut"]) == 0
            shutil.copytree("cut", "run")
            assert run(["simulate", "--engine", "inline", "--resume", "run", "--rounds", "2"]) == 0
        self.weights = _weights(self.sound / "run")

    KINDS = (
        *(["flags"] * 14),
        *(["settings"] * 5),
        *(["fleet"] * 5),
        *(["experiment"] * 3),
        *(["architecture"] * 4),
        *(["given"] * 2),
        *(["record"] * 4),
        *(["checkpoint"] * 3),
        "images",
    )

    def case(self, number: int) -> Case:
        """The case of this number, with its files in place."""
        chance = random.Random(number)
        return self.make(self.KINDS[number % len(self.KINDS)], chance)

    def make(self, kind: str, chance: random.Random, content: bytes | None = None) -> Case:
        """A case of this kind; `content` takes the place of the damaged file's."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        return getattr(self, f"_{kind}")(chance, content)  # type: ignore[no-any-return]

    def check(self, case: Case) -> str:
        """Run the case; what is wrong with how it ended, or nothing."""
        outcome = self._run(case.arguments)
        text = outcome.output + outcome.errors
        if "Traceback" in text or "a bug in FedDAC" in text:
            return f"a traceback: {text[-2000:]}"
        if outcome.code == 0:
            return "" if case.done(outcome) else f"exit code 0, though it was not done: {text[-500:]}"
        if left := _children():
            return f"processes {left} go on"
        if outcome.code == 130:
            return ""
        if outcome.code == HANGS:
            return f"it waits for nothing: {text[-500:]}"
        errors = [line for line in outcome.errors.splitlines() if line.startswith(("Error: ", "Failed: "))]
        last = outcome.errors.rstrip("\n").rpartition("\n")[2]
        if outcome.code not in (1, 2) or len(errors) != 1 or last != errors[0]:
            return f"exit code {outcome.code} without one clear line at the end: {outcome.errors[-1000:]!r}"
        if not last.isprintable() or len(last) > 2000:
            return f"a line that cannot be shown: {last!r:.1000}"
        if outcome.memory_bytes > MEMORY_BYTES:
            return f"took {outcome.memory_bytes / 2**20:.0f} MiB to say {last!r:.300}"
        return ""

    def _run(self, arguments: list[str]) -> Outcome:
        output, errors = io.StringIO(), io.StringIO()
        before = reset_peak()
        with _inside(self.place), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), _limit():
            try:
                code = run(arguments)
            except _Hangs:
                code = HANGS
            except _StillAtWork:
                code = 130
        return Outcome(code, output.getvalue(), errors.getvalue(), peak_bytes() - before)

    # kinds of cases

    def _flags(self, chance: random.Random, content: bytes | None) -> Case:
        flags = dict(TINY)
        if content is not None:
            flags.update(line.split("=", 1) for line in content.decode().splitlines())  # type: ignore[misc]
        for one in [] if content is not None else chance.sample(FIELDS, chance.choice((1, 1, 2))):
            flags[key_of(one.name)] = damaged_flag(one.default, one.metadata["choices"] or (), chance)
        if flags.get("data", "").partition(":")[0] in ("hub", "fashion-mnist", "mnist", "cifar10", "cifar100"):
            del flags["data"]  # would be downloaded
        out = flags.setdefault("out", "out")
        words = [word for key, value in flags.items() for word in _words(key, value)]
        return Case(["simulate", "--engine", "inline", *words], self._ran(out, flags))

    def _settings(self, chance: random.Random, content: bytes | None) -> Case:
        (self.place / "settings.toml").write_bytes(content or damaged_text(SETTINGS, chance))
        command = ["simulate", "--engine", "inline", "--config", "settings.toml", "--out", "out"]
        return Case(command, self._ran("out", {}))

    def _fleet(self, chance: random.Random, content: bytes | None) -> Case:
        (self.place / "fleet.toml").write_bytes(content or damaged_text(FLEET, chance))
        flags = {key: value for key, value in TINY.items() if key != "devices"}
        return Case(["simulate", *_flags(flags, "fleet.toml"), "--out", "out"], self._ran("out", flags))

    def _experiment(self, chance: random.Random, content: bytes | None) -> Case:
        (self.place / "experiment.toml").write_bytes(content or damaged_text(EXPERIMENT, chance))
        command = ["compare", "experiment.toml", "--out", "out", "--jobs", "1", "--engine", "inline"]
        return Case(command, lambda _: (self.place / "out" / "comparison.html").exists())

    def _architecture(self, chance: random.Random, content: bytes | None) -> Case:
        source = self.sound / "run/architectures/cohort-0.json"
        (self.place / "one.json").write_bytes(content or damaged_text(source.read_text(), chance))
        return Case(["describe", "one.json"], lambda outcome: "Costs of one image" in outcome.output)

    def _given(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "run/architectures", self.place / "given")
        _damage(chance.choice(sorted((self.place / "given").iterdir())), chance, content)
        searched = ("warmup-epochs", "epochs-per-step", "fine-tune-epochs")
        flags = {key: value for key, value in TINY.items() if key not in searched}
        return Case(["simulate", *_flags(flags), "--architectures", "given", "--out", "out"], self._ran("out", flags))

    def _record(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "run", self.place / "run")
        (self.place / "run/report.html").unlink()
        names = ["config.toml", "budgets.json", "partition.json", "metrics.jsonl", "summary.json"]
        _damage(self.place / "run" / chance.choice(names), chance, content)
        return Case(["report", "run"], lambda _: (self.place / "run/report.html").stat().st_size > 0)

    def _checkpoint(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "cut", self.place / "cut")
        files = [path for path in sorted((self.place / "cut/checkpoint").rglob("*")) if path.is_file()]
        _damage(chance.choice([*files, self.place / "cut/metrics.jsonl"]), chance, content)
        command = ["simulate", "--engine", "inline", "--resume", "cut", "--rounds", "2"]
        return Case(command, lambda _: _weights(self.place / "cut") == self.weights)

    def _images(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "images", self.place / "images")
        _damage(chance.choice(sorted((self.place / "images").rglob("*.png"))), chance, content)
        flags = {key: value for key, value in TINY.items() if not key.endswith("-images")}
        return Case(
            ["simulate", *_flags(flags), "--data", "images", "--data-folder", "cache", "--out", "out"],
            self._ran("out", flags),
        )

    def _ran(self, out: str, flags: dict[str, str]) -> Callable[[Outcome], bool]:
        """Whether the run folder is that of a whole run with these settings."""

        def done(_: Outcome) -> bool:
            with _inside(self.place):
                folder = RunFolder.open(out or next(iter(Path("runs").iterdir())))
                kept, summary = Config.from_mapping(folder.read_config()), folder.read_summary()
                whole = len(folder.read_budgets()) == kept.fleet.devices and folder.report_path.exists()
            given = Config.from_mapping({**flags, "method": kept.method.method}).to_mapping()
            asked = {key: given[key] for key in flags if key not in ("out", "data", "data-folder", "fleet", "devices")}
            ended = summary["rounds"] == kept.federation.rounds or kept.federation.patience > 0
            return whole and ended and asked.items() <= kept.to_mapping().items()

        return done


def _flags(flags: dict[str, str], fleet: str = "phone") -> list[str]:
    whole = {**TINY, **flags} if "rounds" in flags and len(flags) == 1 else flags
    return [
        "--engine",
        "inline",
        "--fleet",
        fleet,
        *(word for key, value in whole.items() for word in (f"--{key}", value)),
    ]


def _words(key: str, value: str) -> list[str]:
    if isinstance(next(one.default for one in FIELDS if key_of(one.name) == key), bool):
        return [f"--{key}"] if value in ("1", "true") else [f"--{key}={value}"]
    return [f"--{key}={value}"]


def _damage(path: Path, chance: random.Random, content: bytes | None) -> None:
    if content is None:
        text = path.suffix in (".json", ".jsonl", ".toml") or path.name in ("latest", "threads")
        content = damaged_text(path.read_text(), chance) if text else damaged_bytes(path.read_bytes(), chance)
    path.write_bytes(content)


def _weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "models").glob("*.safetensors"))}


def _write_images(folder: Path) -> None:
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            image = Image.new("L", (8, 8), shade)
            image.putpixel((number % 8, number // 8), 255 - shade)
            image.save(folder / name / f"{number:02d}.png")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    """Ctrl-C once CPU_SECONDS have been computed here and in child processes, or none for long."""
    over, hangs = threading.Event(), False

    def interrupt(number: int, frame: object) -> None:
        raise _Hangs if hangs else _StillAtWork

    def watch() -> None:
        nonlocal hangs
        start = last = processor_seconds()
        looks = 0
        while not over.wait(LOOK_SECONDS):
            now = processor_seconds()
            looks, last = (0, now) if now > last + NOTHING_SECONDS else (looks + 1, last)
            hangs = looks * LOOK_SECONDS > IDLE_SECONDS
            if hangs or now - start > CPU_SECONDS:
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def processor_seconds() -> float:
    """What this process and its living children have computed so far."""
    ticks = 0
    for process in (os.getpid(), *_children()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _children() -> list[int]:
    """The living children of this process, by id."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(word) for one in found for word in one.read_text().split() if _is_alive(word)]


def _is_alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reset_peak() -> int:
    """Begin to watch the peak of this process's memory; returns what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
