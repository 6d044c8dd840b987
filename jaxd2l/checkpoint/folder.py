"""A run's folder: one checkpoint per step, and the metrics beside them."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxd2l.checkpoint import file
from jaxd2l.checkpoint.atomic import is_temporary, replacing
from jaxd2l.checkpoint.file import PathLike, save
from jaxd2l.geometry import as_int

_STEP_NAME = re.compile(r"step_([0-9]{8,18})\.safetensors")


def step_path(folder: PathLike, step: int) -> Path:
    """Where the checkpoint of a step lies.

    Example:
      >>> step_path("run", 1234).as_posix()
      'run/step_00001234.safetensors'
    """
    return Path(folder) / f"step_{as_int(step, 'step', 0):08d}.safetensors"


def steps(folder: PathLike) -> list[int]:
    """The steps that have a checkpoint, ascending; other files are ignored, no folder gives []."""
    folder = Path(folder)
    found = []
    for path in folder.iterdir() if folder.exists() else ():
        match = _STEP_NAME.fullmatch(path.name)
        if match and step_path(folder, int(match[1])) == path and path.is_file():
            found.append(int(match[1]))
    return sorted(found)


def latest(folder: PathLike, *, verify: bool = False) -> Path | None:
    """The checkpoint of the largest step, found by looking; None if there is no checkpoint.

    `verify=True` reads it whole; a damaged one is skipped with a `RuntimeWarning` that names it.

    Raises:
      ValueError: `verify=True` and every checkpoint is damaged.
    """
    found = [step_path(folder, step) for step in reversed(steps(folder))]
    if not verify:
        return found[0] if found else None
    problems = []
    for path in found:
        try:
            file.verify(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"skipped a damaged checkpoint: {problem}", RuntimeWarning, stacklevel=2)
        return path
    if problems:
        raise ValueError(f"{folder}: every checkpoint is damaged:\n  " + "\n  ".join(problems))
    return None


def drop_after(folder: PathLike, step: int) -> list[Path]:
    """Delete the checkpoints of later steps, before a run goes on from `step`; give their paths."""
    as_int(step, "drop_after: step", 0)
    dropped = [step_path(folder, s) for s in steps(folder) if s > step]
    for path in dropped:
        path.unlink(missing_ok=True)
    return dropped


def save_step(
    folder: PathLike,
    step: int,
    tree: Any,
    *,
    net: Any = None,
    meta: Mapping[str, Any] | None = None,
    keep_last: int | None = 3,
) -> Path:
    """`save` as `step_00001234.safetensors`, then delete all but the last `keep_last`.

    `step` is added to `meta`. `keep_last=None` keeps all. Older files go only once the
    new one is in place, and with them what killed runs left unfinished. One run per folder.

    Raises:
      ValueError: the folder holds later steps, so it belongs to another run; or `meta` names
        another step; or see `save`.
    """
    if keep_last is not None:
        as_int(keep_last, "save_step: keep_last", 1)
    path = step_path(folder, step)
    meta = dict(meta or {})
    if meta.setdefault("step", int(step)) != step:
        raise ValueError(f"save_step: step is {step}, but meta['step'] is {meta['step']!r}")
    later = [s for s in steps(folder) if s > step]
    if later:
        raise ValueError(
            f"save_step: {folder} already holds the later steps {later}; resume from the latest, "
            f"choose another folder, or delete them with drop_after(folder, {step})"
        )
    save(path, tree, net=net, meta=meta)
    if keep_last is not None:
        for old in steps(folder)[:-keep_last]:
            step_path(folder, old).unlink(missing_ok=True)
    for stale in path.parent.iterdir():
        unfinished = is_temporary(stale) and stale.name.startswith(".step_")
        if unfinished and f".safetensors.{os.getpid()}-" not in stale.name:
            stale.unlink(missing_ok=True)
    return path


# Metrics beside the checkpoints


def truncate_jsonl(path: PathLike, step: int) -> int:
    """Keep the lines of a JSON-lines file whose "step" is at most `step`, in one step.

    Lines without a "step" are kept as they are; a half-written last line and blank lines go. Gives
    the number of lines that stay; no file counts as an empty one.

    Raises:
      ValueError: another line than the last is not a JSON object, or a "step" is not a number.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> _ = path.write_text('{"step": 1}\\n{"step": 2}\\n{"step": 3}\\n{"st')
      >>> truncate_jsonl(path, 2), path.read_text()
      (2, '{"step": 1}\\n{"step": 2}\\n')
    """
    path = Path(path)
    if not path.exists():
        return 0
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    kept = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break  # the run was killed while writing it
            raise ValueError(
                f"{path}, line {number}: {error}; delete or rename the file, and its history "
                f"starts anew"
            ) from None
        at = value.get("step", step)
        if isinstance(at, bool) or not isinstance(at, int | float):
            raise ValueError(f"{path}, line {number}: step is {at!r}, not a number")
        if at <= step:
            kept.append(line + b"\n")
    with replacing(path) as file:
        file.write(b"".join(kept))
    return len(kept)
