"""Every reader of files against damaged and hostile ones: one clear error of ours, little memory, and no traceback."""

import json
import math
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.config import Config
from common.data.decode import decode_images
from common.data.folder import load_image_folder
from common.errors import FedDACError
from common.fleet import read_fleet
from common.paths import user_path
from common.reading import Unreadable, parse_json, parse_toml, read_limited, tensor_header
from common.toml_file import read_toml
from dac.checkpoint import load_checkpoint
from dac.files import load_architecture, load_member
from dac.model_file import read_model
from dac.published import is_published
from feddac.comparison.plan import read_experiment
from feddac.deployment.certificates import renew_certificates
from feddac.deployment.control import Control
from feddac.standalone.budgets import budgets_from_file
from server.checkpoint import load_federation
from server.report.build import build_report
from server.run_folder import RunFolder
from tests.examples import examples, slow

MEBIBYTE = 2**20
LIMIT_BYTES = 100 * MEBIBYTE

BOMBS = {
    "deep arrays": b"[" * 100_000,
    "deep and closed": b"[" * 5_000 + b"]" * 5_000,
    "deep objects": b'{"a":' * 20_000,
    "deep tables": b"a" + b".a" * 20_000 + b" = 1",
    "deep toml": b"a = " + b"[" * 50_000 + b"]" * 50_000,
    "giant whole number": b'{"format": ' + b"9" * 100_000 + b"}",
    "large whole number": b'{"format": ' + b"9" * 4_000 + b"}",
    "giant toml number": b"count = " + b"9" * 100_000,
    "infinite": b'{"format": 1e999}',
    "not a number": b'{"format": NaN}',
    "nul": b"\0" * 1000,
    "not utf-8": b"\xff\xfe" * 100,
    "empty": b"",
    "many brackets": b"[" + b"[]," * 1_300_000 + b"[]]",
    "escapes": b'{"format": "feddac-architecture", "version": "\\u001b[2J"}',
    "no budget": b"budget = []",
    "many devices": b"[[device]]\ncount = 1000000000\n",
    "very many devices": b"[[device]]\ncount = 9223372036854775807\n",
    "unhashable baseline": b'baseline = ["a"]\n[methods.a]\n',
    "long budget name": b'[[budget]]\nname = "' + b"a" * 250 + b'"\nmacs = 1000\n',
}


def in_run(name: str) -> Callable[[Path], object]:
    """A reader of the whole report, with the hostile file under this name in an otherwise sound run folder."""

    def read(path: Path) -> object:
        folder = path.parent / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.toml").write_text("rounds = 1\n")
        (folder / name).write_bytes(path.read_bytes())
        try:
            return build_report(folder)
        finally:
            (folder / name).unlink()

    return read


READERS: dict[str, Callable[[Path], object]] = {
    "toml": lambda path: read_toml(path, "the file"),
    "fleet": read_fleet,
    "budgets": budgets_from_file,
    "experiment": read_experiment,
    "architecture": load_architecture,
    "member": load_member,
    "published": is_published,
    "checkpoint": lambda path: load_checkpoint(path, "signature"),
    "config": lambda path: RunFolder(path.parent).read_config(),
    "summary": in_run("summary.json"),
    "run budgets": in_run("budgets.json"),
    "metrics": in_run("metrics.jsonl"),
}

IN_RUN = ("summary", "run budgets", "metrics")
NO_JSON = [bomb for bomb in BOMBS if "toml" in bomb or "table" in bomb or "budget" in bomb or "devices" in bomb]
LONG = [
    *((reader, bomb) for reader in IN_RUN for bomb in NO_JSON),
    *((reader, "many brackets") for reader in ("member", "published", "summary", "run budgets")),
]
"""A second or more each, and much like others."""


def read_safely(read: Callable[[Path], object], path: Path) -> None:
    """The reader returns or raises one of our errors, in one printable line, and takes less than LIMIT_BYTES."""
    tracemalloc.start()
    try:
        said = refusal(read, path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert said is None or (said and said.isprintable() and len(said) < 1000), said
    assert peak < LIMIT_BYTES


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """What a reader says of a file; None if it takes it. No other exception than ours comes out."""
    try:
        read(path)
    except FedDACError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("reader", "bomb"),
    [
        *((reader, bomb) for reader in READERS for bomb in BOMBS if (reader, bomb) not in LONG),
        *slow(*LONG),
    ],
)
def test_no_file_breaks_a_reader(reader: str, bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(BOMBS[bomb])
    read_safely(READERS[reader], path)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # it takes no room


NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": make_pipe,
    "terabyte": make_terabyte,
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}
AT_PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{name: ("config.toml", read) for name, read in READERS.items() if name not in IN_RUN},
    "model": ("model.safetensors", read_model),
    "latest": ("latest", lambda path: load_federation(path.parent, Config())),
    "public key": ("key.pub", lambda path: Control("127.0.0.1:1").register(path, "device")),
    "root certificates": ("ca.crt", lambda path: Control("127.0.0.1:1", path)),
    "authority": ("ca.crt", lambda path: renew_certificates(path.parent, ["host"], [])),
    "image": ("image.png", lambda path: load_image_folder(path.parent.parent, path.parent.parent / "cache")),
    "models": ("models/cohort-0.safetensors", lambda path: RunFolder(path.parent.parent).load_model("cohort-0")),
    "summary": ("summary.json", lambda path: RunFolder(path.parent).read_summary()),
    "metrics": ("metrics.jsonl", lambda path: RunFolder(path.parent).events()),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("reader", AT_PLACES)
def test_what_is_no_file_or_too_large_is_refused_at_once(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = AT_PLACES[reader]
    path = tmp_path / "class" / name
    path.parent.mkdir(parents=True)
    NO_FILES[kind](path)
    read_safely(read, path)
    missing = kind == "loop"  # which several readers may do without
    assert missing or reader == "published" or refusal(read, path) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *(
            "event",
            "round",
            "cohort",
            "cohorts",
            "own_accuracy",
            "device",
            "status",
            "stages",
            "devices",
            "macs",
            "samples",
        ),
        *("bytes_down", "bytes_up", "seconds", "stage", "seed", "rounds", "test_accuracy", "epoch", "profile"),
    ]
)
RECORD = st.dictionaries(KEYS, JSON, max_size=5)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(summary=RECORD, budgets=st.lists(RECORD, max_size=3), events=st.lists(RECORD, max_size=4), kinds=st.data())
def test_values_of_any_kind_in_a_run_end_in_one_line(
    tmp_path: Path, summary: dict[str, Any], budgets: list[Any], events: list[dict[str, Any]], kinds: st.DataObject
) -> None:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text("rounds = 1\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "budgets.json").write_text(json.dumps(budgets))
    names = st.sampled_from(["stage", "search", "architecture", "round", "device", "evaluation"])
    lines = [json.dumps({**event, "event": kinds.draw(names)}) for event in events]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    said = refusal(build_report, folder)
    assert said is None or len(said.splitlines()) == 1


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), reader=st.sampled_from(sorted(set(READERS) - {"summary", "run budgets"})))
def test_no_bytes_break_a_reader(tmp_path: Path, content: bytes, reader: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    said = refusal(READERS[reader], path)
    assert said is None or said.isprintable()


def is_unusual(data: Any) -> bool:
    """Whether a number in it is one that JSON does not have, or that no file of ours holds."""
    if isinstance(data, dict):
        return any(map(is_unusual, data.values()))
    if isinstance(data, list):
        return any(map(is_unusual, data))
    return (isinstance(data, float) and not math.isfinite(data)) or (isinstance(data, int) and data == 10**41)


@settings(max_examples=examples(200))
@given(JSON)
@example({"a": 10**41})
def test_what_json_holds_comes_back_or_is_refused(data: Any) -> None:
    text = json.dumps(data)
    if is_unusual(data):
        with pytest.raises(Unreadable):
            parse_json(text)
    else:
        assert parse_json(text) == data


@settings(max_examples=examples(200))
@given(st.text(max_size=60))
def test_any_text_is_toml_or_unreadable(text: str) -> None:
    with suppress(Unreadable):
        assert isinstance(parse_toml(text.encode("utf-8", "surrogatepass")), dict)


@settings(max_examples=examples(200))
@given(st.integers(0, 2**64 - 1), st.binary(max_size=100))
@example(2**63, b"{}")
@example(2, b"{}")
@example(14, b'{"a":{"dtype":1}}')
def test_any_bytes_are_a_tensor_header_or_unreadable(length: int, rest: bytes) -> None:
    with suppress(Unreadable):
        tensor_header(struct.pack("<Q", length) + rest)


def test_sizes_are_looked_at_before_a_byte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    tracemalloc.start()
    with pytest.raises(Unreadable, match="1,099,511,627,776 bytes, more than"):
        read_limited(path)
    assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "/dev/zero", ".", "missing/file"])
def test_names_that_are_no_file(name: str, tmp_path: Path) -> None:
    path = Path(name) if name.startswith("/") else tmp_path / name
    with pytest.raises(FedDACError) as caught:
        read_toml(path, "the fleet file")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["~no-such-user-here/data", "a\0b", "a" * 5000])
def test_paths_of_a_user_that_cannot_be(text: str) -> None:
    with pytest.raises(FedDACError):
        user_path(text)


def test_an_image_too_large_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    tracemalloc.start()
    with pytest.raises(FedDACError, match="9000x9000"):
        decode_images(1, lambda _: png, lambda _: "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    tracemalloc.stop()
