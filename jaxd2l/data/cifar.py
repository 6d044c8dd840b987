"""CIFAR-10 in its binary form, read without trusting a byte of it.

The folder holds `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin` and `batches.meta.txt`,
the names of the classes. A file is records of 3073 bytes: the label, then the red, green and blue
planes of 32x32 pixels, row by row.
"""

import os
from pathlib import Path

import numpy as np

from jaxd2l.data.dataset import Dataset

SIDE, CHANNELS = 32, 3
RECORD = 1 + CHANNELS * SIDE * SIDE
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_TRAIN, _TEST, _NAMES = "data_batch_{}.bin", "test_batch.bin", "batches.meta.txt"
_BATCHES = range(1, 6)


def has_cifar10_files(folder: str | os.PathLike[str]) -> bool:
    """True where a file named as CIFAR-10 names its own lies in the folder."""
    names = [_TEST, *(_TRAIN.format(i) for i in _BATCHES)]
    return any((Path(folder) / name).is_file() for name in names)


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / _NAMES
    if not path.is_file():
        return CLASSES
    with open(path, "rb") as stream:
        text = stream.read(1 << 16)
    try:
        names = tuple(line.strip() for line in text.decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a list of names: {error}") from None
    if len(names) != len(CLASSES) or len(set(names)) != len(names):
        raise ValueError(
            f"{path}: must hold the {len(CLASSES)} different names of the classes, one a line, "
            f"got {len(names)}: {list(names[:12])}"
        )
    return names


def _read(path: Path) -> np.ndarray:
    """The records of one file, (n, 3073) bytes, their labels checked."""
    with open(path, "rb") as stream:
        data = np.frombuffer(stream.read(), np.uint8)
    if data.size == 0 or data.size % RECORD:
        whole, rest = divmod(data.size, RECORD)
        raise ValueError(
            f"{path}: {data.size:,} bytes are not whole records of {RECORD} bytes: after {whole} "
            f"records, at byte {whole * RECORD:,}, {rest} are left; the file is cut off or is not "
            f"the binary version of CIFAR-10"
        )
    records = data.reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"{path}: label {records[i, 0]} of record {i}, at byte {i * RECORD:,}, is outside "
            f"[0, {len(CLASSES)}); the file is damaged or is not the binary version of CIFAR-10"
        )
    return records


def _dataset(paths: list[Path], classes: tuple[str, ...], max_bytes: int) -> Dataset:
    wanted = 4 * sum(path.stat().st_size for path in paths)
    if wanted > max_bytes:
        raise ValueError(
            f"{paths[0].parent}: the images need {wanted:,} bytes in float32, more than the limit "
            f"of {max_bytes:,}; if that is right, raise max_bytes"
        )
    files = [_read(path) for path in paths]
    inputs = np.empty((sum(map(len, files)), SIDE, SIDE, CHANNELS), np.float32)
    start = 0
    for records in files:
        planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
        part = inputs[start : start + len(records)]
        np.divide(planes.transpose(0, 2, 3, 1), np.float32(255), out=part)  # (n, h, w, c)
        start += len(records)
    labels = np.concatenate([records[:, 0] for records in files]).astype(np.int32)
    return Dataset(inputs, labels, classes)


def load_cifar10_folder(
    folder: str | os.PathLike[str], max_bytes: int = 2 << 30
) -> dict[str, Dataset]:
    """The parts, "train" or "test" or both, of a folder of CIFAR-10's binary version.

    Of the five training files the first ones are enough, in their order, but none may be left out
    between. The classes are those of `batches.meta.txt`, or the ten known ones without it.

    Shapes:
      inputs: (n, 32, 32, 3) float32 in [0, 1]; targets: (n,) int32 in [0, 10).

    Raises:
      ValueError: no such files, a training file missing between others, a file of no whole number
        of records, a label above 9 (the message names the file and the byte), names that are not
        ten different ones, or more than `max_bytes` of images.

    Source: Krizhevsky 2009; the page of the data set, "CIFAR-10 binary version".
    """
    root = Path(folder)
    train = [root / _TRAIN.format(i) for i in _BATCHES]
    there = [path for path in train if path.is_file()]
    missing = [path for path in train[: len(there)] if path not in there]
    if missing:
        raise ValueError(f"{missing[0]}: missing, though {there[-1].name} is there")
    parts = {"train": there, "test": [path for path in [root / _TEST] if path.is_file()]}
    if not any(parts.values()):
        raise ValueError(
            f"{root}: no files of CIFAR-10's binary version: looked for "
            f"{_TRAIN.format(1)} to {_TRAIN.format(5)} and {_TEST}"
        )
    classes = _class_names(root)
    return {name: _dataset(paths, classes, max_bytes) for name, paths in parts.items() if paths}
