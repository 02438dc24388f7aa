"""How a command ends: its exit codes, the words between which others read what it says, and trouble with the disk."""

import errno
import os
import re

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; USAGE is for a wrong setting, INTERRUPTED for Ctrl-C, as a shell has it."""

REMEDY = "; this works: "
"""Between an error and the command that would not make it."""
ONCE_MENDED = "; once that is mended, "
"""Between what is wrong with the machine and how to go on."""

_STORAGE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.ESTALE,
)

_STORAGE_OF_SQLITE = (8, 10, 13, 14)
"""SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN; a further byte says more."""


def storage_problem(error: BaseException | None) -> str | None:
    """What the system says of the disk, if that is what this error, or one that led to it, is about."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE:
            return os.strerror(error.errno) + (f" ({error.filename})" if error.filename else "")
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _STORAGE_OF_SQLITE:
            return str(error)
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # as the writers of safetensors say it
            number = int(found[1])
            return os.strerror(number) if number in _STORAGE else None
        error = error.__cause__ or error.__context__
    return None
