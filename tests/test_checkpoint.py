"""Checkpoints: exact round trips, every difference named, and no crash that loses the last one."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from jaxd2l import checkpoint, records
from jaxd2l.checkpoint import (
    atomic,
    drop_after,
    latest,
    load,
    load_flat,
    load_network,
    read_header,
    read_metadata,
    save,
    save_step,
    step_path,
    steps,
    truncate_jsonl,
    verify,
)


@records.record
class CheckpointNet:
    """A record for these tests."""

    width: int
    kinds: tuple[str, ...] = ()


class Pair(NamedTuple):
    first: object
    second: object


def training_tree():
    rng = np.random.RandomState(0)
    params = {
        "conv1": {"kernel": jnp.array(rng.randn(3, 3, 1, 2), jnp.float32), "bias": jnp.ones(2)},
        "dense": {"kernel": jnp.array(rng.randn(4, 2), jnp.bfloat16)},
        "none": None,
    }
    optimizer = optax.chain(optax.clip(1.0), optax.adam(optax.linear_schedule(1e-3, 0.0, 9)))
    state = optimizer.init(params)
    state = jax.tree.map(lambda a: jnp.array(9 * rng.randn(*a.shape), a.dtype), state)
    return {
        "params": params,
        "state": {"mean": jnp.zeros((0, 3)), "count": jnp.array(7, jnp.uint32)},
        "optimizer": state,
        "key": jax.random.key(5),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "raw": jax.random.PRNGKey(3),
        "flags": jnp.array([True, False]),
        "ids": jnp.arange(3, dtype=jnp.int8),
        "half": jnp.array([1.5, jnp.nan, jnp.inf, -0.0], jnp.float16),
        "tiny": jnp.array([0.5, 2.0], jnp.float8_e4m3fn),
        "wave": jnp.array([1 + 2j]),
        "wide": np.arange(3.0).T,
        "seen": np.int64(2**40),
        "step": 12,
        "best": float("inf"),
        "done": False,
        "empty": (),
        "pair": Pair(np.zeros((2, 0), np.uint8), None),
    }


def as_bits(leaf):
    if checkpoint.file._is_key(leaf):
        return "key", str(jax.random.key_impl(leaf)), as_bits(jax.random.key_data(leaf))
    array = np.asarray(leaf)
    return type(leaf), array.dtype, array.shape, array.tobytes()


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert as_bits(a) == as_bits(b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


# Round trips


def test_round_trip_of_a_training_state(path):
    tree, meta = training_tree(), {"step": 12, "loader": {"epoch": 1, "at": [3, None, "x", 0.1]}}
    assert save(path, tree, meta=meta) == path
    got, got_meta = load(path, tree)
    assert_same(got, tree)
    assert got_meta == meta
    assert jax.random.normal(got["key"]) == jax.random.normal(tree["key"])
    assert b"pickle" not in path.read_bytes()


def test_names_are_paths(path):
    tree = training_tree()
    save(path, {k: tree[k] for k in ("params", "optimizer", "key", "pair")})
    assert sorted(read_header(path).entries) == [
        "key",
        "optimizer/1/0/count",
        "optimizer/1/0/mu/conv1/bias",
        "optimizer/1/0/mu/conv1/kernel",
        "optimizer/1/0/mu/dense/kernel",
        "optimizer/1/0/nu/conv1/bias",
        "optimizer/1/0/nu/conv1/kernel",
        "optimizer/1/0/nu/dense/kernel",
        "optimizer/1/1/count",
        "pair/first",
        "params/conv1/bias",
        "params/conv1/kernel",
        "params/dense/kernel",
    ]


def test_target_of_shapes_only(path):
    tree = {
        "w": jnp.arange(6.0).reshape(2, 3),
        "key": jax.random.key(2),
        "keys": training_tree()["keys"],
    }
    save(path, tree)
    got, _ = load(path, jax.eval_shape(lambda: tree))
    assert_same(got, tree)


def test_a_continued_adam_run_is_bit_identical(path):
    optimizer = optax.adam(0.1)

    @jax.jit
    def update(params, state, key):
        grads = jax.tree.map(lambda p: jnp.sin(p) + jax.random.normal(key, p.shape), params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, jax.random.fold_in(key, 1)

    start = {"w": jnp.linspace(0.0, 1.0, 5)}
    now = (start, optimizer.init(start), jax.random.key(0))
    for _ in range(3):
        now = update(*now)
    save(path, now)
    straight = resumed = now
    for _ in range(3):
        straight = update(*straight)
    resumed, _ = load(path, jax.eval_shape(lambda: now))
    for _ in range(3):
        resumed = update(*resumed)
    assert_same(resumed, straight)


def test_double_precision(path, x64):
    tree = {
        "w": jnp.linspace(0, 1, 7),
        "n": jnp.array(2**40),
        "z": jnp.array(1 + 1j, jnp.complex64),
    }
    save(path, tree)
    assert_same(load(path, tree)[0], tree)
    with jax.enable_x64(False):
        shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in tree.items()}
        with pytest.raises(ValueError, match="'w': float64 needs 64-bit mode") as caught:
            load(path, shapes)
        assert "'n': int64 needs 64-bit mode" in str(caught.value)
        got, _ = load(path, jax.tree.map(np.asarray, tree))  # NumPy in, NumPy out: no loss
    assert got["n"] == 2**40
    assert got["w"].dtype == np.float64


def test_an_array_spread_over_processes(path, monkeypatch):
    """Here there is one process, so the array only says that it is spread."""
    array = jnp.ones(3)
    for name in ("is_fully_addressable", "is_fully_replicated"):
        monkeypatch.setattr(type(array), name, property(lambda _: False))
    with pytest.raises(ValueError, match="save: 'w' is spread over several processes; gather it"):
        save(path, {"w": array})


@pytest.mark.parametrize("tree", [{}, (), None, {"a": (), "b": None}])
def test_no_leaves(tree, path):
    save(path, tree, meta={"a": 1})
    assert load(path, tree) == (tree, {"a": 1})


def test_a_tree_that_is_one_array(path):
    save(path, jnp.arange(3))
    assert load(path, jnp.zeros(3, int))[0].tolist() == [0, 1, 2]
    assert list(load_flat(path)) == ["."]


def test_arrays_not_in_c_order(path):
    """The safetensors package 0.8.0 writes such arrays as garbage."""
    array = np.arange(24.0).reshape(2, 3, 4)
    tree = {
        "t": array.T,
        "s": array[:, ::-2],
        "big": array.astype(">f8"),
        "j": jnp.arange(6).reshape(2, 3).T,
    }
    save(path, tree)
    got, _ = load(path, tree)
    for name in tree:
        np.testing.assert_array_equal(got[name], tree[name])
    assert got["big"].dtype == np.float64


def test_weak_scalars_stay_weak_so_that_nothing_retraces(path):
    tree = {"weak": jnp.asarray(1.5), "strong": jnp.float32(1.5), "n": jnp.asarray(2)}
    save(path, tree)
    for target in (tree, jax.eval_shape(lambda: tree)):
        got, _ = load(path, target)
        assert [got[k].weak_type for k in ("weak", "strong", "n")] == [True, False, True]
        assert_same(got, tree)


def test_loaded_arrays_share_no_memory(path):
    """Neither with the file nor with each other's NumPy buffers."""
    save(path, {"w": np.ones(4096, np.float32)})
    target = {"w": jax.ShapeDtypeStruct((4096,), jnp.float32)}
    first, second = load(path, target)[0]["w"], load_flat(path)["w"]
    second[:] = 3
    path.write_bytes(bytes(path.stat().st_size))
    assert float(first.sum()) == 4096
    room = np.ones(4096 + 16, np.float32)  # aligned as the CPU needs it to share a buffer
    buffer = room[-room.ctypes.data % 64 // 4 :][:4096]
    restored = checkpoint.file._restore(buffer, target["w"], None)
    buffer[:] = 5
    assert float(restored.sum()) == 4096


def test_sharded_arrays(path):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    tree = {"w": jax.device_put(jnp.arange(8.0), spec)}
    save(path, tree)
    assert load(path, tree)[0]["w"].tolist() == list(range(8))


def test_same_tree_same_bytes(path, tmp_path):
    tree = training_tree()
    backwards = dict(reversed(tree.items()))
    save(path, tree, net=CheckpointNet(3), meta={"a": 1, "b": 2})
    other = save(tmp_path / "b", backwards, net=CheckpointNet(3), meta={"b": 2, "a": 1})
    assert path.read_bytes() == other.read_bytes()


def test_golden_file_is_read_as_a_foreign_one(request):
    golden = request.path.parent / "golden" / "reference.safetensors"
    assert load_flat(golden)["each/bfloat16"].dtype == ml_dtypes.bfloat16
    assert read_header(golden).metadata == {"note": 'text "ü"\n'}
    for reader in (verify, read_metadata, load_network, lambda p: load(p, {})):
        with pytest.raises(ValueError, match="but not a jaxd2l checkpoint; read it with load_flat"):
            reader(golden)


# Metadata


def test_network_record(path):
    net = CheckpointNet(3, ("a", "b"))
    save(path, {}, net=net)
    assert load_network(path) == net
    assert read_header(path).metadata["jaxd2l_format"] == "1"
    save(path, {})
    with pytest.raises(ValueError, match=r"a\.safetensors: holds no network; build it in code"):
        load_network(path)
    with pytest.raises(TypeError, match=r"CheckpointNet\.width holds <.*cannot be written"):
        save(path, {}, net=CheckpointNet(len))


def write_metadata(path, **changes):
    metadata = {"jaxd2l_format": "1", "meta": "{}", "keys": "{}"}
    metadata = {k: v for k, v in (metadata | changes).items() if v is not None}
    with open(path, "wb") as file:
        checkpoint.file.write(file, {"w": np.zeros(2, np.uint32)}, metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jaxd2l_format": None}, "not a jaxd2l checkpoint"),
        ({"jaxd2l_format": "2"}, "checkpoint format '2', this version of jaxd2l reads '1'"),
        ({"meta": None}, r"lack \['meta'\]"),
        ({"meta": "{"}, "meta is not JSON"),
        ({"meta": "[]"}, "meta is not a JSON object"),
        ({"meta": "[" * 200_000}, "meta is not JSON"),
        ({"keys": "1"}, "keys is not a JSON object"),
        ({"keys": '{"w": 1}'}, "the kinds of random keys are not names"),
        ({"keys": '{"w": "dice"}'}, "'w': a random key in the file, a plain array in the target"),
    ],
)
def test_metadata_that_lie(changes, message, path):
    write_metadata(path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(path, {"w": np.zeros(2, np.uint32)})
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ('{"type": "os"}', "record: unknown record type 'os'"),
        ("{", "record: not JSON"),
        ("[" * 200_000, "record: nested too deeply"),
        ("[1]", "the stored network is not a record"),
        ("null", "the stored network is not a record"),
        ('{"type": "CheckpointNet", "depth": 1}', "CheckpointNet has no field 'depth'"),
    ],
)
def test_networks_that_lie(net, message, path):
    write_metadata(path, net=net)
    with pytest.raises(ValueError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(str(path))


def test_checksums_cannot_be_left_out(path):
    save(path, {"w": jnp.zeros(3)})
    path.write_bytes(path.read_bytes().replace(b"header_sha256", b"header_sha257"))
    for reader in (lambda p: load(p, {"w": jnp.zeros(3)}), load_flat, verify, read_header):
        with pytest.raises(ValueError, match=r"metadata lack \['header_sha256'\]"):
            reader(path)


def test_a_damaged_array_is_noticed(path):
    save(path, {"w": jnp.zeros(3)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for reader in (lambda p: load(p, {"w": jnp.zeros(3)}), load_flat, verify):
        with pytest.raises(ValueError, match=r"a\.safetensors: the data are damaged"):
            reader(path)
    assert read_metadata(path) == {}  # cheap: it does not read the arrays


def test_meta_round_trip_and_refusals(path):
    save(path, {}, meta={"shape": (28, 28, 1), "best": float("inf"), "text": "ü\ud800"})
    meta = read_metadata(path)
    assert meta == {"shape": [28, 28, 1], "best": float("inf"), "text": "ü\ud800"}
    with pytest.raises(TypeError, match=r"save: meta\['a'\]\[1\] is a float32, which is not plain"):
        save(path, {}, meta={"a": [1, np.float32(1)]})
    with pytest.raises(TypeError, match="save: meta has the key 1; keys must be str"):
        save(path, {}, meta={1: 2})
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested too deeply, or contains itself"):
        save(path, {}, meta={"a": loop})
    assert read_metadata(path) == meta


# Trees that cannot be written


@pytest.mark.parametrize(
    ("tree", "kind", "message"),
    [
        ({"a/b": 1, "a": {"b": 2}}, ValueError, "two arrays are named 'a/b'; rename a key"),
        ({"a": {"\n": 1}}, ValueError, r"the key '\\n' in 'a/\\n' cannot name an array"),
        ({"": 1}, ValueError, "the key '' in '' cannot name"),
        ({"\ud800": 1}, ValueError, "cannot name an array"),
        ({"__metadata__": 1}, ValueError, "the key '__metadata__'"),
        ({"a": "text"}, TypeError, "save: 'a' is a str; only arrays, numbers and random keys"),
        ({"a": len}, TypeError, "save: 'a' is a builtin_function"),
        ({"a": 1j}, TypeError, "save: 'a' is a complex"),
        ({"a": np.array(["x"])}, TypeError, "save: 'a': dtype <U1 cannot be written"),
        ({"a": np.array([{}])}, TypeError, "save: 'a': dtype object cannot be written"),
        ({"a": ml_dtypes.int4(1)}, TypeError, "save: 'a': dtype int4 cannot be written"),
        ({"a": 2**63}, ValueError, "'a' is 9223372036854775808, which does not fit in 64 bits"),
    ],
)
def test_trees_that_cannot_be_written(tree, kind, message, path):
    with pytest.raises(kind, match=message):
        save(path, tree)
    assert list(path.parent.iterdir()) == []


# Differences


def test_every_difference_is_listed(path):
    save(
        path,
        {
            "gone": jnp.zeros(1),
            "also gone": jnp.zeros(1),
            "shape": jnp.zeros((2, 3)),
            "dtype": jnp.zeros(2, jnp.bfloat16),
            "both": jnp.zeros(2),
            "impl": jax.random.key(0, impl="rbg"),
            "key": jax.random.key(0),
            "plain": jnp.zeros(2, jnp.uint32),
            "count": 3,
            "fine": jnp.zeros(2),
        },
    )
    target = {
        "new": jnp.zeros(1),
        "shape": jnp.zeros((3, 2)),
        "dtype": jnp.zeros(2),
        "both": jnp.zeros(3, jnp.int32),
        "impl": jax.random.key(0),
        "key": jnp.zeros(2, jnp.uint32),
        "plain": jax.random.key(0),
        "count": 3.0,
        "fine": jnp.ones(2),
    }
    with pytest.raises(ValueError, match="does not fit the target") as caught:
        load(path, target)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path} does not fit the target (12 differences):"
    assert sorted(line.strip() for line in lines[1:]) == sorted(
        [
            "missing from the file: 'new'",
            "not in the target: 'also gone'",
            "not in the target: 'gone'",
            "'shape': shape (2, 3) in the file, (3, 2) in the target",
            "'dtype': dtype bfloat16 in the file, float32 in the target",
            "'both': shape (2,) in the file, (3,) in the target",
            "'both': dtype float32 in the file, int32 in the target",
            "'impl': shape (4,) in the file, (2,) in the target",
            "'impl': a 'rbg' key in the file, key<fry> in the target",
            "'key': a random key in the file, a plain array in the target",
            "'plain': a plain array in the file, a random key in the target",
            "'count': dtype int64 in the file, float64 in the target",
        ]
    )


def test_unknown_kind_of_key(path):
    write_metadata(path, keys='{"w": "dice"}')
    with pytest.raises(ValueError, match="'w': a 'dice' key in the file, key<fry> in the target"):
        load(path, {"w": jax.random.key(0)})


def test_target_without_shapes(path):
    save(path, {"a": 1})
    with pytest.raises(TypeError, match="load: the target's 'a' is a str; a target holds arrays"):
        load(path, {"a": "x"})


# One step: all or nothing


def test_order_of_the_system_calls(path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        info = os.fstat(handle)
        kind = "folder" if os.path.samestat(info, path.parent.stat()) else f"{info.st_size} bytes"
        calls.append(f"fsync {kind}")
        real_fsync(handle)

    def replace(source, target):
        calls.append(f"replace {Path(target).name}")
        assert Path(source).parent == path.parent
        assert not Path(target).exists()
        real_replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    monkeypatch.setattr(atomic.os, "replace", replace)
    save(path, {"w": jnp.zeros(1000)})
    size = path.stat().st_size
    assert calls == [f"fsync {size} bytes", "replace a.safetensors", "fsync folder"]


class FullDisk:
    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def flush(self):
        self.file.flush()

    def fileno(self):
        return self.file.fileno()


@pytest.mark.parametrize("room", [0, 8, 900, 4000])
def test_a_full_disk_leaves_the_old_file_alone(room, path, monkeypatch):
    save(path, {"w": jnp.ones(2000)})
    before = path.read_bytes()
    monkeypatch.setattr(atomic, "open", lambda *a: FullDisk(Path.open(*a), room), raising=False)
    with pytest.raises(
        OSError, match=r"cannot write, No space left.*earlier file there is unchanged"
    ) as e:
        save(path, {"w": jnp.zeros(2000)})
    assert e.value.errno == errno.ENOSPC
    assert str(path) in str(e.value)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt(), OSError("?")])
def test_a_failing_call_leaves_the_old_file_alone(call, error, path, monkeypatch):
    save(path, {"w": jnp.ones(20)})
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(type(error)):
        save(path, {"w": jnp.zeros(20)})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_folder_without_permission(path, monkeypatch):
    """The tests may run as root, whom no mode stops; so the system call refuses."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic, "open", refuse, raising=False)
    with pytest.raises(PermissionError, match=r"cannot write, Permission denied.*a\.safetensors"):
        save(path, {})


def test_other_folders(tmp_path):
    save(tmp_path / "new" / "deep" / "a", {})
    assert verify(tmp_path / "new" / "deep" / "a") is None
    with pytest.raises(IsADirectoryError, match="cannot write"):
        save(tmp_path / "new", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new"]
    with pytest.raises(FileExistsError):
        save(tmp_path / "new" / "deep" / "a" / "b", {})
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing", {})


def test_what_a_killed_run_left_is_removed(path):
    stale = path.with_name(f".{path.name}.1-00000000.tmp")
    other = path.with_name(".b.safetensors.1-00000000.tmp")
    stale.write_bytes(b"half")
    other.write_bytes(b"half")
    save(path, {})
    assert sorted(p.name for p in path.parent.iterdir()) == [other.name, path.name]


def test_two_writers_of_one_path_cannot_mix(path):
    def first():
        with atomic.replacing(path) as file:
            file.write(b"first, half")
            save(path, {"w": jnp.ones(3)})

    with pytest.raises(FileNotFoundError, match="cannot write"):
        first()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    verify(path)


def test_the_file_has_the_usual_mode(path):
    previous = os.umask(0o022)
    try:
        save(path, {})
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644


CHILD = """
import importlib.util, sys
import numpy as np
def module(path):
    spec = importlib.util.spec_from_file_location(path.rsplit("/")[-1][:-3], path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made
source, target = sys.argv[1:]
atomic, safetensors = module(source + "/atomic.py"), module(source + "/safetensors.py")
for i in range(100_000):
    with atomic.replacing(target) as file:
        safetensors.write(file, {"w": np.full(30_000, i), "i": np.array(i)}, {"i": str(i)})
    if i == 0:
        print("saved", flush=True)
"""


def test_killed_at_any_moment_the_last_good_file_stays(tmp_path):
    """SIGKILL at random moments of a process that saves all the time (no jax in it: quick)."""
    path = tmp_path / "a.safetensors"
    source = str(Path(checkpoint.__file__).parent)
    rng = random.Random(0)
    interrupted = 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, source, str(path)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout.readline() == b"saved\n"
            time.sleep(rng.uniform(0, 0.03))
            child.send_signal(signal.SIGKILL)
        arrays = load_flat(path)  # compares the checksums
        assert (arrays["w"] == arrays["i"]).all()
        assert read_header(path).metadata["i"] == str(arrays["i"])
        left = [p for p in tmp_path.iterdir() if p != path]
        assert all(atomic.is_temporary(p) for p in left)
        assert len(left) <= 1
        interrupted += len(left)
    assert interrupted  # some were hit in the middle of a save


# Folders


def test_keep_last(tmp_path):
    folder = tmp_path / "run"
    assert steps(folder) == []
    assert latest(folder) is None
    assert latest(folder, verify=True) is None
    for step in (1, 5, 9, 200_000_000, 12_345_678_901):
        made = save_step(folder, step, {"w": jnp.full(2, step, jnp.float32)}, meta={"x": 1})
        assert made == latest(folder) == latest(folder, verify=True) == step_path(folder, step)
        assert read_metadata(made) == {"x": 1, "step": step}
    assert steps(folder) == [9, 200_000_000, 12_345_678_901]
    assert made.name == "step_12345678901.safetensors"
    save_step(folder, 12_345_678_901, {}, keep_last=1)  # again: replaced
    assert [p.name for p in folder.iterdir()] == [made.name]
    for step in (12_345_678_902, 12_345_678_903):
        save_step(folder, step, {}, keep_last=None)
    assert len(steps(folder)) == 3


def test_old_files_go_only_after_the_new_one_is_in_place(tmp_path, monkeypatch):
    for step in (1, 2):
        save_step(tmp_path, step, {}, keep_last=2)

    def fail(*_):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", fail)
        with pytest.raises(OSError, match="broken"):
            save_step(tmp_path, 3, {}, keep_last=1)
    assert steps(tmp_path) == [1, 2]
    seen = []
    real = Path.unlink

    def unlink(self, missing_ok=False):
        seen.append((self.name, step_path(tmp_path, 3).exists()))
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    save_step(tmp_path, 3, {}, keep_last=1)
    assert seen == [("step_00000001.safetensors", True), ("step_00000002.safetensors", True)]


def test_foreign_files_are_neither_seen_nor_deleted(tmp_path):
    (tmp_path / "step_99999999.safetensors").mkdir()
    names = [
        "step_99.safetensors",
        "step_000000099.safetensors",
        "step_00000099.safetensors.bak",
        "xstep_00000099.safetensors",
        "step_0000009\u0669.safetensors",
        "metrics.jsonl",
        ".step_notes.txt",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
    stale = tmp_path / ".step_00000098.safetensors.1-00000000.tmp"
    stale.write_bytes(b"half")
    assert steps(tmp_path) == []
    save_step(tmp_path, 1, {}, keep_last=1)
    save_step(tmp_path, 2, {}, keep_last=1)
    assert steps(tmp_path) == [2]
    assert all((tmp_path / name).read_bytes() == b"mine" for name in names)
    assert not stale.exists()


def test_a_damaged_newest_file(tmp_path):
    for step in (1, 2, 3):
        save_step(tmp_path, step, {"w": jnp.zeros(3)})
    newest = step_path(tmp_path, 3)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert latest(tmp_path) == newest
    with pytest.raises(ValueError, match=r"step_00000003\.safetensors: .* truncated"):
        load(newest, {"w": jnp.zeros(3)})
    with pytest.warns(
        RuntimeWarning, match=r"skipped a damaged .*step_00000003.*truncated"
    ) as seen:
        assert latest(tmp_path, verify=True) == step_path(tmp_path, 2)
    assert len(seen) == 1
    for step in (1, 2):
        step_path(tmp_path, step).write_bytes(b"")
    with warnings.catch_warnings(), pytest.raises(ValueError, match="every checkpoint is damaged"):
        latest(tmp_path, verify=True)


def test_later_steps_of_another_run(tmp_path):
    for step in (10, 20, 30):
        save_step(tmp_path, step, {})
    with pytest.raises(ValueError, match=r"already holds the later steps \[20, 30\]; resume"):
        save_step(tmp_path, 15, {})
    assert drop_after(tmp_path, 15) == [step_path(tmp_path, 20), step_path(tmp_path, 30)]
    save_step(tmp_path, 15, {})
    assert drop_after(tmp_path, 15) == []
    assert steps(tmp_path) == [10, 15]


def test_arguments_of_save_step(tmp_path):
    with pytest.raises(ValueError, match="keep_last must be at least 1, got 0"):
        save_step(tmp_path, 1, {}, keep_last=0)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        save_step(tmp_path, -1, {})
    with pytest.raises(TypeError, match=r"step must be an integer, got 1\.0"):
        step_path(tmp_path, 1.0)
    with pytest.raises(ValueError, match=r"step is 1, but meta\['step'\] is 2"):
        save_step(tmp_path, 1, {}, meta={"step": 2})
    save_step(tmp_path, np.int64(3), {})
    assert read_metadata(step_path(tmp_path, 3)) == {"step": 3}
    assert list(tmp_path.iterdir()) == [step_path(tmp_path, 3)]


# Metrics


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ('{"step": 1}\n{"step": 2}\n{"step": 3}\n', '{"step": 1}\n{"step": 2}\n'),
        ('{"step": 2, "loss": 0.50}\n{"step": 2, "eval": 1}\n', None),
        ('{"options": {}}\n{"step": 3}\n', '{"options": {}}\n'),
        ('{"step": 1}\n{"step": 2, "lo', '{"step": 1}\n'),
        ('{"step": 1}\n\0\0\0', '{"step": 1}\n'),
        ('{"step": 1}\n12', '{"step": 1}\n'),
        ('{"step": 1}', '{"step": 1}\n'),
        ('{"step": 1}\n\n\n{"step": 2}\n\n', '{"step": 1}\n{"step": 2}\n'),
        ('{"step": 1, "loss": NaN, "s": "\u2028ü"}\r\n', None),
    ],
)
def test_truncate_jsonl(text, kept, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text.encode())
    wanted = (text if kept is None else kept).encode()
    assert truncate_jsonl(path, 2) == wanted.count(b"\n")
    assert path.read_bytes() == wanted
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_truncate_jsonl_cut_anywhere(tmp_path):
    """Whatever a killed run had written, whole lines up to the step remain."""
    path = tmp_path / "metrics.jsonl"
    text = "".join(json.dumps({"step": i, "loss": i / 7}) + "\n" for i in range(4)).encode()
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        truncate_jsonl(path, 1)
        got = [json.loads(line)["step"] for line in path.read_bytes().splitlines()]
        complete = text[: length + 1].count(b"\n")
        assert got == list(range(min(complete, 2)))


def test_truncate_jsonl_refusals(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert truncate_jsonl(path, 2) == 0
    assert not path.exists()
    for text, message in [
        ('{"st\n{"step": 1}\n', "line 1: "),
        ('{"step": 1}\n[1]\n{"step": 1}\n', "line 2: not a JSON object"),
        ('{"step": "1"}\n', "line 1: step is '1', not a number"),
        ('{"step": true}\n', "line 1: step is True, not a number"),
        ("[" * 200_000 + '\n{"step": 1}\n', "line 1: "),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            truncate_jsonl(path, 2)
        assert str(caught.value).startswith(str(path))
        assert path.read_text() == text
