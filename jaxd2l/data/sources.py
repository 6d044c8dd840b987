"""One entry for every source of labelled images: nothing named, IDX or CIFAR files, or images."""

import os
from pathlib import Path

from jaxd2l.data.cifar import CHANNELS, has_cifar10_files, load_cifar10_folder
from jaxd2l.data.dataset import Dataset, Parts
from jaxd2l.data.digits import load_digits
from jaxd2l.data.idx import has_idx_files, load_idx_folder
from jaxd2l.data.images import class_folders, load_image_folder
from jaxd2l.data.splits import hold_out_last, train_test_split
from jaxd2l.data.transforms import resize

_TEST_NAMES = ("test", "val", "valid", "validation")


def _counted(dataset: Dataset, hold_out: int | None) -> int:
    return max(1, len(dataset) // 5) if hold_out is None else hold_out


def _resized(dataset: Dataset, size: tuple[int, int]) -> Dataset:
    return Dataset(resize(dataset.inputs, size), dataset.targets, dataset.classes)


def _check_none_held_out(hold_out: int | None, where: str) -> None:
    if hold_out is not None:
        raise ValueError(f"{where} has a test part of its own; hold_out is for data that has none")


def _load_images(
    root: Path, size: tuple[int, int] | None, channels: int | None, hold_out: int | None
) -> Parts:
    inside = {path.name: path for path in class_folders(root)}
    tests = [name for name in _TEST_NAMES if name in inside]
    if "train" in inside and tests and class_folders(inside["train"]):
        _check_none_held_out(hold_out, str(root))
        train = load_image_folder(inside["train"], size, channels)
        shape = train.inputs.shape[1:]
        test = load_image_folder(
            inside[tests[0]], size or (shape[0], shape[1]), shape[2], train.classes
        )
        return Parts(train, test)
    images = load_image_folder(root, size, channels)
    return train_test_split(images, _counted(images, hold_out))


def load(
    path: str | os.PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    hold_out: int | None = None,
) -> Parts:
    """Labelled images to train on and to test on.

    - None: the bundled digits, 28x28 unless `size` says otherwise.
    - A folder of IDX files (MNIST, Fashion-MNIST, gzipped or not), resized if `size` is given.
    - A folder of CIFAR-10's binary version (data_batch_1.bin ... test_batch.bin), likewise.
    - A folder of images with a sub-folder for each class, or with the folders `train` and `test`
      (or `val`) that have one each; `size` = (h, w) and `channels` as in `load_image_folder`.

    Where the source has a test part, that is used. Elsewhere `hold_out` examples (a fifth, if
    None) are held out: the last ones of IDX and CIFAR-10 files, a fixed random choice of
    images and digits.

    Raises:
      ValueError: nothing of this at `path`, or what the readers refuse.
      ImportError: the extra package that this source needs is not installed.
    """
    if path is None:
        if channels not in (None, 1) or (size is not None and size[0] != size[1]):
            raise ValueError("load: the bundled digits are square and have 1 channel")
        digits = load_digits() if size is None else load_digits(size[0])
        return train_test_split(digits, _counted(digits, hold_out))
    root = Path(path)
    idx = root.is_dir() and has_idx_files(root)
    if idx or (root.is_dir() and has_cifar10_files(root)):
        kind, own = ("IDX", 1) if idx else ("CIFAR-10", CHANNELS)
        if channels not in (None, own):
            raise ValueError(f"load: {root} holds {kind} files, which have {own} channel(s)")
        parts = load_idx_folder(root) if idx else load_cifar10_folder(root)
        if size is not None:
            parts = {name: _resized(part, size) for name, part in parts.items()}
        if len(parts) == 2:
            _check_none_held_out(hold_out, str(root))
            return Parts(**parts)
        (only,) = parts.values()
        return hold_out_last(only, _counted(only, hold_out))
    if root.is_dir() and class_folders(root):
        return _load_images(root, size, channels, hold_out)
    raise ValueError(
        f"load: no data at {root}: looked for a folder with IDX files (train-images-idx3-ubyte or "
        f"t10k-images-idx3-ubyte, with labels, plain or .gz) or CIFAR-10's (data_batch_1.bin or "
        f"test_batch.bin), or a folder with a sub-folder of images for each class"
    )
