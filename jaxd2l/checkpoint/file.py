"""Checkpoints: any pytree of arrays in one file that holds no code and is never half written.

A checkpoint is a safetensors file (see `safetensors` beside this), so other tools can read it.
Arrays are named by their path in the tree, `params/conv1/kernel`. Its metadata hold the version of
this format, the network's record, the caller's `meta` (step, epoch, loader position, options), the
kinds of random keys, and checksums. Structure comes from the caller: `load` takes a target of the
wanted structure and refuses a file that differs from it, naming every difference.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l import records
from jaxd2l.checkpoint.atomic import replacing
from jaxd2l.checkpoint.safetensors import Header, Reader, dtype_code, shown, write

FORMAT = "1"
_NUMBERS: dict[type, type] = {bool: np.bool_, int: np.int64, float: np.float64}

PathLike = str | os.PathLike[str]


# Leaves and their names


def _named_leaves(tree: Any, what: str) -> tuple[dict[str, Any], Any]:
    """Leaves by name in the order of the tree, and the tree's structure."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves: dict[str, Any] = {}
    for path, leaf in flat:
        parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
        name = "/".join(parts) if parts else "."  # a tree that is one array
        for part in parts:
            if not part or not part.isprintable() or part == "__metadata__":
                raise ValueError(
                    f"{what}: the key {part!r} in {name!r} cannot name an array; use a name of "
                    f"printable characters"
                )
        if name in leaves:
            raise ValueError(
                f"{what}: two arrays are named {name!r}; rename a key (the parts of a path are "
                f"joined by '/', and 1 and '1' read the same)"
            )
        leaves[name] = leaf
    return leaves, structure


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any, where: str) -> np.ndarray[Any, Any]:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        raise ValueError(
            f"{where} is spread over several processes; gather it to every process first"
        )
    if type(leaf) in _NUMBERS:
        try:
            return np.asarray(leaf, _NUMBERS[type(leaf)])
        except OverflowError:
            raise ValueError(f"{where} is {leaf}, which does not fit in 64 bits") from None
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"{where} is a {type(leaf).__name__}; only arrays, numbers and random keys can be "
            f"written. Put other things into meta"
        )
    array = np.asarray(leaf)
    dtype_code(array.dtype, where)
    return array


# Meta


def _check_json(value: Any, where: str) -> None:
    if value is None or type(value) in (bool, int, float, str):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be str")
            _check_json(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{where}[{i}]")
    else:
        raise TypeError(
            f"{where} is a {type(value).__name__}, which is not plain JSON; convert it (int, "
            f"float, str, list), or put arrays into the tree"
        )


def _dump_meta(meta: Mapping[str, Any] | None) -> str:
    plain = dict(meta or {})
    try:
        _check_json(plain, "save: meta")
    except RecursionError:
        raise ValueError("save: meta is nested too deeply, or contains itself") from None
    return json.dumps(plain, sort_keys=True)


def _from_json(path: Path, text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {what} is not a JSON object")
    return value


# One file


def save(
    path: PathLike, tree: Any, *, net: Any = None, meta: Mapping[str, Any] | None = None
) -> Path:
    """Write a tree of arrays to `path` in one step; a crash leaves the earlier file or the new one.

    `tree` may hold jax and NumPy arrays and scalars, Python numbers, typed random keys, and any
    containers (Optax states, None, empty tuples). Values are written as they are, NaN included. The
    same arguments give the same bytes. Missing folders are made. `meta` is plain JSON; its tuples
    come back as lists.

    Shapes:
      tree: leaves of any shape, 0-d and empty ones included.
    Raises:
      TypeError: a leaf, a dtype, `net` or something in `meta` that cannot be written.
      ValueError: names that collide or hold unprintable characters; an array spread over processes.
      OSError: the disk or the permissions; an earlier file is unchanged and nothing else is left.
    Source: D2L 6.6 (file I/O), without its pickles.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
      >>> _ = save(path, {"w": jnp.ones(2), "key": jax.random.key(0)}, meta={"step": 7})
      >>> tree, meta = load(path, {"w": jnp.zeros(2), "key": jax.random.key(1)})
      >>> tree["w"].tolist(), meta
      ([1.0, 1.0], {'step': 7})
    """
    path = Path(path)
    leaves, _ = _named_leaves(tree, "save")
    metadata = {"jaxd2l_format": FORMAT, "meta": _dump_meta(meta)}
    if net is not None:
        metadata["net"] = records.dump(net)
    arrays, keys = {}, {}
    for name, leaf in leaves.items():
        if _is_key(leaf):
            impl = jax.random.key_impl(leaf)
            if not isinstance(impl, str):
                raise TypeError(f"save: {name!r} is a key of an unregistered kind, {impl}")
            keys[name] = impl
            leaf = jax.random.key_data(leaf)
        arrays[name] = _to_host(leaf, f"save: {name!r}")
    metadata["keys"] = json.dumps(keys, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        write(file, arrays, metadata)
    return path


def _check_format(path: Path, header: Header, *, foreign: bool = False) -> None:
    metadata = header.metadata
    version = metadata.get("jaxd2l_format")
    if version is None and foreign:
        return
    if version is None:
        raise ValueError(
            f"{path}: a safetensors file, but not a jaxd2l checkpoint; read it with load_flat"
        )
    if version != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {shown(version)}, this version of jaxd2l reads {FORMAT!r}"
        )
    missing = [k for k in ("meta", "keys", "data_sha256", "header_sha256") if k not in metadata]
    if missing:
        raise ValueError(f"{path}: the checkpoint's metadata lack {missing}")


def read_header(path: PathLike) -> Header:
    """Names, dtypes, shapes and metadata of any safetensors file, without reading its arrays.

    Raises:
      ValueError: not a safetensors file, or a damaged header; the message begins with the path.
    """
    with Reader(path) as reader:
        _check_format(reader.path, reader.header, foreign=True)
        return reader.header


def read_metadata(path: PathLike) -> dict[str, Any]:
    """The `meta` that `save` was given, without reading the arrays.

    Raises:
      ValueError: not a checkpoint of this library, or a damaged header.
    """
    with Reader(path) as reader:
        _check_format(reader.path, reader.header)
        return _from_json(reader.path, reader.header.metadata["meta"], "meta")


def load_network(path: PathLike) -> Any:
    """The record of the network that `save` was given. Only registered record types are built.

    Raises:
      ValueError: the checkpoint holds no network, one of an unknown type, or is damaged.
    """
    with Reader(path) as reader:
        _check_format(reader.path, reader.header)
        text = reader.header.metadata.get("net")
    if text is None:
        raise ValueError(f"{reader.path}: holds no network; build it in code and pass it along")
    try:
        net = records.load(text)
    except ValueError as error:
        raise ValueError(f"{reader.path}: {error}") from error
    if not records.is_record(net):
        raise ValueError(f"{reader.path}: the stored network is not a record")
    return net


def load_flat(path: PathLike) -> dict[str, np.ndarray[Any, Any]]:
    """Every array of any safetensors file by name, fresh NumPy arrays; random keys as their bits.

    Checksums are compared where the file has them.

    Raises:
      ValueError: not a safetensors file, or a damaged one; the message begins with the path.
    """
    with Reader(path) as reader:
        _check_format(reader.path, reader.header, foreign=True)
        return dict(reader.arrays())


def verify(path: PathLike) -> None:
    """Read a whole checkpoint and compare its checksums.

    Raises:
      ValueError: not a checkpoint of this library, truncated or damaged.
    """
    with Reader(path) as reader:
        _check_format(reader.path, reader.header)
        reader.verify()


# Against a target


def _wanted(leaf: Any, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype in the file of a leaf of the target."""
    if type(leaf) in _NUMBERS:
        return (), np.dtype(_NUMBERS[type(leaf)])
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        raise TypeError(
            f"{where} is a {type(leaf).__name__}; a target holds arrays, jax.ShapeDtypeStruct, "
            f"random keys and numbers"
        )
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return tuple(data.shape), np.dtype(data.dtype)
    return tuple(leaf.shape), np.dtype(leaf.dtype).newbyteorder("=")


def _key_dtype(impl: str) -> Any:
    """The dtype of keys of a kind, or None for an unknown kind."""
    try:
        return jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype
    except ValueError:
        return None


def _differences(header: Header, keys: Mapping[str, Any], leaves: Mapping[str, Any]) -> list[str]:
    found = [f"missing from the file: {name!r}" for name in leaves if name not in header.entries]
    found += [f"not in the target: {shown(name)}" for name in header.entries if name not in leaves]
    for name, leaf in leaves.items():
        entry = header.entries.get(name)
        if entry is None:
            continue
        shape, dtype = _wanted(leaf, f"load: the target's {name!r}")
        if entry.shape != shape:
            found.append(f"{name!r}: shape {entry.shape} in the file, {shape} in the target")
        if entry.dtype != dtype:
            found.append(f"{name!r}: dtype {entry.dtype} in the file, {dtype} in the target")
        impl = keys.get(name)
        if _is_key(leaf):
            if impl is None:
                found.append(f"{name!r}: a plain array in the file, a random key in the target")
            elif _key_dtype(impl) != leaf.dtype:
                found.append(f"{name!r}: a {impl!r} key in the file, {leaf.dtype} in the target")
        elif impl is not None:
            found.append(f"{name!r}: a random key in the file, a plain array in the target")
        elif not isinstance(leaf, np.ndarray | np.generic | int | float) and (
            jax.dtypes.canonicalize_dtype(dtype) != dtype
        ):
            found.append(f"{name!r}: {dtype} needs 64-bit mode (jax_enable_x64)")
    return found


def _restore(array: np.ndarray[Any, Any], leaf: Any, impl: str | None) -> Any:
    if impl is not None:
        return jax.random.wrap_key_data(jnp.array(array), impl=impl)
    if type(leaf) in _NUMBERS:
        return array.item()
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return array
    made = jnp.array(array)  # jnp.array copies; device_put would share the buffer
    if getattr(leaf, "weak_type", False) and made.ndim == 0:
        weak = jnp.asarray(array.item())  # as from a Python number, so that nothing re-traces
        made = weak if weak.dtype == made.dtype else made
    return made


def load(path: PathLike, target: Any) -> tuple[Any, dict[str, Any]]:
    """The tree and the `meta` of a checkpoint that fits a target of the same structure.

    Leaves of the target may be arrays, `jax.ShapeDtypeStruct`, random keys or numbers; their values
    are not used. A NumPy array or a Python number in the target gives one back; all else comes back
    as fresh jax arrays on the default device (weakly typed where the target's scalar is).

    Shapes:
      target: the shapes that the file must have.
    Raises:
      ValueError: not a checkpoint, a damaged one, or one that differs from the target: then every
        missing or unexpected name and every wrong shape, dtype or kind of key is listed.
      TypeError: a leaf of the target that has no shape and dtype.
    """
    leaves, structure = _named_leaves(target, "load: target")
    with Reader(path) as reader:
        _check_format(reader.path, reader.header)
        meta = _from_json(reader.path, reader.header.metadata["meta"], "meta")
        keys = _from_json(reader.path, reader.header.metadata["keys"], "keys")
        if not all(isinstance(impl, str) for impl in keys.values()):
            raise ValueError(f"{reader.path}: the kinds of random keys are not names")
        found = _differences(reader.header, keys, leaves)
        if found:
            raise ValueError(
                f"{reader.path} does not fit the target ({len(found)} differences):\n  "
                + "\n  ".join(found)
            )
        restored = {
            name: _restore(array, leaves[name], keys.get(name)) for name, array in reader.arrays()
        }
    return jax.tree_util.tree_unflatten(structure, [restored[name] for name in leaves]), meta
