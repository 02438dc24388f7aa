"""The run folder: the names of the files that all of a run share, and how they are written.

    config.toml                   every setting, enough to run it again
    budgets.json                  what each device can afford
    fleet.toml                    the devices, where a file describes them
    files.json                    what the files held that it reads, in a comparison or a tuning
    partition.json                how many images of each class each device has, where one machine knows that
    architectures/COHORT.json     the architecture of each cohort, with its weights before federation beside it
    models/COHORT.safetensors     its weights after federation, with all that is needed to use them
    models/COHORT-device...       of the network that its devices take home, where the scored one is more than they hold
    method/                       what the method writes for its user: FedNAS the cells after each round of search
    metrics.jsonl                 one event per line, in the order things happened
    summary.json                  the result
    tensorboard/                  the same figures for TensorBoard
    checkpoint/                   what `--resume` needs, and with how many threads the run began
    report.html                   all of it for a reader
    after-N-rounds/               summary, report and models of a run that has gone on for more rounds since
    run.lock                      who writes here now

A whole file is written beside its name and then moved there, so that a reader or a crash never sees half of one.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeAlias

import safetensors.torch
import tomli_w
import torch
from safetensors import SafetensorError

from common.atomic import write_atomically
from common.errors import BudgetError, CheckpointError, ConfigurationError
from common.reading import Unreadable, parse_toml
from common.settings import Scalar
from server.budget_entries import BudgetEntry
from server.event_scalars import Scalars
from server.json_files import json_line, list_of_objects, parse_event, read_bytes, read_json, write_json
from server.run_lock import RunLock

Kind: TypeAlias = Literal["simulate", "search", "train"]
"""The command that makes such a folder; a federated run of a deployment is as that of `simulate`."""

TOLD_BY: dict[str, Kind] = {"rounds": "simulate", "epochs": "train", "warmup-epochs": "search"}
"""A setting that tells each kind from those below it; rounds first, as a federated run has settings of the search too
and a method of one's own may have any."""

DEVICE_MODEL = "-device"
"""Ends the name of a model that a cohort's devices take home, where what is scored is another that they cannot hold."""


class RunFolder:
    """One run's folder; `create` makes a new one, `open` takes one that exists. A context manager.

    Only one process may write at a time: a new folder, and one that was opened, inside the `with` block, until `close`.
    Whoever only reads needs neither. Reading raises CheckpointError for a file that is missing or damaged. JSON never
    holds NaN or infinity: they are written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.toml"
        self.budgets_path = path / "budgets.json"
        self.fleet_path = path / "fleet.toml"
        self.partition_path = path / "partition.json"
        self.metrics_path = path / "metrics.jsonl"
        self.summary_path = path / "summary.json"
        self.report_path = path / "report.html"
        self.architectures_folder = path / "architectures"
        self.models_folder = path / "models"
        self.method_folder = path / "method"
        self.tensorboard_folder = path / "tensorboard"
        self.checkpoint_folder = path / "checkpoint"
        self._lock: RunLock | None = None
        self._log: IO[bytes] | None = None
        self._scalars = Scalars(self.tensorboard_folder)

    @classmethod
    def create(cls, path: str | Path = "") -> Self:
        """A new run folder at `path`, or at runs/YYYYMMDD-HHMMSS of the working directory when it is empty.

        Raises ConfigurationError if there is a run already or the place cannot be written, CheckpointError if another
        process is about to write there.
        """
        place = Path(path) if str(path) else Path("runs")
        try:
            folder = cls(place if str(path) else _new_dated_folder(place))
            folder._require_empty()
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._lock = RunLock(folder.path)
            folder._require_empty()  # now for good
            for each in (folder.architectures_folder, folder.models_folder, folder.checkpoint_folder):
                each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigurationError(f"cannot write a run folder at {place} ({reason}): choose another --out") from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run folder at `path`; raises CheckpointError if no run was started there."""
        folder = cls(Path(path))
        if not folder.config_path.is_file():
            raise CheckpointError(
                f"there is no run in {path}: it has no config.toml; give the folder of an earlier run"
            )
        return folder

    def _require_empty(self) -> None:
        if self.config_path.exists():
            raise ConfigurationError(
                f"{self.path} already holds a run: use --resume {self.path} to continue it, or another --out"
            )

    @property
    def kind(self) -> Kind:
        """Which command's folder this is, by its settings; CheckpointError for a config.toml that no command wrote."""
        config = self.read_config()
        found = next((kind for key, kind in TOLD_BY.items() if key in config), None)
        if found is None:
            raise CheckpointError(f"{self.config_path} is damaged: it has none of {', '.join(TOLD_BY)}")
        return found

    def require_federation(self) -> None:
        """Raise CheckpointError if the folder is of a search or a training, which another command resumes."""
        if self.kind != "simulate":
            raise CheckpointError(
                f"{self.path} holds a search or a training, no federated run: resume it by the command that began it"
            )

    def __enter__(self) -> Self:
        if self._lock is None:
            try:
                self._lock = RunLock(self.path)
            except OSError as error:
                raise CheckpointError(f"cannot write in {self.path}: {error.strerror or error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the open files and let others write."""
        try:
            self._finish_files()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _finish_files(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        self._scalars.close()

    def write_config(self, settings: Mapping[str, Scalar]) -> None:
        """Write the flat kebab-case settings."""
        write_atomically(self.config_path, tomli_w.dumps(dict(settings)).encode())

    def read_config(self) -> dict[str, Any]:
        """The settings as they were written."""
        try:
            return parse_toml(read_bytes(self.config_path))
        except Unreadable as error:
            raise CheckpointError(f"{self.config_path} is damaged: {error}") from None

    def keep_fleet_file(self, path: Path) -> Path:
        """Copy the file that describes the devices into the folder, and return where it is there."""
        write_atomically(self.fleet_path, read_bytes(path))
        return self.fleet_path.resolve()

    def write_budgets(self, entries: Sequence[BudgetEntry]) -> None:
        """Write what each device can afford, or what a search was asked for."""
        write_json(self.budgets_path, [entry.to_dict() for entry in entries])

    def read_budgets(self) -> list[BudgetEntry]:
        """The entries as they were written; none where there is no such file."""
        if not self.budgets_path.exists():
            return []
        try:
            rows = list_of_objects(self.budgets_path, read_json(self.budgets_path))
            return [BudgetEntry.from_dict(row) for row in rows]
        except (ValueError, BudgetError) as error:
            raise CheckpointError(f"{self.budgets_path} is damaged: {error}") from None

    def write_partition(self, class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> None:
        """Write how many images of each class each device has, by its name; only a simulation can know."""
        write_json(self.partition_path, {"class_names": class_names, "counts": counts})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the result of the run."""
        write_json(self.summary_path, summary)

    def read_summary(self) -> dict[str, Any]:
        """The result of the run."""
        summary = read_json(self.summary_path)
        if not isinstance(summary, dict):
            raise CheckpointError(f"{self.summary_path} is damaged: it is not a JSON object")
        return summary

    def architecture_path(self, cohort: str) -> Path:
        """Where the architecture of `cohort` is kept."""
        return self.architectures_folder / f"{_checked_name(cohort)}.json"

    def model_path(self, cohort: str) -> Path:
        """Where the weights of `cohort` are kept."""
        return self.models_folder / f"{_checked_name(cohort)}.safetensors"

    def save_model(
        self, cohort: str, state_dict: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write the weights of `cohort`; `metadata` are free texts kept beside them."""
        # Cloned, because safetensors refuses tensors that are views of one buffer.
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in state_dict.items()
        }
        data = safetensors.torch.save(tensors, dict(metadata) if metadata else None)
        write_atomically(self.model_path(cohort), data)

    def load_model(self, cohort: str) -> dict[str, torch.Tensor]:
        """The weights of `cohort`, on the CPU."""
        path = self.model_path(cohort)
        try:
            return safetensors.torch.load(read_bytes(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None

    def append(self, event: str, **fields: Any) -> None:
        """Add one event to metrics.jsonl and to TensorBoard; it is on disk when this returns."""
        if self._lock is not None:
            self._lock.require()
        record = {"event": event, **fields}
        if self._log is None:
            self._cut_torn_line()
            self._log = open(self.metrics_path, "ab")  # noqa: SIM115 (closed by close)
        self._log.write(json_line(record))
        self._log.flush()
        os.fsync(self._log.fileno())
        self._scalars.add(record)

    def epoch_recorder(self, event: str) -> Callable[[dict[str, Any]], None]:
        """A function that records an event of this kind per epoch, given its fields, of which `epoch` is one.

        Epochs already recorded are passed over: a training that goes on repeats the epoch that it was stopped in.
        """
        recorded = max((one["epoch"] for one in self.events(event)), default=0)

        def record(fields: dict[str, Any]) -> None:
            if fields["epoch"] > recorded:
                self.append(event, **fields)

        return record

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """All events, or those named `event`, in order; none if the run has not begun. A torn last line is ignored."""
        parsed = [parse_event(self.metrics_path, number, line) for number, line in self._lines()]
        return [each for each in parsed if event is None or each["event"] == event]

    def truncate_after(self, round: int) -> None:
        """Forget what was recorded of rounds after `round`, so that a resumed run records them anew.

        Every event that carries a later "round" goes (round, device, evaluation), and with it a torn last line.
        """
        self._finish_files()
        kept = [event for event in self.events() if event.get("round") is None or event["round"] <= round]
        if self.metrics_path.exists():
            write_atomically(self.metrics_path, b"".join(map(json_line, kept)))
        self._scalars = Scalars(self.tensorboard_folder, purge_step=round + 1)

    def _lines(self) -> list[tuple[int, bytes]]:
        """Numbered complete lines; a crash can only tear the last one, which then lacks its newline."""
        if not self.metrics_path.exists():
            return []
        complete = read_bytes(self.metrics_path).split(b"\n")[:-1]
        return [(number, line) for number, line in enumerate(complete, start=1) if line.strip()]

    def _cut_torn_line(self) -> None:
        if self.metrics_path.exists():
            data = read_bytes(self.metrics_path)
            if data and not data.endswith(b"\n"):
                write_atomically(self.metrics_path, data[: data.rfind(b"\n") + 1])


def _checked_name(cohort: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,64}", cohort):
        raise CheckpointError(f"{cohort!r:.80} cannot name a cohort's file: use up to 64 of a to z, 0 to 9 and -")
    return cohort


def _new_dated_folder(parent: Path) -> Path:
    """A folder that did not exist before, named by the time; runs started in the same second get -2, -3, ..."""
    parent.mkdir(parents=True, exist_ok=True)
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    attempt = 1
    while True:
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            attempt += 1
