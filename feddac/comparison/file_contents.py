"""What the files hold that a run reads, so that it never goes on with others that lie under the same name.

Of a fleet file a run keeps a copy, which says as much. Data with a known name, of the hub or of a function are not
looked at: nothing here tells, before they are loaded, whether they are as they were.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from common.config import Config
from common.errors import CheckpointError, FedDACError
from common.paths import user_path
from common.reading import Unreadable, sha256_of
from server.json_files import read_json, write_json
from server.run_folder import RunFolder

FILE = "files.json"
"""In a run folder: the SHA-256 of what each such setting named when the folder was prepared."""

KEYS = ("data", "architectures", "fednas-genotype")


class FileContents:
    """The contents of files as SHA-256; each is read once, however many runs name it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def of(self, config: Config) -> dict[str, str]:
        """One for each setting that names files, but for those that are not there or cannot be used: a run says so."""
        mapping = config.to_mapping()
        found = {key: self._of(key, str(mapping[key])) for key in KEYS}
        return {key: digest for key, digest in found.items() if digest}

    def _of(self, key: str, name: str) -> str:
        if (key, name) not in self._known:
            try:
                self._known[key, name] = _sha256_of(user_path(name), _files(key, name))
            except (FedDACError, Unreadable, OSError):
                self._known[key, name] = ""
        return self._known[key, name]


def write_contents(folder: RunFolder, contents: Mapping[str, str]) -> None:
    """Record what the files hold that a run begins with."""
    write_json(folder.path / FILE, contents)


def read_contents(folder: RunFolder) -> dict[str, str]:
    """What was recorded; nothing in a folder of an earlier version. Raises CheckpointError if the file is damaged."""
    path = folder.path / FILE
    if not path.exists():
        return {}
    contents = read_json(path)
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return contents


def _files(key: str, name: str) -> list[Path]:
    """The files that a run reads for this setting; none where it names no file."""
    from common.data.sources import files_of
    from common.models.darts_space import PUBLISHED
    from server.methods.architecture_files import files_at

    if not name:
        return []
    if key == "data":
        return files_of(name)
    if key == "architectures":
        return files_at(user_path(name))  # each says which weights are its own, by their SHA-256
    return [] if name in PUBLISHED else [user_path(name)]


def _sha256_of(path: Path, files: list[Path]) -> str:
    """Of names, as they are in the folder `path` or beside the file, and contents; empty for no files."""
    if not files:
        return ""
    root = path if path.is_dir() else path.parent
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()
