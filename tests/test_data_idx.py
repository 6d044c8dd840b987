"""IDX files: what is read, what is refused, and what memory it takes to refuse."""

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxd2l.data import load_idx_folder, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    """An independent writer of the format."""
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def claim(*shape, code=0x08):
    return struct.pack(">BBBB", 0, 0, code, len(shape)) + struct.pack(f">{len(shape)}I", *shape)


@pytest.fixture
def write(tmp_path):
    def write(data, name="data-idx"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (1, 2, 1, 2, 1, 2, 1, 3)])
def test_round_trip_of_every_type(write, code, packed, shape):
    array = (np.random.RandomState(0).rand(*shape) * 200 - 50).astype(code)
    if code == "u1":
        array = np.random.RandomState(0).randint(0, 256, shape).astype(code)
    data = idx_bytes(array)
    read = read_idx(write(gzip.compress(data) if packed else data))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(code)
    assert read.dtype.isnative


def test_gzip_is_told_by_content_and_may_have_several_members(write):
    array = np.arange(100, dtype=np.uint8)
    data = idx_bytes(array)
    np.testing.assert_array_equal(read_idx(write(data, "plain.gz")), array)
    two = gzip.compress(data[:50]) + gzip.compress(data[50:])
    np.testing.assert_array_equal(read_idx(write(two, "packed")), array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file: the first bytes are missing"),
        (GOOD[:3], "not an IDX file: the first bytes are 00 00 08"),
        (b"\1" + GOOD[1:], "not an IDX file: the first bytes are 01 00 08 03"),
        (GOOD[:2] + b"\x0a" + GOOD[3:], "not an IDX file: the first bytes are 00 00 0a 03"),
        (GOOD[:3] + b"\0" + GOOD[4:], "rank 0; ranks 1 to 8 are read"),
        (GOOD[:3] + b"\xff" + GOOD[4:], "rank 255"),
        (GOOD[:15], "truncated: the header of 3 sizes ends early"),
        (GOOD[:16], r"claims 24 bytes of data \(2, 3, 4\), but there are 0"),
        (GOOD[:-1], "but there are 23"),
        (GOOD + b"\0", r"data beyond the 24 bytes that its header claims \(2, 3, 4\)"),
        (claim(0, 3) + GOOD[16:], r"holds nothing: its header claims the sizes \(0, 3\)"),
        (claim(0, 2**32 - 1, 2**32 - 1), "holds nothing"),
        (claim(*[2**32 - 1] * 8), "more than the limit of 2,147,483,648"),
        (claim(2**31 + 1), "claims 2,147,483,649 bytes"),
        (claim(2**28 + 1, code=0x0E), "claims 2,147,483,656 bytes"),
        (claim(2**31 - 1), "but there are 0"),
        (claim(2**31 - 1) + bytes(1000), "but there are 1,000"),
    ],
)
def test_files_that_lie_are_refused(write, pack, data, message):
    path = write(pack(data))
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_the_limit_is_an_argument(write):
    path = write(GOOD)
    assert read_idx(path, max_bytes=24).shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"limit of 23; .* raise max_bytes"):
        read_idx(path, max_bytes=23)


def test_damaged_gzip_is_refused(write):
    packed = gzip.compress(GOOD)
    damaged = {
        "cut short": packed[:-12],
        "no trailer": packed[:-8],
        "checksum": packed[:-8] + struct.pack("<I", zlib.crc32(GOOD) ^ 1) + packed[-4:],
        "length": packed[:-4] + b"\x07\0\0\0",
        "only magic": packed[:2],
        "method": packed[:2] + b"\x01" + packed[3:],
        "garbage behind": packed + b"garbage",
        "body": packed[:12] + bytes(20) + packed[32:],
    }
    for name, data in damaged.items():
        path = write(data, name)
        with pytest.raises(ValueError, match=r"damaged gzip file|truncated") as error:
            read_idx(path)
        assert str(path) in str(error.value), name


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


def peak_of(call):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".") as error:
            call()
        return tracemalloc.get_traced_memory()[1], str(error.value)
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked(write):
    """300 MB of zeros in 300 kB, behind a header that claims 24 bytes, or 2 GiB, or too much."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    start = pack.compress(GOOD) + b"".join(pack.compress(zeros) for _ in range(300))
    bomb = start + pack.flush()
    assert len(bomb) < 1 << 19
    peak, message = peak_of(lambda: read_idx(write(bomb)))
    assert "beyond the 24 bytes" in message
    assert peak < 4 << 20

    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = pack.compress(claim(2**31 + 1)) + b"".join(pack.compress(zeros) for _ in range(50))
    peak, message = peak_of(lambda: read_idx(write(start + pack.flush())))
    assert "more than the limit" in message
    assert peak < 4 << 20


def test_a_claim_alone_takes_no_memory(write):
    for data in (claim(2**31 - 1), gzip.compress(claim(2**31 - 1) + bytes(1000))):
        peak, _ = peak_of(lambda data=data: read_idx(write(data)))
        assert peak < 4 << 20


@settings(max_examples=300)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0, 1.2),
    st.binary(max_size=4),
)
def test_mutated_files_give_an_array_or_a_value_error(
    tmp_path_factory, packed, inner, changes, cut, tail
):
    def mutate(data):
        data = bytearray(data)
        for place, value in changes:
            data[int(place * (len(data) - 1))] = value
        return bytes(data[: int(cut * len(data)) + 1]) + tail

    data = mutate(GOOD) if inner else GOOD
    data = gzip.compress(data) if packed else data
    data = data if inner else mutate(data)
    path = tmp_path_factory.getbasetemp() / "mutated-idx"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        outcome = read_idx(path).tobytes()
    except ValueError as error:
        outcome = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
    assert str(path) in outcome if isinstance(outcome, str) else len(outcome) < 1000


# Folders


IMAGES = np.random.RandomState(0).randint(0, 256, (6, 5, 4)).astype(np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 2], np.uint8)


def fill(folder, names, images=IMAGES, labels=LABELS):
    for name in names:
        data = idx_bytes(images if "images" in name else labels)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["train-images-idx3-ubyte", "train-labels-idx1-ubyte"], ["train"]),
        (["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"], ["test"]),
        (["t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz"], ["test"]),
        (
            [
                "train-images-idx3-ubyte.gz",
                "train-labels-idx1-ubyte",
                "t10k-images.idx3-ubyte.gz",
                "t10k-labels-idx1-ubyte",
            ],
            ["train", "test"],
        ),
    ],
)
def test_folder_of_either_naming(tmp_path, names, keys):
    fill(tmp_path, names)
    parts = load_idx_folder(tmp_path)
    assert list(parts) == keys
    for data in parts.values():
        assert data.inputs.shape == (6, 5, 4, 1)
        np.testing.assert_allclose(data.inputs[..., 0], IMAGES / 255.0, rtol=1e-6)
        np.testing.assert_array_equal(data.targets, LABELS)
        assert data.classes == tuple("0123456789")


def test_folder_of_colour_images(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    fill(tmp_path, ["t10k-images-idx4-ubyte", "t10k-labels-idx1-ubyte"], images)
    assert load_idx_folder(tmp_path)["test"].inputs.shape == (6, 5, 4, 3)


PAIR = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


@pytest.mark.parametrize(
    ("names", "images", "labels", "message"),
    [
        ([], IMAGES, LABELS, "no IDX files: looked for train-images-idx3-ubyte"),
        (PAIR[:1], IMAGES, LABELS, "its other half t10k-labels-idx1-ubyte"),
        (PAIR[1:], IMAGES, LABELS, "its other half t10k-images-idx3-ubyte"),
        (PAIR, IMAGES, LABELS[:5], "has 6 images, .*t10k-labels-idx1-ubyte 5"),
        (PAIR, IMAGES, LABELS + 1, r"label 10 at example 1 is outside \[0, 10\); pass classes="),
        (PAIR, IMAGES, -LABELS.astype(np.int8), "label -9 at example 1"),
        (PAIR, IMAGES, LABELS[:, None], r"labels must be integers of shape \(n,\)"),
        (PAIR, IMAGES, LABELS.astype("f4"), "labels must be integers"),
        (PAIR, IMAGES[0], LABELS, "images must be bytes of shape"),
        (PAIR, IMAGES.astype("f4"), LABELS, "got float32 of shape"),
    ],
)
def test_folders_that_do_not_fit_together_are_refused(tmp_path, names, images, labels, message):
    fill(tmp_path, names, images, labels)
    with pytest.raises(ValueError, match=message) as error:
        load_idx_folder(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_more_classes_can_be_named(tmp_path):
    fill(tmp_path, PAIR, labels=LABELS + 1)
    names = [f"c{i}" for i in range(11)]
    data = load_idx_folder(tmp_path, classes=names)["test"]
    assert data.classes == tuple(names)
    assert data.targets.max() == 10
