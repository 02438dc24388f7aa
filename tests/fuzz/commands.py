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
import random
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.config import GROUPS, Config
from common.settings import key_of
from feddac.cli.main import run
from server.run_folder import RunFolder
from tests.fuzz.damage import damaged_bytes, damaged_flag, damaged_tensors, damaged_text
from tests.fuzz.limits import HANGS, Hangs, StillAtWork, children, limit, peak_bytes, reset_peak
from tests.fuzz.sound import EXPERIMENT, FLEET, SETTINGS, TINY, flags_of, inside, make_sound_files, weights

MEMORY_BYTES = 100 * 2**20
FIELDS = [one for group in GROUPS for one in dataclasses.fields(group)]


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
        self.weights = make_sound_files(self.sound)

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
        *(["model"] * 3),
        *(["search"] * 2),
        *(["train"] * 2),
        "keys",
        "certificates",
        "listing",
        "comparison",
        "parquet",
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
        before = set(children())  # other tests may have some
        outcome = self._run(case.arguments)
        text = outcome.output + outcome.errors
        if "Traceback" in text or "a bug in FedDAC" in text:
            return f"a traceback: {text[-2000:]}"
        if hidden := {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs")} - set("\n\t\r"):
            return f"prints {hidden}: {text[-500:]!r}"
        if outcome.code == 0:
            return "" if case.done(outcome) else f"exit code 0, though it was not done: {text[-500:]}"
        if left := sorted(set(children()) - before):
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
        with inside(self.place), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), limit():
            try:
                code = run(arguments)
            except Hangs:
                code = HANGS
            except StillAtWork:
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
        return Case(["simulate", *flags_of(flags, "fleet.toml"), "--out", "out"], self._ran("out", flags))

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
        return Case(["simulate", *flags_of(flags), "--architectures", "given", "--out", "out"], self._ran("out", flags))

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
        return Case(command, lambda _: weights(self.place / "cut") == self.weights["run"])

    def _images(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "images", self.place / "images")
        _damage(chance.choice(sorted((self.place / "images").rglob("*.png"))), chance, content)
        flags = {key: value for key, value in TINY.items() if not key.endswith("-images")}
        return Case(
            ["simulate", *flags_of(flags), "--data", "images", "--data-folder", "cache", "--out", "out"],
            self._ran("out", flags),
        )

    def _model(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copy(self.sound / "run/models/cohort-0.safetensors", self.place / "model.safetensors")
        _damage(self.place / "model.safetensors", chance, content)
        command = ["export", "model.safetensors", "--out", "exported"]
        return Case(command, lambda _: any((self.place / "exported").glob("*.onnx")))

    def _search(self, chance: random.Random, content: bytes | None) -> Case:
        return self._resumed("search", ["budgets.json", "metrics.jsonl"], chance, content)

    def _train(self, chance: random.Random, content: bytes | None) -> Case:
        return self._resumed("train", ["metrics.jsonl"], chance, content)

    def _resumed(self, name: str, more: list[str], chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / name, self.place / name)
        files = sorted((self.sound / name / "checkpoint").iterdir())
        names = [path.relative_to(self.sound / name) for path in files]
        _damage(self.place / name / chance.choice([*names, *map(Path, more)]), chance, content)
        return Case([name, "--resume", name], lambda _: weights(self.place / name) == self.weights[name])

    def _keys(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "keys", self.place / "keys")
        _damage(self.place / "keys" / chance.choice(("camera.pub", "ca.crt")), chance, content)
        return Case(
            ["register", "keys/camera.pub", "--superlink", "127.0.0.1:1", "--root-certificates", "keys/ca.crt"],
            lambda _: False,  # nobody listens there
        )

    def _certificates(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "keys", self.place / "keys")
        _damage(self.place / "keys" / chance.choice(("ca.crt", "ca.key", "server.crt")), chance, content)
        before = (self.sound / "keys/server.crt").read_bytes()
        return Case(
            ["certificates", "keys", "--renew"], lambda _: (self.place / "keys/server.crt").read_bytes() != before
        )

    def _listing(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "run", self.place / "runs/run")
        names = ["config.toml", "budgets.json", "metrics.jsonl", "summary.json"]
        _damage(self.place / "runs/run" / chance.choice(names), chance, content)
        return Case(["runs"], lambda outcome: "run" in outcome.output)

    def _comparison(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copytree(self.sound / "compared", self.place / "compared")
        shutil.copy(self.sound / "experiment.toml", self.place)
        (self.place / "compared/comparison.html").unlink()
        names = ["budgets.json", "metrics.jsonl", "summary.json", "config.toml"]
        _damage(self.place / "compared/all/a/seed-0" / chance.choice(names), chance, content)
        command = ["compare", "experiment.toml", "--out", "compared", "--jobs", "1", "--engine", "inline"]
        return Case(command, lambda _: (self.place / "compared/comparison.html").exists())

    def _parquet(self, chance: random.Random, content: bytes | None) -> Case:
        shutil.copy(self.sound / "images.parquet", self.place)
        _damage(self.place / "images.parquet", chance, content)
        flags = {key: value for key, value in TINY.items() if not key.endswith("-images")}
        return Case(
            ["simulate", *flags_of(flags), "--data", "images.parquet", "--data-folder", "cache", "--out", "out"],
            self._ran("out", flags),
        )

    def _ran(self, out: str, flags: dict[str, str]) -> Callable[[Outcome], bool]:
        """Whether the run folder is that of a whole run with these settings."""

        def done(_: Outcome) -> bool:
            with inside(self.place):
                folder = RunFolder.open(out or next(iter(Path("runs").iterdir())))
                kept, summary = Config.from_mapping(folder.read_config()), folder.read_summary()
                whole = len(folder.read_budgets()) == kept.fleet.devices and folder.report_path.exists()
            given = Config.from_mapping({**flags, "method": kept.method.method}).to_mapping()
            asked = {key: given[key] for key in flags if key not in ("out", "data", "data-folder", "fleet", "devices")}
            ended = summary["rounds"] == kept.federation.rounds or kept.federation.patience > 0
            return whole and ended and asked.items() <= kept.to_mapping().items()

        return done


def _words(key: str, value: str) -> list[str]:
    if isinstance(next(one.default for one in FIELDS if key_of(one.name) == key), bool):
        return [f"--{key}"] if value in ("1", "true") else [f"--{key}={value}"]
    return [f"--{key}={value}"]


def _damage(path: Path, chance: random.Random, content: bytes | None) -> None:
    if content is None:
        if path.suffix in (".json", ".jsonl", ".toml") or path.name == "latest":
            content = damaged_text(path.read_text(), chance)
        elif path.suffix == ".safetensors":
            content = damaged_tensors(path.read_bytes(), chance)
        else:
            content = damaged_bytes(path.read_bytes(), chance)
    path.write_bytes(content)
