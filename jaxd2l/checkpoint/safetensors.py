"""The safetensors file format: named arrays and a string map, readable without running anything.

    8 bytes   length n of the header, unsigned, little endian
    n bytes   JSON: {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}, ...}
    the rest  the arrays, C order, little endian, without gaps; offsets count from here

Two entries of `__metadata__` are ours, so that a flipped bit is noticed: `data_sha256` is the
digest of all array bytes, `header_sha256` that of the rest of the header in a canonical spelling.
Other readers see two strings. Imports NumPy and its extra number types, no jax.

Source: the format's own description, and the limits of its reference implementation.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

MAX_HEADER = 100_000_000  # bytes, as in the reference implementation
MAX_RANK = 32  # as many axes as every NumPy can hold
_CHUNK = 1 << 22

# in the order of the reference implementation, which lays the last ones first
DTYPES: dict[str, np.dtype[Any]] = {
    code: np.dtype(kind)
    for code, kind in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "I16": np.int16,
        "U16": np.uint16,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I32": np.int32,
        "U32": np.uint32,
        "F32": np.float32,
        "C64": np.complex64,
        "F64": np.float64,
        "I64": np.int64,
        "U64": np.uint64,
    }.items()
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """Where one array lies in the file, in bytes after the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file says it holds. `entries` are in the order of their bytes."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


def shown(name: str) -> str:
    """A name from a file as it may stand in a message: escaped, and not endless."""
    return repr(name) if len(name) <= 200 else repr(name[:200]) + "..."


# Writing


def _canonical(header: Mapping[str, Any]) -> str:
    """The digest of a parsed header without its own digest; spaces and order do not matter."""
    metadata = {k: v for k, v in header.get("__metadata__", {}).items() if k != "header_sha256"}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _little_endian_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.byteswap()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def dtype_code(dtype: Any, what: str) -> str:
    """The format's name of a dtype, whatever its byte order.

    Raises:
      TypeError: the format has none (int4, complex128, strings, objects); starts with `what`.

    Example:
      >>> dtype_code(np.dtype(">f4"), "x")
      'F32'
    """
    kind = np.dtype(dtype)
    code = _CODES.get(kind if kind.byteorder == "|" else kind.newbyteorder("="))
    if code is None:
        raise TypeError(
            f"{what}: dtype {kind} cannot be written to a safetensors file; it knows {list(DTYPES)}"
        )
    return code


def write(
    file: BinaryIO,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    checksums: bool = True,
) -> None:
    """Write named arrays to a binary file. The same arguments give the same bytes.

    Any memory layout and byte order is accepted; arrays lie in the order of `DTYPES`, the widest
    first, so that each is aligned, and then by name. `checksums=False` writes what the reference
    implementation would.

    Shapes:
      arrays: any, 0-d and empty ones included.
    Raises:
      TypeError: a dtype that the format lacks, or metadata that is not str to str.
      ValueError: a name or a text that is not Unicode, a reserved name, a header over 100 MB.

    Example:
      >>> import io
      >>> file = io.BytesIO()
      >>> write(file, {"a": np.zeros((2, 3), np.float32)}, checksums=False)
      >>> file.getvalue()[8:-24]
      b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       '
    """
    texts = dict(sorted((metadata or {}).items()))
    for key, text in texts.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"safetensors: metadata must map str to str, got {key!r}: {text!r}")
    header: dict[str, Any] = {}
    if texts or checksums:
        header["__metadata__"] = texts
    if "__metadata__" in arrays:
        raise ValueError("safetensors: the name '__metadata__' is reserved")
    codes = {name: dtype_code(a.dtype, f"safetensors: {shown(name)}") for name, a in arrays.items()}
    rank = {code: -i for i, code in enumerate(DTYPES)}
    order = sorted(arrays, key=lambda name: (rank[codes[name]], name))
    offset = 0
    digest = hashlib.sha256()
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": codes[name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        if checksums:
            digest.update(_little_endian_bytes(array))
    if checksums:
        texts["data_sha256"] = digest.hexdigest()
        texts["header_sha256"] = _canonical(header)
    try:
        encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"safetensors: a name or a text is not Unicode: {error}") from None
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER:
        raise ValueError(
            f"safetensors: the header has {len(encoded):,} bytes; {MAX_HEADER:,} are allowed"
        )
    file.write(len(encoded).to_bytes(8, "little"))
    file.write(encoded)
    for name in order:
        file.write(_little_endian_bytes(arrays[name]))


# Reading: nothing in the file is believed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {shown(key)} appears twice")
            seen.add(key)
    return made


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _naturals(value: Any, what: str) -> list[int]:
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v < 2**63 for v in value):
        raise ValueError(f"{what} must be a list of integers from 0 to 2**63 - 1")
    return value


def _entry(name: str, value: Any) -> Entry:
    where = f"tensor {shown(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} must have exactly dtype, shape and data_offsets")
    code = value["dtype"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{where}: unknown dtype {shown(str(code))}; known are {list(DTYPES)}")
    dtype = DTYPES[code]
    shape = _naturals(value["shape"], f"{where}: shape")
    if len(shape) > MAX_RANK:
        raise ValueError(f"{where} has {len(shape)} axes; at most {MAX_RANK} are allowed")
    if math.prod(n for n in shape if n) * dtype.itemsize >= 2**63:
        raise ValueError(f"{where}: shape {shape} overflows")
    offsets = _naturals(value["data_offsets"], f"{where}: data_offsets")
    if len(offsets) != 2:
        raise ValueError(f"{where}: data_offsets must be two integers, got {len(offsets)}")
    wanted = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != wanted:
        raise ValueError(
            f"{where}: shape {shape} of {code} takes {wanted} bytes, but data_offsets are {offsets}"
        )
    return Entry(dtype, tuple(shape), *offsets)


def _parse(text: bytes, data_size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    if not text.startswith(b"{"):
        raise ValueError("the header does not begin with '{'")
    try:
        header = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("__metadata__ must map strings to strings")
    entries = {k: _entry(k, v) for k, v in header.items() if k != "__metadata__"}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    reached = 0
    for name, entry in entries.items():
        if entry.begin != reached:
            problem = "overlaps the one before" if entry.begin < reached else "leaves a gap before"
            raise ValueError(
                f"tensor {shown(name)} {problem}: it begins at byte {entry.begin}, not {reached}"
            )
        reached = entry.end
    if reached != data_size:
        raise ValueError(
            f"the header describes {reached} bytes of data, the file has {data_size}: "
            f"it is {'truncated' if data_size < reached else 'followed by something else'}"
        )
    wanted = metadata.get("header_sha256")
    if wanted is not None and wanted != _canonical(header):
        raise ValueError("the header is damaged: its checksum does not match")
    return entries, metadata


def _header_of(file: BinaryIO) -> Header:
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ValueError(f"{size} bytes are too short for a safetensors file")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(
            f"the header claims {length:,} bytes; at most {MAX_HEADER:,} are allowed: "
            f"this is not a safetensors file"
        )
    if 8 + length > size:
        raise ValueError(f"the header claims {length} bytes, but only {size - 8} follow: truncated")
    entries, metadata = _parse(file.read(length), size - 8 - length)
    return Header(entries, metadata, 8 + length)


class Reader:
    """An open file: its `header` is checked, its arrays are read one by one in file order.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
      >>> with open(path, "wb") as file:
      ...     write(file, {"b": np.arange(3), "a": np.float32([[1, 2]])}, {"note": "hello"})
      >>> with Reader(path) as reader:
      ...     {name: array.tolist() for name, array in reader.arrays()}
      {'b': [0, 1, 2], 'a': [[1.0, 2.0]]}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and check the header.

        Raises:
          ValueError: not a safetensors file, or a damaged one; the message begins with the path.
          OSError: it cannot be opened.
        """
        self.path = Path(path)
        self._file = open(self.path, "rb")  # noqa: SIM115 (closed by __exit__)
        try:
            self.header = _header_of(self._file)
        except ValueError as error:
            self._file.close()
            raise ValueError(f"{self.path}: {error}") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def arrays(self) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Every array, freshly allocated and writable; the checksum is compared after the last.

        So do not use any of them before the iteration has ended.

        Raises:
          ValueError: the data do not match the checksum, or the file shrank meanwhile.
        """
        digest = hashlib.sha256()
        self._file.seek(self.header.data_start)
        for name, entry in self.header.entries.items():
            data = np.empty(entry.end - entry.begin, np.uint8)
            if self._file.readinto(data.data) != data.size:
                raise ValueError(f"{self.path}: tensor {shown(name)} is truncated")
            digest.update(data.data)
            if entry.dtype == np.bool_ and data.size and data.max() > 1:
                raise ValueError(f"{self.path}: tensor {shown(name)} holds bytes that are not bool")
            array = data.view(entry.dtype).reshape(entry.shape)
            yield name, array if np.little_endian else array.byteswap()
        self._compare(digest.hexdigest())

    def verify(self) -> None:
        """Compare the data with their checksum in constant memory; see `arrays` for the errors."""
        digest = hashlib.sha256()
        self._file.seek(self.header.data_start)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
        self._compare(digest.hexdigest())

    def _compare(self, got: str) -> None:
        if self.header.metadata.get("data_sha256", got) != got:
            raise ValueError(f"{self.path}: the data are damaged: their checksum does not match")
