"""What a run of `fit` keeps on disk, and how it is taken up again."""

import dataclasses
import functools
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxd2l import checkpoint, records
from jaxd2l.data import Batches
from jaxd2l.layers import Layer
from jaxd2l.train.step import Model, TrainState, all_finite

Record = dict[str, Any]


class Diverged(FloatingPointError):
    """Training produced NaN or infinity. `checkpoint` is the last good one, or None."""

    def __init__(self, message: str, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


def _copied(train: TrainState) -> TrainState:
    """A copy whose memory may be given away: scalars of a tree may share one buffer."""
    return jax.tree.map(lambda a: a.copy(), train)


def _read_history(path: Path) -> list[Record]:
    """The records in a metrics file; null stands for a figure that was not finite."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: math.nan if v is None else v for k, v in line.items()} for line in lines]


def _append(path: Path, record: Record) -> None:
    plain = {k: v if math.isfinite(v) else None for k, v in record.items()}
    with path.open("a") as file:
        file.write(json.dumps(plain, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a run: its checkpoints and its metrics; without a folder there are none."""

    model: Layer | Model
    folder: Path | None
    keep_last: int
    batches: Batches
    meta: Mapping[str, Any] | None

    @functools.cached_property
    def record(self) -> Layer | None:
        """The network, where it is one that can be written to a file (no functions in it)."""
        if not isinstance(self.model, Layer):
            return None
        try:
            records.dump(self.model)
        except TypeError:
            return None
        return self.model

    @functools.cached_property
    def loader(self) -> dict[str, int]:
        """What the batches are a function of; a run can only go on over the same ones."""
        dataset = self.batches.dataset
        checksum = 0
        for array in (dataset.inputs, dataset.targets):
            checksum = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
        return {
            "seed": self.batches.seed,
            "batch_size": self.batches.batch_size,
            "examples": len(dataset),
            "checksum": checksum,
            **({} if self.batches.shuffle else {"shuffle": 0}),
        }

    @property
    def metrics_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "metrics.jsonl"

    def open(self, fresh: TrainState, resume: bool) -> tuple[TrainState, list[Record]]:
        """The state to start from and the history so far."""
        if self.folder is None:
            return _copied(fresh), []
        newest = checkpoint.latest(self.folder)
        if newest is not None and not resume:
            raise ValueError(
                f"fit: {self.folder} already holds a run (up to {newest.name}); "
                f"pass resume=True to continue it, or choose another folder"
            )
        newest = checkpoint.latest(self.folder, verify=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if newest is None:
            self.metrics_path.unlink(missing_ok=True)
            return _copied(fresh), []
        loaded, meta = checkpoint.load(newest, fresh)
        if meta.get("loader") != self.loader:
            raise ValueError(
                f"fit: {newest} was written by a run over other data or batches, "
                f"{meta.get('loader')}; this one has {self.loader}"
            )
        if self.record is not None:
            stored = checkpoint.load_network(newest)
            if stored != self.record:
                raise ValueError(
                    f"fit: {newest} was written by a run of another network, {stored}; "
                    f"this one trains {self.record}"
                )
        at = int(loaded.step)
        checkpoint.drop_after(self.folder, at)
        checkpoint.truncate_jsonl(self.metrics_path, at)
        return _copied(loaded), _read_history(self.metrics_path)

    def check(self, current: TrainState, step: int) -> None:
        """Stop a run that has left the finite numbers."""
        tree = (current.params, current.state)
        if bool(current.finite) and bool(all_finite(tree)):
            return
        good = checkpoint.latest(self.folder) if self.folder is not None else None
        kept = f"; the last good checkpoint is {good}" if good is not None else ""
        raise Diverged(
            f"training diverged: the loss or a parameter was NaN or infinite by step {step}. "
            f"Try a smaller learning rate, or clip the gradient{kept}",
            good,
        )

    def save(self, current: TrainState, step: int) -> None:
        """Check, then write a checkpoint; nothing happens without a folder."""
        self.check(current, step)
        if self.folder is None:
            return
        meta = dict(self.meta or {})
        meta["loader"] = self.loader
        meta["input_shape"] = list(self.batches.dataset.inputs.shape[1:])
        meta["position"] = {
            "epoch": step // len(self.batches),
            "step": step % len(self.batches),
        }
        checkpoint.save_step(
            self.folder, step, current, net=self.record, meta=meta, keep_last=self.keep_last
        )

    def write(self, record: Record) -> None:
        """Append one line to the metrics file."""
        if self.folder is not None:
            _append(self.metrics_path, record)
