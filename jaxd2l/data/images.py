"""A folder of images with one sub-folder for each class."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.geometry import as_int

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")  # none that runs another program
_GREY = {"1", "L", "LA", "La"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'jaxd2l[examples]'") from error
    return Image


def read_image(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    """One image, in [0, 1]; the first frame of several, without its transparency.

    `size` = (h, w) resizes it (bilinear, antialiased); `channels` is 1 (grey) or 3 (RGB), by
    default as the file has it.

    Shapes:
      result: (h, w, c) float32.

    Raises:
      ValueError: not readable as an image, of more pixels than Pillow's limit against decompression
        bombs, or of 16 bits and more a value. The message names the file.
      ImportError: Pillow is not installed.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"read_image: channels must be 1 (grey), 3 (RGB) or None, got {channels}")
    pillow = _pillow()
    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata is no concern here
            with pillow.open(path, formats=_FORMATS) as image:
                mode = image.mode
                if mode in _GREY | _COLOUR:
                    wanted = channels or (1 if mode in _GREY else 3)
                    image = image.convert("L" if wanted == 1 else "RGB")
                    if size is not None:
                        image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                    pixels = np.array(image, np.float32)
                    pixels /= 255.0
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{name}: cannot be read as an image: {error}") from error
    if mode not in _GREY | _COLOUR:
        raise ValueError(
            f"{name}: an image of mode {mode!r}; convert it to 8 bits, grey or RGB, first"
        )
    return pixels[..., None] if pixels.ndim == 2 else pixels  # (h, w, c)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def class_folders(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The sub-folders that are not hidden, sorted by name."""
    return tuple(path for path in _entries(Path(folder)) if path.is_dir())


def _image_files(folder: Path) -> list[Path]:
    files = []
    for path in _entries(folder):
        if path.is_dir():
            raise ValueError(
                f"{path}: a folder inside a class folder; images must lie directly in the folder "
                f"of their class"
            )
        if path.suffix.lower() in _ENDINGS:
            if not path.is_file():  # opening a pipe would wait for ever
                raise ValueError(f"{path}: not a file (a broken link, or something special)")
            files.append(path)
    if not files:
        raise ValueError(
            f"{folder}: a class folder without images (files ending in {' '.join(_ENDINGS)})"
        )
    return files


def load_image_folder(
    folder: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
    max_bytes: int = 4 << 30,
) -> Dataset:
    """Images by class: each sub-folder is a class, named by it, in sorted order.

    Hidden files and files that do not end as images do are passed over; deeper folders are
    refused. The images come class by class: shuffle before cutting off a part. `classes` gives
    the names and their order where they must equal those of another folder.

    Shapes:
      inputs: (n, h, w, c) float32 in [0, 1]; targets: (n,) int32.

    Raises:
      ValueError: no class folders, a class without images, a file that `read_image` refuses, images
        of different sizes (give `size`) or channels (give `channels`), folders that are not in
        `classes`, or more than `max_bytes` in all.
      ImportError: Pillow is not installed.
    """
    root = Path(folder)
    if size is not None:
        if len(size) != 2:
            raise ValueError(f"load_image_folder: size must be (height, width), got {size!r}")
        size = (as_int(size[0], "size: height", 1), as_int(size[1], "size: width", 1))
    folders = class_folders(root)
    if not folders:
        raise ValueError(f"{root}: no class folders; each class of images needs its own sub-folder")
    names = tuple(path.name for path in folders) if classes is None else tuple(classes)
    unknown = [path.name for path in folders if path.name not in names]
    if unknown:
        raise ValueError(f"{root}: the folder {unknown[0]!r} is none of the classes {names}")
    files = [(path, names.index(place.name)) for place in folders for path in _image_files(place)]
    inputs: np.ndarray | None = None
    for i, (path, _) in enumerate(files):
        pixels = read_image(path, size, channels)
        if inputs is None:
            if pixels.nbytes * len(files) > max_bytes:
                raise ValueError(
                    f"{root}: {len(files)} images of {pixels.shape} need more than the limit of "
                    f"{max_bytes:,} bytes; give a smaller size, or raise max_bytes"
                )
            inputs = np.empty((len(files), *pixels.shape), np.float32)
        elif pixels.shape != inputs.shape[1:]:
            raise ValueError(
                f"{path}: an image of (h, w, c) {pixels.shape}, but {files[0][0]} has "
                f"{inputs.shape[1:]}; give size=(h, w), and channels=1 or 3, to bring all to one"
            )
        inputs[i] = pixels
    labels = np.array([label for _, label in files], np.int32)
    assert inputs is not None  # there is at least one class, and none is empty
    return Dataset(inputs, labels, names)
