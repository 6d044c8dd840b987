"""Files that are either the old one or the whole new one, whatever happens while they are written.

Standard library only.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # other systems cannot open a folder; their rename is journalled
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system has no such call for folders
            raise
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """True for the names that `replacing` gives to files that are not finished.

    Example:
      >>> is_temporary(Path("runs/.a.safetensors.41-9f3c0d12.tmp")), is_temporary(Path("a.tmp"))
      (True, False)
    """
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write `path` in one step: the block writes a temporary file beside it, which replaces it.

    Order: write, flush, fsync the file, close, rename over `path`, fsync the folder. If the block
    or the disk fails, the temporary file goes and an earlier file at `path` is untouched. What a
    killed process left behind for the same `path` is removed first. One writer per path: of two at
    once, one fails with an OSError, and the file is a whole one.

    Raises:
      OSError: no permission, no folder, disk full; the message names `path`.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.txt"
      >>> with replacing(path) as file:
      ...     _ = file.write(b"whole")
      >>> path.read_bytes()
      b'whole'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        for stale in path.parent.iterdir():
            if is_temporary(stale) and stale.name.startswith(f".{path.name}."):
                stale.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # the same class again, chosen by errno, with a message that names the wanted file
            reason = f"cannot write, {error.strerror}; an earlier file there is unchanged"
            raise OSError(error.errno, reason, str(path)) from error
        raise
    _sync_folder(path.parent)
