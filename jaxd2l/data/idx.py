"""IDX files, the format of MNIST and Fashion-MNIST, read without trusting a byte of them.

A file is two zero bytes, a type code, the rank, the sizes as big-endian 32-bit integers, and the
values. The sizes are a claim: memory is taken only as data arrives, and reading stops at the first
byte beyond.
"""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxd2l.data.dataset import Dataset

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_RANK = 8
_CHUNK = 1 << 20
_PARTS = {"train": "train", "test": "t10k"}  # by the names of MNIST's files
DIGIT_NAMES = tuple(str(digit) for digit in range(10))


def _read(stream: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, taking memory only for what is really there."""
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(min(_CHUNK, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def _parse(stream: BinaryIO, name: str, max_bytes: int) -> np.ndarray:
    magic = _read(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(
            f"{name}: not an IDX file: the first bytes are {bytes(magic).hex(' ') or 'missing'}, "
            f"wanted 00 00, a type code (08 09 0b 0c 0d 0e) and the rank"
        )
    rank = magic[3]
    if not 1 <= rank <= _MAX_RANK:
        raise ValueError(f"{name}: an IDX file of rank {rank}; ranks 1 to {_MAX_RANK} are read")
    header = _read(stream, 4 * rank)
    if len(header) < 4 * rank:
        raise ValueError(f"{name}: truncated: the header of {rank} sizes ends early")
    shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(rank))
    if 0 in shape:
        raise ValueError(f"{name}: holds nothing: its header claims the sizes {shape}")
    dtype = np.dtype(_TYPES[magic[2]])
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > max_bytes:
        raise ValueError(
            f"{name}: its header claims {wanted:,} bytes of data {shape}, more than the limit of "
            f"{max_bytes:,}; if that is right, raise max_bytes"
        )
    data = _read(stream, wanted)
    if len(data) < wanted:
        raise ValueError(
            f"{name}: truncated: its header claims {wanted:,} bytes of data {shape}, "
            f"but there are {len(data):,}"
        )
    if stream.read(1):  # also makes gzip compare its checksum
        raise ValueError(
            f"{name}: has data beyond the {wanted:,} bytes that its header claims {shape}"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx(path: str | os.PathLike[str], max_bytes: int = 2 << 30) -> np.ndarray:
    """The array in an IDX file, plain or gzipped (told by its content, not by its name).

    Raises:
      ValueError: not an IDX file, a rank above 8, an empty axis, more than `max_bytes` claimed,
        less or more data than claimed (a gzip bomb is not unpacked beyond the claim), damaged gzip.
        The message names the file.
      OSError: the file cannot be opened.

    Source: the format is given on the MNIST page of Y. LeCun, C. Cortes and C. Burges.
    """
    name = os.fspath(path)
    with open(path, "rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            return _parse(raw, name, max_bytes)
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _parse(unpacked, name, max_bytes)  # type: ignore[arg-type]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{name}: damaged gzip file: {error}") from error


def _names(part: str, kind: str, rank: int) -> list[str]:
    stems = (f"{part}-{kind}-idx{rank}-ubyte", f"{part}-{kind}.idx{rank}-ubyte")
    return [stem + ending for stem in stems for ending in ("", ".gz")]


def _find(folder: Path, part: str, kind: str, ranks: Sequence[int]) -> Path | None:
    for rank in ranks:
        for name in _names(part, kind, rank):
            if (folder / name).is_file():
                return folder / name
    return None


def _find_part(folder: Path, part: str) -> tuple[Path | None, Path | None]:
    return _find(folder, part, "images", (3, 4)), _find(folder, part, "labels", (1,))


def has_idx_files(folder: str | os.PathLike[str]) -> bool:
    """True where a file named as MNIST names its own lies in the folder."""
    return any(path for part in _PARTS.values() for path in _find_part(Path(folder), part))


def _load_part(folder: Path, part: str, classes: tuple[str, ...], max_bytes: int) -> Dataset | None:
    images_path, labels_path = _find_part(folder, part)
    if images_path is None and labels_path is None:
        return None
    if images_path is None or labels_path is None:
        missing = "images-idx3" if images_path is None else "labels-idx1"
        there = labels_path or images_path
        raise ValueError(f"{there}: its other half {part}-{missing}-ubyte[.gz] is not there")
    labels = read_idx(labels_path, max_bytes)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{labels_path}: labels must be integers of shape (n,), got {labels.dtype} "
            f"of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        bad = int(np.argmax((labels < 0) | (labels >= len(classes))))
        raise ValueError(
            f"{labels_path}: label {labels[bad]} at example {bad} is outside [0, {len(classes)}); "
            f"pass classes= if there are more than {len(classes)}"
        )
    images = read_idx(images_path, max_bytes)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{images_path}: images must be bytes of shape (n, h, w) or (n, h, w, c), "
            f"got {images.dtype} of shape {images.shape}"
        )
    if len(images) != len(labels):
        raise ValueError(f"{images_path} has {len(images)} images, {labels_path} {len(labels)}")
    scaled = images.astype(np.float32)
    scaled /= 255.0
    return Dataset(scaled[..., None] if scaled.ndim == 3 else scaled, labels, classes)


def load_idx_folder(
    folder: str | os.PathLike[str],
    classes: Sequence[str] = DIGIT_NAMES,
    max_bytes: int = 2 << 30,
) -> dict[str, Dataset]:
    """The parts, "train" or "test" or both, of a folder of MNIST or Fashion-MNIST files.

    Files are named `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, with `.gz`
    or without, also with `.idx` in place of `-idx`; the plain file is taken where both are there.

    Shapes:
      inputs: (n, h, w, c) float32 in [0, 1]; targets: (n,) int32 in [0, len(classes)).

    Raises:
      ValueError: no such files, images without labels or the reverse, unequal counts, a label
        outside the classes, or a file that `read_idx` refuses.
    """
    root = Path(folder)
    names = tuple(classes)
    found = {key: _load_part(root, part, names, max_bytes) for key, part in _PARTS.items()}
    parts = {key: part for key, part in found.items() if part is not None}
    if not parts:
        raise ValueError(
            f"{root}: no IDX files: looked for train-images-idx3-ubyte and "
            f"t10k-images-idx3-ubyte, with their labels, plain or .gz"
        )
    return parts
