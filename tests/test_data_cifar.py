"""CIFAR-10's binary version: values, order, and every way in which a file can be wrong."""

import os

import numpy as np
import pytest

from jaxd2l import data
from jaxd2l.data import cifar, load, load_cifar10_folder

RECORD = 3073
NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def records(labels, seed=0):
    """Bytes of records with these labels, and their images (n, 32, 32, 3) as integers."""
    images = np.random.RandomState(seed).randint(0, 256, (len(labels), 32, 32, 3), np.uint8)
    parts = [
        bytes([label]) + b"".join(image[:, :, c].tobytes() for c in range(3))  # plane by plane
        for label, image in zip(labels, images, strict=True)
    ]
    return b"".join(parts), images


def write(folder, names=True, **files):
    for stem, content in files.items():
        (folder / f"{stem}.bin").write_bytes(content)
    if names:
        (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")  # as it is delivered
    return folder


@pytest.mark.smoke
def test_images_labels_and_names(tmp_path):
    first, images_1 = records([3, 0, 9], 1)
    second, images_2 = records([7], 2)
    test, images_3 = records([1, 1], 3)
    write(tmp_path, data_batch_1=first, data_batch_2=second, test_batch=test)
    parts = load_cifar10_folder(tmp_path)
    assert list(parts) == ["train", "test"]
    train = parts["train"]
    assert train.inputs.shape == (4, 32, 32, 3)
    assert train.inputs.dtype == np.float32
    want = np.concatenate([images_1, images_2]) / 255
    np.testing.assert_allclose(train.inputs, want, rtol=1e-6)
    np.testing.assert_array_equal(train.targets, [3, 0, 9, 7])
    assert train.classes == tuple(NAMES)
    np.testing.assert_allclose(parts["test"].inputs, images_3 / 255, rtol=1e-6)
    np.testing.assert_array_equal(parts["test"].targets, [1, 1])


def test_all_five_files_in_their_order_and_the_known_names(tmp_path):
    files = {f"data_batch_{i}": records([i, 2 * i - 1], i)[0] for i in range(1, 6)}
    (only,) = load_cifar10_folder(write(tmp_path, names=False, **files)).values()
    np.testing.assert_array_equal(only.targets, [1, 1, 2, 3, 3, 5, 4, 7, 5, 9])
    assert only.classes == cifar.CLASSES
    assert only.classes[0] == "airplane"


def test_load_knows_the_folder(tmp_path):
    train, _ = records([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    write(tmp_path, data_batch_1=train)
    held = load(tmp_path)
    assert (len(held.train), len(held.test)) == (8, 2)
    np.testing.assert_array_equal(held.test.targets, [8, 9])  # the last ones
    write(tmp_path, test_batch=records([5])[0])
    parts = load(tmp_path)
    assert isinstance(parts, data.Parts)
    assert (len(parts.train), len(parts.test)) == (10, 1)
    with pytest.raises(ValueError, match="has a test part of its own; hold_out is for data"):
        load(tmp_path, hold_out=1)
    with pytest.raises(ValueError, match=r"holds CIFAR-10 files, which have 3 channel\(s\)"):
        load(tmp_path, channels=1)
    assert load(tmp_path, size=(8, 16)).train.inputs.shape == (10, 8, 16, 3)


@pytest.mark.parametrize("cut", [1, 1500, RECORD - 1])
def test_a_truncated_file_is_refused_with_name_and_byte(tmp_path, cut):
    content, _ = records([1, 2, 3])
    write(tmp_path, data_batch_1=content, test_batch=content[:-cut])
    with pytest.raises(
        ValueError,
        match=rf"test_batch\.bin: .* after 2 records, at byte 6,146, {RECORD - cut} are left; "
        "the file is cut off",
    ):
        load_cifar10_folder(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data_batch_1\.bin: 0 bytes are not whole records"):
        load_cifar10_folder(write(tmp_path, data_batch_1=b""))


def test_a_wrong_label_is_refused_with_name_and_byte(tmp_path):
    content, _ = records([1, 10, 3])
    with pytest.raises(
        ValueError,
        match=r"data_batch_1\.bin: label 10 of record 1, at byte 3,073, is outside \[0, 10\)",
    ):
        load_cifar10_folder(write(tmp_path, data_batch_1=content))


def test_cifar_100_is_not_taken_for_cifar_10(tmp_path):
    with pytest.raises(ValueError, match=r"no files of CIFAR-10's binary version: looked for data"):
        load_cifar10_folder(write(tmp_path, train=bytes(3074)))
    fine = records([19, 29])[0]
    with pytest.raises(ValueError, match="label 19 of record 0, at byte 0"):
        load_cifar10_folder(write(tmp_path, data_batch_1=fine))


def test_a_missing_file_between_others_is_refused(tmp_path):
    content, _ = records([1])
    write(tmp_path, data_batch_1=content, data_batch_3=content)
    with pytest.raises(ValueError, match=r"data_batch_2\.bin: missing, though data_batch_3\.bin"):
        load_cifar10_folder(tmp_path)


@pytest.mark.parametrize("text", ["a\nb\n", "\n".join(["a"] * 10), "\n".join("abcdefghijk")])
def test_wrong_names_are_refused(tmp_path, text):
    write(tmp_path, data_batch_1=records([1])[0])
    (tmp_path / "batches.meta.txt").write_text(text)
    with pytest.raises(ValueError, match=r"batches\.meta\.txt: must hold the 10 different names"):
        load_cifar10_folder(tmp_path)
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff\xfe" * 10)
    with pytest.raises(ValueError, match=r"batches\.meta\.txt: not a list of names"):
        load_cifar10_folder(tmp_path)


def test_a_file_that_claims_too_much_is_not_read(tmp_path):
    write(tmp_path, data_batch_1=b"")
    os.truncate(tmp_path / "data_batch_1.bin", 1 << 30)  # sparse: nothing is stored
    with pytest.raises(ValueError, match="the images need 4,294,967,296 bytes in float32, more"):
        load_cifar10_folder(tmp_path)
