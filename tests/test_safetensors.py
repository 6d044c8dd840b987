"""The file format: byte for byte the reference implementation's, and hostile files refused."""

import io
import json
import math
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest

from jaxd2l.checkpoint import safetensors
from jaxd2l.checkpoint.safetensors import DTYPES, MAX_HEADER, Reader, dtype_code, write


def to_bytes(arrays, metadata=None, **options):
    file = io.BytesIO()
    write(file, arrays, metadata, **options)
    return file.getvalue()


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)
    with Reader(path) as reader:
        return dict(reader.arrays())


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape=(1,), begin=0, end=4, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def golden_arrays():
    """The same as in golden/make_safetensors.py."""
    rng = np.random.RandomState(0)
    by_name = {
        "bool": np.bool_,
        "uint8": np.uint8,
        "int8": np.int8,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "int16": np.int16,
        "uint16": np.uint16,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "int32": np.int32,
        "uint32": np.uint32,
        "float32": np.float32,
        "complex64": np.complex64,
        "float64": np.float64,
        "int64": np.int64,
        "uint64": np.uint64,
    }
    made = {f"each/{n}": rng.randint(0, 2, (2, 3)).astype(d) for n, d in by_name.items()}
    made["scalar"] = np.float32(rng.randn())[None].reshape(())
    made["empty"] = np.zeros((0, 3), np.float32)
    made["gewicht/ü"] = rng.randn(3).astype(np.float32)
    return made


@pytest.fixture
def golden(request):
    return request.path.parent / "golden" / "reference.safetensors"


def test_reads_what_the_reference_implementation_wrote(golden):
    got = read(golden)
    wanted = golden_arrays()
    assert got.keys() == wanted.keys()
    assert {a.dtype for a in wanted.values()} == set(DTYPES.values())
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def test_writes_the_same_bytes_as_the_reference_implementation(golden):
    ours = to_bytes(golden_arrays(), {"note": 'text "ü"\n'}, checksums=False)
    assert ours == golden.read_bytes()


def test_with_checksums_only_the_header_differs(golden):
    plain, checked = golden.read_bytes(), to_bytes(golden_arrays(), {"note": 'text "ü"\n'})
    size = sum(a.nbytes for a in golden_arrays().values())
    assert checked[-size:] == plain[-size:]
    assert (len(checked) - size) % 8 == 0


def test_order_of_insertion_does_not_matter():
    arrays = golden_arrays()
    backwards = dict(reversed(arrays.items()))
    a = to_bytes(arrays, {"b": "1", "a": "2"})
    assert a == to_bytes(backwards, {"a": "2", "b": "1"})


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.T,
        lambda x: x[::2, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[:1], (5, *x.shape[1:])),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(">i4").T,
        lambda x: x.astype(ml_dtypes.bfloat16)[:, 1],
        lambda x: x.astype("<f4")[1, 1, ...],
    ],
)
def test_any_layout_and_byte_order_is_written_in_c_order(make, tmp_path):
    array = make(np.arange(24.0).reshape(4, 6))
    got = read(tmp_path / "a", to_bytes({"x": array}))["x"]
    assert got.shape == array.shape
    assert got.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(got, array)


def test_arrays_are_fresh_and_writable(tmp_path):
    content = to_bytes({"x": np.arange(3)})
    first, second = read(tmp_path / "a", content), read(tmp_path / "a")
    first["x"][:] = 7
    assert second["x"].tolist() == [0, 1, 2]
    assert (tmp_path / "a").read_bytes() == content


@hypothesis.given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(
            lambda s: s != "__metadata__"
        ),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=4)),
        max_size=5,
    ),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=3)),
    st.booleans(),
)
def test_round_trip(tmp_path_factory, specs, metadata, checksums):
    metadata = {k: v for k, v in metadata.items() if not k.endswith("_sha256")}
    rng = np.random.RandomState(0)
    arrays = {}
    for name, (code, shape) in specs.items():
        dtype = DTYPES[code]
        limit = 2 if code == "BOOL" else 256
        data = rng.randint(0, limit, math.prod(shape) * dtype.itemsize).astype(np.uint8)
        arrays[name] = data.view(dtype).reshape(shape)
    path = tmp_path_factory.getbasetemp() / "round"
    path.write_bytes(to_bytes(arrays, metadata, checksums=checksums))
    with Reader(path) as reader:
        got = dict(reader.arrays())
        texts = dict(reader.header.metadata)
        reader.verify()
    assert {k: v for k, v in texts.items() if not k.endswith("_sha256")} == metadata
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        assert got[name].tobytes() == array.tobytes()  # NaN payloads and all


# What cannot be written


@pytest.mark.parametrize("dtype", [np.complex128, "U3", object, ml_dtypes.int4, "M8[s]", "i4,i4"])
def test_unknown_dtype(dtype):
    with pytest.raises(TypeError, match=r"^x: dtype .* cannot be written"):
        dtype_code(np.zeros(1, dtype).dtype, "x")
    with pytest.raises(TypeError, match=r"^safetensors: 'a': dtype .* cannot be written"):
        to_bytes({"a": np.zeros(1, dtype)})


def test_unwritable_names_and_metadata(monkeypatch):
    x = np.zeros(1)
    with pytest.raises(ValueError, match="'__metadata__' is reserved"):
        to_bytes({"__metadata__": x})
    with pytest.raises(ValueError, match="is not Unicode"):
        to_bytes({"\ud800": x})
    with pytest.raises(ValueError, match="is not Unicode"):
        to_bytes({"a": x}, {"b": "\ud800"})
    with pytest.raises(TypeError, match="must map str to str, got 'b': 1"):
        to_bytes({"a": x}, {"b": 1})
    monkeypatch.setattr(safetensors, "MAX_HEADER", 200)
    with pytest.raises(ValueError, match="the header has 240 bytes; 200 are allowed"):
        to_bytes({"a": x})


# What is not believed

HOSTILE = {
    "empty file": (b"", "0 bytes are too short"),
    "seven bytes": (b"1234567", "7 bytes are too short"),
    "header of nothing": (raw(b""), "does not begin with"),
    "a huge header": ((2**64 - 1).to_bytes(8, "little") + b"{}", "claims 18,446,744,073,709,551,6"),
    "just over the limit": ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "at most 100,000,000"),
    "header beyond the file": ((3).to_bytes(8, "little") + b"{}", "claims 3 bytes, but only 2"),
    "a pickle": (b"\x80\x04\x95" + bytes(5) + b"cos\nsystem\n", "claims"),
    "not JSON": (raw(b"{]"), "Expecting property name"),
    "a list": (raw(b"[]"), "does not begin with"),
    "leading space": (raw(b" {}"), "does not begin with"),
    "two values": (raw(b"{}{}"), "Extra data"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "utf-8"),
    "NaN": (raw(b'{"a": NaN}'), "NaN is not JSON"),
    "infinity": (raw(b'{"a": -Infinity}'), "-Infinity is not JSON"),
    "deep lists": (raw(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "nested too deeply"),
    "deep objects": (raw(b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "nested too deeply"),
    "same name twice": (
        raw(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
        "the key 'a' appears twice",
    ),
    "same field twice": (
        raw(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "the key 'dtype' appears twice",
    ),
    "metadata twice": (raw(b'{"__metadata__":{},"__metadata__":{}}'), "appears twice"),
    "metadata list": (raw({"__metadata__": []}), "must map strings to strings"),
    "metadata null": (raw({"__metadata__": None}), "must map strings to strings"),
    "metadata number": (raw({"__metadata__": {"a": 1}}), "must map strings to strings"),
    "metadata nested": (raw({"__metadata__": {"a": {}}}), "must map strings to strings"),
    "entry null": (raw({"a": None}), "'a' must have exactly dtype"),
    "entry short": (raw({"a": {"dtype": "F32", "shape": [1]}}), "'a' must have exactly dtype"),
    "entry long": (raw({"a": {**entry(), "x": 1}}, bytes(4)), "'a' must have exactly dtype"),
    "dtype unknown": (raw({"a": entry(dtype="F31")}, bytes(4)), "'a': unknown dtype 'F31'"),
    "dtype lower case": (raw({"a": entry(dtype="f32")}, bytes(4)), "unknown dtype 'f32'"),
    "dtype packed": (raw({"a": entry((8,), dtype="F4")}, bytes(4)), "unknown dtype 'F4'"),
    "dtype a number": (raw({"a": entry(dtype=1)}, bytes(4)), "unknown dtype '1'"),
    "dtype a list": (raw({"a": entry(dtype=["F32"])}, bytes(4)), "unknown dtype"),
    "dtype endless": (raw({"a": entry(dtype="x" * 9000)}, bytes(4)), "unknown dtype 'x{200}'"),
    "shape negative": (raw({"a": entry((-1,))}, bytes(4)), "'a': shape must be a list of integers"),
    "shape twice negative": (raw({"a": entry((-1, -1))}, bytes(4)), "shape must be a list of int"),
    "shape float": (raw({"a": entry((1.0,))}, bytes(4)), "shape must be a list of integers"),
    "shape bool": (raw({"a": entry((True,))}, bytes(4)), "shape must be a list of integers"),
    "shape endless float": (
        raw(b'{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,0]}}'),
        "shape must be a list of integers",
    ),
    "shape object": (raw({"a": {**entry(), "shape": {}}}, bytes(4)), "shape must be a list"),
    "shape beyond 64 bits": (raw({"a": entry((2**64,))}, bytes(4)), "from 0 to"),
    "shape of 5000 digits": (
        raw(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}'),
        "digits|from 0 to",
    ),
    "shape overflows": (raw({"a": entry((2**32, 2**32))}, bytes(4)), "overflows"),
    "empty shape overflows": (raw({"a": entry((0, 2**62, 2**62), 0, 0)}), "overflows"),
    "shape too long": (raw({"a": entry((1,) * 33)}, bytes(4)), "33 axes; at most 32"),
    "shape too large": (raw({"a": entry((2,))}, bytes(4)), "takes 8 bytes, but data_offsets are"),
    "terabytes": (raw({"a": entry((2**40,), 0, 2**42)}, bytes(4)), "describes 4398046511104 bytes"),
    "offsets negative": (raw({"a": entry((1,), -4, 0)}, bytes(4)), "data_offsets must be a list"),
    "offsets reversed": (raw({"a": entry((1,), 4, 0)}, bytes(4)), "takes 4 bytes"),
    "offsets of three": (
        raw({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(4)),
        "must be two integers, got 3",
    ),
    "offsets text": (raw({"a": {**entry(), "data_offsets": "04"}}, bytes(4)), "must be a list"),
    "overlap": (
        raw({"a": entry(), "b": entry((1,), 2, 6)}, bytes(6)),
        "'b' overlaps the one before: it begins at byte 2, not 4",
    ),
    "same bytes": (raw({"a": entry(), "b": entry()}, bytes(4)), "overlaps the one before"),
    "gap": (raw({"a": entry(), "b": entry((1,), 5, 9)}, bytes(9)), "'b' leaves a gap before"),
    "begins late": (raw({"a": entry((1,), 4, 8)}, bytes(8)), "'a' leaves a gap before"),
    "truncated": (
        raw({"a": entry()}, bytes(3)),
        "describes 4 bytes of data, the file has 3: it is ",
    ),
    "one byte more": (raw({"a": entry()}, bytes(5)), "followed by something else"),
    "not bool": (raw({"a": entry((1,), 0, 1, "BOOL")}, b"\x02"), "bytes that are not bool"),
    "wrong header checksum": (raw({"__metadata__": {"header_sha256": "0"}}), "header is damaged"),
    "wrong data checksum": (raw({"__metadata__": {"data_sha256": "0"}}), "data are damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(case, tmp_path):
    content, message = HOSTILE[case]
    path = tmp_path / "bad.safetensors"
    with pytest.raises(ValueError, match=message) as caught:
        read(path, content)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000


def test_claims_do_not_allocate(tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(MAX_HEADER.to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    try:
        for content in (path.read_bytes(), raw({"a": entry((2**40,), 0, 2**42)}, bytes(4))):
            with pytest.raises(ValueError, match="bad"):
                read(path, content)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_header_order_does_not_matter_but_the_bytes_are_read_in_place(tmp_path):
    header = {"b": entry((1,), 4, 8), "none": entry((0, 7), 4, 4), "a": entry()}
    got = read(tmp_path / "a", raw(header, np.float32([1, 2]).tobytes()))
    assert got["a"].tolist() == [1]
    assert got["b"].tolist() == [2]
    assert got["none"].shape == (0, 7)


SMALL = {"w": np.float32([[1, 2]]), "b": np.array([True, False]), "n": np.int64(5)}


def test_truncated_anywhere(tmp_path):
    content = to_bytes(SMALL, {"a": "b"})
    path = tmp_path / "bad"
    for length in range(len(content)):
        with pytest.raises(ValueError, match="bad: "):
            read(path, content[:length])


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path):
    """Single-bit errors at every byte: refused, or (spaces, spellings of JSON) read the same."""
    content = to_bytes(SMALL, {"a": "b"})
    path = tmp_path / "bad"
    harmless = 0
    for position in range(len(content)):
        for bit in (position % 8, (position + 5) % 8):
            bad = bytearray(content)
            bad[position] ^= 1 << bit
            path.write_bytes(bad)
            try:
                with Reader(path) as reader:
                    got = dict(reader.arrays())
                    checked = {"data_sha256", "header_sha256"} <= reader.header.metadata.keys()
            except ValueError as error:
                assert str(error).startswith(str(path))  # noqa: PT017
                continue
            if not checked:  # the name of a checksum itself is hit: jaxd2l.checkpoint refuses that
                continue
            harmless += 1
            assert all(got[k].tobytes() == v.tobytes() for k, v in SMALL.items())
    assert harmless < 20


def test_random_damage(tmp_path):
    """Bytes replaced, inserted, removed, blocks moved: a ValueError or the right arrays."""
    content = to_bytes(SMALL, {"a": "b"})
    path = tmp_path / "bad"
    rng = np.random.RandomState(0)
    tokens = [b"[", b"]", b"{", b"}", b'"', b",", b"-1", b"9" * 20, b"null", b"1e9", b"\\u0000"]
    for _ in range(800):
        bad = content
        for _ in range(rng.randint(1, 4)):
            at, to = sorted(rng.randint(0, len(bad) + 1, 2))
            kind = rng.randint(4)
            if kind == 0:
                bad = bad[:at] + rng.bytes(1) + bad[at + 1 :]
            elif kind == 1:
                bad = bad[:at] + tokens[rng.randint(len(tokens))] + bad[at:]
            elif kind == 2:
                bad = bad[:at] + bad[min(to, at + 9) :]
            else:
                bad = bad[:at] + bad[to:] + bad[at:to]
        if rng.randint(2):  # keep the length of the header right, so that JSON is reached
            bad = (len(bad) - 18).to_bytes(8, "little") + bad[8:] if len(bad) > 26 else bad
        path.write_bytes(bad)
        try:
            with Reader(path) as reader:
                got = dict(reader.arrays())
                checked = {"data_sha256", "header_sha256"} <= reader.header.metadata.keys()
        except ValueError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
        else:
            assert not checked or got.keys() == SMALL.keys()


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(to_bytes({"x": np.zeros(100_000)}))
    with Reader(path) as reader:
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(ValueError, match="tensor 'x' is truncated"):
            dict(reader.arrays())
