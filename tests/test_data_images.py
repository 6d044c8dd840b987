"""Folders of images by class, and the one entry to all sources."""

import gzip
import io
import os
import random
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxd2l.data import load, load_image_folder, read_image, resize

GREY = np.random.RandomState(0).randint(0, 256, (5, 4)).astype(np.uint8)
COLOUR = np.random.RandomState(1).randint(0, 256, (5, 4, 3)).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "pgm", "PNG"])
def test_grey_values(tmp_path, ending):
    image = read_image(save(tmp_path / f"a.{ending}", GREY), channels=1)
    assert image.shape == (5, 4, 1)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[..., 0], GREY / 255.0, rtol=1e-6)


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm"])
def test_colour_values(tmp_path, ending):
    image = read_image(save(tmp_path / f"a.{ending}", COLOUR))
    np.testing.assert_allclose(image, COLOUR / 255.0, rtol=1e-6)
    grey = read_image(tmp_path / f"a.{ending}", channels=1)
    np.testing.assert_allclose(
        grey[..., 0], COLOUR @ np.array([0.299, 0.587, 0.114]) / 255, atol=0.005
    )


def test_grey_as_colour_and_jpeg(tmp_path):
    image = read_image(save(tmp_path / "a.png", GREY), channels=3)
    np.testing.assert_allclose(image, np.repeat(GREY[..., None], 3, -1) / 255.0, rtol=1e-6)
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    image = read_image(save(tmp_path / "a.jpg", flat))
    np.testing.assert_allclose(image, flat / 255.0, atol=0.02)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_eight_bits(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / f"a.{ending}")
    channels = 1 if mode in ("1", "L", "LA") else 3
    image = read_image(tmp_path / f"a.{ending}")
    assert image.shape == (5, 4, channels)
    assert 0 <= image.min() <= image.max() <= 1


def test_resize_to_height_and_width(tmp_path):
    image = read_image(save(tmp_path / "a.png", np.full((6, 9), 51, np.uint8)), size=(3, 2))
    assert image.shape == (3, 2, 1)
    np.testing.assert_allclose(image, 0.2, rtol=1e-6)


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 257)
    with pytest.raises(ValueError, match=r"a\.png: an image of mode 'I.*convert it to 8 bits"):
        read_image(path)


def png_claiming(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused(tmp_path, side):
    """Pillow only warns of the first of these."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(side, side))
    with pytest.raises(ValueError, match=r"bomb\.png: cannot be .* exceeds limit of \d+ pixels"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        read_image(path)


def test_bad_channels(tmp_path):
    with pytest.raises(ValueError, match=r"1 \(grey\), 3 \(RGB\) or None, got 2"):
        read_image(tmp_path / "a.png", channels=2)


def test_without_pillow_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxd2l\[examples\]'"):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_mutated_images_give_pixels_or_a_value_error(tmp_path, kind):
    pixels = np.random.RandomState(2).randint(0, 256, (24, 24, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    good, chance = buffer.getvalue(), random.Random(0)
    path = tmp_path / "mutated.png"
    refused = unnamed = 0
    for _ in range(40):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            data[int(chance.random() ** 2 * len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            image = read_image(path)
        except ValueError as error:
            unnamed += "mutated.png" not in str(error)
            refused += 1
        else:
            assert np.isfinite(image).all()
    assert refused > 5
    assert not unnamed


# Folders


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for name, value in (("dog", 100), ("cat", 50)):
        for i in range(3):
            save(root / name / f"{i}.png", np.full((5, 4), value + i, np.uint8))
    return root


def test_classes_are_the_sorted_folders(pets):
    (pets / ".hidden").mkdir()
    (pets / "cat" / ".thumb.png").write_bytes(b"junk")
    (pets / "cat" / "notes.txt").write_text("junk")
    (pets / "README").write_text("junk")
    data = load_image_folder(pets)
    assert data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.targets, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(
        data.inputs[:, 0, 0, 0], np.array([50, 51, 52, 100, 101, 102]) / 255, rtol=1e-6
    )
    assert load_image_folder(pets, size=(8, 6), channels=3).inputs.shape == (6, 8, 6, 3)


def test_the_order_of_classes_can_be_given(pets):
    data = load_image_folder(pets, classes=("dog", "bird", "cat"))
    np.testing.assert_array_equal(data.targets, [2, 2, 2, 0, 0, 0])
    with pytest.raises(ValueError, match=r"the folder 'dog' is none of the classes \('cat',\)"):
        load_image_folder(pets, classes=("cat",))


def test_unequal_images_need_a_size(pets):
    save(pets / "dog" / "9.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(
        ValueError, match=r"9\.png: an image .* \(6, 4, 1\), .*0\.png has \(5, 4, 1\)"
    ):
        load_image_folder(pets)
    assert len(load_image_folder(pets, size=(5, 4))) == 7


def test_mixed_channels_need_a_choice(pets):
    save(pets / "dog" / "9.png", COLOUR)
    with pytest.raises(ValueError, match="channels=1 or 3"):
        load_image_folder(pets)
    assert load_image_folder(pets, channels=1).inputs.shape == (7, 5, 4, 1)


def make_empty_class(pets):
    (pets / "bird").mkdir()


def make_nested(pets):
    (pets / "cat" / "more").mkdir()


def make_loop(pets):
    (pets / "cat" / "loop").symlink_to(pets)


def make_broken_link(pets):
    (pets / "cat" / "x.png").symlink_to(pets / "nothing.png")


def make_link_to_itself(pets):
    (pets / "cat" / "x.png").symlink_to(pets / "cat" / "x.png")


def make_pipe(pets):
    os.mkfifo(pets / "cat" / "x.png")


def make_junk(pets):
    (pets / "cat" / "x.png").write_bytes(b"junk")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_empty_class, "bird: a class folder without images"),
        (make_nested, "more: a folder inside a class folder"),
        (make_loop, "loop: a folder inside a class folder"),
        (make_broken_link, r"x\.png: not a file"),
        (make_link_to_itself, r"x\.png: not a file"),
        (make_pipe, r"x\.png: not a file"),
        (make_junk, r"x\.png: cannot be read as an image"),
    ],
)
def test_spoiled_folders_are_refused(pets, spoil, message):
    spoil(pets)
    with pytest.raises(ValueError, match=message):
        load_image_folder(pets)


def test_a_folder_without_classes_and_bad_sizes(pets):
    with pytest.raises(ValueError, match="no class folders"):
        load_image_folder(pets / "cat")
    with pytest.raises(ValueError, match="height must be at least 1, got 0"):
        load_image_folder(pets, size=(0, 4))
    with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
        load_image_folder(pets, size=(4,))
    with pytest.raises(
        ValueError, match=r"6 images of \(5, 4, 1\) need more than the limit of 479"
    ):
        load_image_folder(pets, max_bytes=479)
    assert len(load_image_folder(pets, max_bytes=480)) == 6


# load


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_part(folder, part, n):
    images = np.zeros((n, 5, 4)) + np.arange(n)[:, None, None]
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))


def test_load_nothing_named_gives_digits():
    parts = load()
    assert [len(part) for part in parts] == [1438, 359]
    assert parts.train.inputs.shape[1:] == (28, 28, 1)
    assert (np.bincount(parts.test.targets, minlength=10) > 20).all()
    small = load(size=(8, 8), hold_out=100)
    assert small.train.inputs.shape == (1697, 8, 8, 1)
    for options in ({"channels": 3}, {"size": (8, 9)}):
        with pytest.raises(ValueError, match="square and have 1 channel"):
            load(**options)


def test_load_idx_with_both_parts(tmp_path):
    idx_part(tmp_path, "train", 12)
    idx_part(tmp_path, "t10k", 7)
    assert [len(part) for part in load(tmp_path)] == [12, 7]
    with pytest.raises(ValueError, match="has a test part of its own"):
        load(tmp_path, hold_out=2)
    with pytest.raises(ValueError, match="IDX files, which have 1 channel"):
        load(tmp_path, channels=3)
    enlarged = load(tmp_path, size=(9, 8))
    assert [part.inputs.shape[1:] for part in enlarged] == [(9, 8, 1)] * 2
    assert enlarged.test.targets.tolist() == load(tmp_path).test.targets.tolist()


@pytest.mark.parametrize("size", [(9, 14), (3, 2), (6, 7), (1, 20)])
def test_resize_is_that_of_pillow(size):
    image = np.random.RandomState(0).uniform(size=(6, 7)).astype(np.float32)
    pillow = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    both = np.stack([image, 1 - image])[..., None]
    got = resize(both, size)
    assert (got.shape, got.dtype) == ((2, *size, 1), np.float32)
    np.testing.assert_allclose(got[0, ..., 0], np.asarray(pillow), atol=1e-6)
    np.testing.assert_allclose(got[1], 1 - got[0], atol=1e-6)


def test_resize_refuses_other_arrays():
    with pytest.raises(
        ValueError, match=r"floating point \(n, h, w, c\), got uint8 \(1, 2, 2, 1\)"
    ):
        resize(np.zeros((1, 2, 2, 1), np.uint8), (4, 4))
    with pytest.raises(ValueError, match="resize: size must be at least 1, got 0"):
        resize(np.zeros((1, 2, 2, 1), np.float32), (0, 4))


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_load_idx_with_one_part_holds_out_the_last(tmp_path, part):
    idx_part(tmp_path, part, 10)
    train, test = load(str(tmp_path), hold_out=3)
    np.testing.assert_array_equal(train.targets, np.arange(7))
    np.testing.assert_array_equal(test.targets, [7, 8, 9])
    assert len(load(tmp_path).test) == 2


def test_load_images_by_class(pets):
    train, test = load(pets, hold_out=2)
    assert (len(train), len(test)) == (4, 2)
    assert train.classes == test.classes == ("cat", "dog")
    values = np.concatenate([train.inputs, test.inputs])[:, 0, 0, 0] * 255
    np.testing.assert_allclose(np.sort(values), [50, 51, 52, 100, 101, 102], rtol=1e-5)


@pytest.mark.parametrize("second", ["test", "val"])
def test_load_images_with_train_and_test_folders(tmp_path, second):
    save(tmp_path / "train" / "a" / "1.png", COLOUR)
    save(tmp_path / "train" / "b" / "1.png", COLOUR)
    save(tmp_path / second / "b" / "1.png", np.zeros((9, 9), np.uint8))
    train, test = load(tmp_path)
    assert train.inputs.shape == (2, 5, 4, 3)
    assert test.inputs.shape == (1, 5, 4, 3)
    assert test.targets.tolist() == [1]
    assert test.classes == ("a", "b")
    with pytest.raises(ValueError, match="has a test part"):
        load(tmp_path, hold_out=1)


def test_load_says_what_it_looked_for(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "absent", tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match=r"no data at .*IDX files.* sub-folder of images"):
            load(path)
