"""PyTorch's weights in and out: layouts, names, files, and what is refused."""

import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxd2l
from jaxd2l import apply, checkpoint, init, interop, layers
from jaxd2l.checkpoint.safetensors import write
from jaxd2l.interop import torch as bridge
from jaxd2l.interop.torch_layout import places
from jaxd2l.interop.torch_names import FAMILIES, current_key
from jaxd2l.models.inception import inception_v3_auxiliary
from jaxd2l.models.resnet import resnet

GOLDEN = Path(__file__).parent / "golden"

# Networks of the golden file, with the names that PyTorch's modules have there.
IMAGE = layers.Serial(
    [
        layers.Conv("conv", 6, (3, 5), stride=2, padding=(1, 2), groups=2),
        layers.BatchNorm("bn"),
        layers.PReLU("slopes"),
        layers.ConvTranspose("up", 4, (2, 3), stride=2, groups=2),
        layers.GroupNorm("gn", 2),
        layers.InstanceNorm("instance"),
        layers.Flatten(),
        layers.BatchNorm("flat_bn"),
        layers.Dropout("drop", 0.5),
        layers.Dense("hidden", 5),
        layers.LayerNorm("ln"),
        layers.Dense("out", 3, bias=False),
    ]
)
SIGNAL = layers.Serial(
    [
        layers.Conv("conv", 4, (3,)),
        layers.Activation("relu"),
        layers.Flatten(),
        layers.Dense("out", 2),
    ]
)
VOLUME = layers.Serial(
    [
        layers.ConvTranspose("up", 3, (1, 2, 2)),
        layers.Conv("conv", 2, (2, 1, 3)),
        layers.Flatten(),
        layers.Dense("out", 2),
    ]
)
TOKENS = layers.Serial([layers.Embedding("words", 7, 4), layers.Dense("out", 2)])
SAME = {r"(\w+)": r"\1"}
NETWORKS = {"image": IMAGE, "signal": SIGNAL, "volume": VOLUME, "tokens": TOKENS}
TINY = resnet((1, 1), 3, features=2)  # 8x8 is the least; keys as torchvision's


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "interop_torch.npz") as file:
        return dict(file)


def state_dict(golden, name):
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def same(a, b):
    """Bit for bit, types included."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def random_weights(net, input_shape, names=None, dtype=np.float32):
    """A state_dict of numbers that are all different."""
    random = np.random.RandomState(0)
    return {
        key: random.rand(*shape).astype(dtype) if shape else np.zeros(shape, np.int64)
        for key, shape in bridge.shapes(net, input_shape, names=names).items()
    }


def structure(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype), tree)


# Layouts


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_computes_what_pytorch_computes_and_goes_back_bit_for_bit(name, golden, x64):
    net, weights, x = NETWORKS[name], state_dict(golden, name), golden[f"{name} x"]
    params, state = bridge.load(net, weights, x.shape[1:], names=SAME)
    np.testing.assert_allclose(apply(net, params, state, x)[0], golden[f"{name} y"], atol=1e-12)
    back = bridge.export(net, params, state, x.shape[1:], names=SAME)
    assert same(back, weights)
    assert all(array.flags.writeable and array.flags.c_contiguous for array in back.values())
    shapes = jax.eval_shape(lambda: init(net, jax.random.key(0), x.shape[1:], dtype=jnp.float64))
    assert structure((params, state)) == structure(shapes)


def test_a_repeat_is_stacked_and_unstacked():
    block = layers.Serial([layers.Dense("dense", 3), layers.BatchNorm("bn")], name="block")
    inner = layers.Repeat(layers.Dense("deep", 3), 2, name="inner")
    net = layers.Serial([layers.Repeat(block, 2), layers.Repeat(inner, 3, name="outer")])
    names = {
        r"\[(\d)\]/block/(dense|bn)": r"\2s.\1",
        r"outer\[(\d)\]/inner\[(\d)\]/deep": r"deep.\1.\2",
    }
    weights = random_weights(net, (3,), names)
    assert {"denses.1.weight", "bns.0.running_var", "deep.2.1.bias"} <= weights.keys()
    params, state = bridge.load(net, weights, (3,), names=names)
    assert structure((params, state)) == structure(init(net, jax.random.key(0), (3,)))
    np.testing.assert_array_equal(
        params["block"]["dense"]["kernel"][1], weights["denses.1.weight"].T
    )
    np.testing.assert_array_equal(
        params["outer"]["inner"]["deep"]["kernel"][2, 1], weights["deep.2.1.weight"].T
    )
    assert same(bridge.export(net, params, state, (3,), names=names), weights)
    weights["denses.0.weight"] = weights["denses.0.weight"].astype(np.float16)
    with pytest.raises(ValueError, match=r"repeated units must be of one type.*\n.*dense/kernel"):
        bridge.load(net, weights, (3,), names=names)


def test_a_tied_layer_has_its_arrays_once():
    shared = layers.Dense("shared", 3)
    net = layers.Serial([shared, layers.Tied("again", shared, to="shared")])
    weights = random_weights(net, (3,), SAME)
    assert sorted(weights) == ["shared.bias", "shared.weight"]
    assert same(
        bridge.export(net, *bridge.load(net, weights, (3,), names=SAME), (3,), names=SAME), weights
    )


FLAT, DENSE = layers.Flatten(), layers.Dense("a", 8)


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ([FLAT, layers.Parallel([layers.Identity(), DENSE], "add")], "Parallel"),
        ([FLAT, layers.Parallel([layers.Identity(), DENSE], "concat")], "Parallel"),
        ([FLAT, layers.Parallel([layers.Identity(), layers.Identity()], "concat")], "Parallel"),
        ([FLAT, layers.Split([DENSE, layers.Dense("b", 2)])], "Split"),
        ([FLAT, layers.Tied("again", DENSE, to="a")], "Dense"),
        ([FLAT, layers.GroupNorm("gn", 2)], "GroupNorm"),
        ([FLAT, layers.Reshape((2, 2, 2))], "Reshape"),
        ([FLAT, DENSE, layers.Reshape((2, 2, 2))], "Reshape"),
        ([layers.Function(lambda x: x.reshape(len(x), -1)), DENSE], "Function"),
    ],
)
def test_an_order_of_features_that_is_not_known_is_refused(net, told):
    """Nothing may be permuted by guess: (2, 2, 2) has another order in PyTorch when it is flat."""
    with pytest.raises(ValueError, match=f"flattened map .* PyTorch's {told} orders them"):
        places(layers.Serial(net), (2, 2, 2))
    for shape in ((1, 1, 8), (8, 1, 1)):  # here the order is the same
        if not any(isinstance(layer, layers.Reshape) for layer in net):
            assert places(layers.Serial(net), shape)


@pytest.mark.parametrize("combine", ["concat", "add"])
def test_branches_may_each_flatten_into_a_dense_layer(combine):
    heads = [layers.Dense(name, 2) for name in "ab"]
    net = layers.Serial([layers.Flatten(), layers.Parallel(heads, combine)])
    kernels = [place.leaves[0].split for place in places(net, (3, 2, 5)) if place.leaves]
    assert kernels == [(2, 5, 3, 2)] * 2


@pytest.mark.parametrize(
    "layer",
    [layers.Maxout("m", 2, 2), layers.LayerNorm("ln", axes=3), layers.RBF("r", 2)],
    ids=lambda layer: layer.name,
)
def test_a_layer_that_pytorch_has_not_is_refused(layer):
    with pytest.raises(ValueError, match=f"{type(layer).__name__} .*no counterpart") as caught:
        places(layer, (2, 2, 3) if layer.name == "ln" else (3,))
    assert "in layer" in caught.value.__notes__[0]


# Names


def test_the_input_shape_comes_from_the_first_convolution_and_the_family():
    net = layers.Serial(
        [layers.Conv("a", 4, 3, 2, groups=2), layers.Flatten(), layers.Dense("b", 2)]
    )
    weights = random_weights(net, (224, 224, 6), SAME)
    assert weights["a.weight"].shape == (4, 3, 3, 3)
    params, state = bridge.load(net, weights, names=SAME)
    assert params["b"]["kernel"].shape == (111 * 111 * 4, 2)
    assert same(bridge.export(net, params, state, names=SAME), weights)
    assert {family.name: family.size for family in FAMILIES}["inception_v3"] == 299
    with pytest.raises(ValueError, match=r"missing: 'AuxLogits\.fc\.bias'"):  # 224 is too small
        bridge.load(inception_v3_auxiliary(10), {})
    dense = layers.Serial([layers.Flatten(), layers.Dense("b", 2)])
    with pytest.raises(ValueError, match="input_shape can only be left out"):
        bridge.load(dense, weights, names=SAME)
    late = layers.Serial([layers.BatchNorm("bn"), layers.Conv("a", 4, 3)])
    with pytest.raises(ValueError, match="'bn' comes before the first convolution") as caught:
        bridge.load(late, {}, names=SAME)
    assert "pass it" in caught.value.__notes__[0]


def test_names_must_match_each_path_once():
    net = layers.Serial([layers.Dense("a", 2), layers.Dense("b", 2), layers.Dense("c", 2)])
    with pytest.raises(
        ValueError, match=r"'a' is matched by \['a', '\[ab\]'\]\n.*'c' is.* no rule"
    ):
        bridge.load(net, {}, (2,), names={"a": "x", "[ab]": "y"})
    with pytest.raises(TypeError, match="'a' must give a string, got 3"):
        bridge.load(net, {}, (2,), names={"a": lambda match: 3, "[bc]": "x"})
    with pytest.raises(ValueError, match=r"'\(a' is not a pattern"):
        bridge.load(net, {}, (2,), names={"(a": "x"})
    with pytest.raises(ValueError, match=r"'x\.\\\\1' does not fit 'a': invalid group"):
        bridge.load(net, {}, (2,), names={"a": r"x.\1", "[bc]": "x"})
    with pytest.raises(ValueError, match=r"wanted more than once: 'x.weight', by \['b', 'c'\]"):
        bridge.load(net, {}, (2,), names={"a": "a", "[bc]": "x"})
    made = random_weights(net, (2,), {"a": "", "(b|c)": lambda match: match[1].upper()})
    assert sorted(made) == ["B.bias", "B.weight", "C.bias", "C.weight", "bias", "weight"]


def test_a_network_that_no_table_covers_is_told_what_is_missing():
    net = layers.Serial([TINY, layers.Dense("more", 2)])
    with pytest.raises(ValueError, match=r"nearest, resnet, has not 'more'\. Pass names"):
        bridge.load(net, {})
    with pytest.raises(ValueError, match="no table of PyTorch's names covers"):
        bridge.export(jaxd2l.models.lenet(), {}, {}, (28, 28, 1))


def test_keys_of_old_densenets_are_read_as_torchvision_reads_them():
    old = "features.denseblock2.denselayer11.conv.2.weight"
    assert current_key(old) == "features.denseblock2.denselayer11.conv2.weight"
    assert current_key("features.norm5.weight") == "features.norm5.weight"
    with pytest.raises(ValueError, match="both an old and a new key"):
        bridge.load(TINY, {old: 0, current_key(old): 0})
    with pytest.raises(ValueError, match=f"unexpected: '{re.escape(old)}'"):  # names of one's own
        bridge.load(layers.Dense("a", 2), {old: 0}, (2,), names=SAME)


# Problems


def test_everything_that_does_not_fit_is_listed_at_once():
    weights = random_weights(TINY, (8, 8, 3))
    del weights["bn1.bias"]
    weights["fc.weight"] = weights["fc.weight"].T
    weights["fc.bias"] = np.zeros(3, int)
    weights["aux.fc.weight"] = weights["extra"] = np.zeros(1)
    weights["conv1.weight"] = [1]
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        bridge.load(TINY, weights, (8, 8, 3))
    assert str(caught.value).splitlines() == [
        "load: the weights do not fit the network (6 problems):",
        "  'conv1.weight' is a list, not an array",
        "  missing: 'bn1.bias', for 'params/bn1/bias'",
        "  'fc.weight': shape (4, 3), 'params/output/kernel' needs (3, 4)",
        "  'fc.bias': int64 is not floating point",
        "  unexpected: 'aux.fc.weight'",
        "  unexpected: 'extra'",
    ]


def test_unexpected_keys_are_left_out_only_where_asked():
    weights = random_weights(TINY, (8, 8, 3))
    more = weights | {"aux1.fc.weight": np.zeros(1), "aux2.fc.weight": np.zeros(1)}
    params, state = bridge.load(TINY, more, ignore=("aux1.*", "aux2*"))
    assert same(bridge.export(TINY, params, state), weights)
    with pytest.raises(ValueError, match=r"1 problems.*\n  unexpected: 'aux2.fc.weight'"):
        bridge.load(TINY, more, ignore=("aux1.*",))
    with pytest.raises(ValueError, match=r"ignore: 'aux\.\*' matches no unexpected key"):
        bridge.load(TINY, more, ignore=("aux*", "aux.*"))
    with pytest.raises(TypeError, match="ignore must be a list"):
        bridge.load(TINY, more, ignore="aux*")
    counted = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    params, _ = bridge.load(TINY, counted)  # old files have no counters
    np.testing.assert_array_equal(params["output"]["bias"], weights["fc.bias"])


def test_export_lists_what_does_not_fit():
    params, state = bridge.load(TINY, random_weights(TINY, (8, 8, 3)))
    params["output"] = {"kernel": jnp.zeros((3, 3)), "scale": jnp.zeros(3)}
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        bridge.export(TINY, params, state, (8, 8, 3))
    assert str(caught.value).splitlines()[1:] == [
        "  'params/output/kernel': shape (3, 3), wanted (4, 3)",
        "  missing: 'params/output/bias'",
        "  unexpected: 'params/output/scale'",
    ]


# Sources


class Tensor:
    """What `load` uses of a PyTorch tensor."""

    def __init__(self, array, dtype):
        self.array, self.dtype, self.shape = array, dtype, array.shape

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.array.astype(np.float32), "torch.float32")

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_and_arrays_of_every_kind_keep_their_type(dtype):
    weights = random_weights(TINY, (8, 8, 3), dtype=np.dtype(getattr(ml_dtypes, dtype, dtype)))
    tensors = {k: Tensor(v, f"torch.{dtype}") for k, v in weights.items()}
    for source in (weights, tensors, jax.tree.map(jnp.asarray, weights)):
        params, state = bridge.load(TINY, source)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((params, state)))
        assert same(bridge.export(TINY, params, state), weights)


def test_double_precision_is_not_rounded_behind_ones_back(x64):
    weights = random_weights(TINY, (8, 8, 3), dtype=np.float64)
    params, state = bridge.load(TINY, weights)
    assert same(bridge.export(TINY, params, state), weights)
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64 needs 64-bit mode"):
        bridge.load(TINY, weights)


def test_a_safetensors_file_goes_in_and_out(tmp_path):
    weights = random_weights(TINY, (8, 8, 3))
    with open(tmp_path / "weights.safetensors", "wb") as file:
        write(file, weights, checksums=False)
    for path in (tmp_path / "weights.safetensors", str(tmp_path / "weights.safetensors")):
        assert same(bridge.export(TINY, *bridge.load(TINY, path)), weights)
    again = tmp_path / "again.safetensors"
    with open(again, "wb") as file:
        write(file, bridge.export(TINY, *bridge.load(TINY, path)), checksums=False)
    assert again.read_bytes() == path_bytes(path)
    assert same(checkpoint.load_flat(again), weights)


def path_bytes(path):
    return Path(path).read_bytes()


def test_pytorchs_own_files_are_read_by_pytorch_and_only_as_weights(tmp_path, monkeypatch):
    weights, calls = random_weights(TINY, (8, 8, 3)), []

    def load(path, **options):
        calls.append((path, options))
        return weights

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    assert same(bridge.export(TINY, *bridge.load(TINY, tmp_path / "a.pth")), weights)
    assert calls == [(tmp_path / "a.pth", {"map_location": "cpu", "weights_only": True})]


def test_what_pytorch_refuses_is_refused_without_its_advice(tmp_path, monkeypatch):
    def load(path, **options):
        if "missing" in str(path):
            raise FileNotFoundError(path)
        raise RuntimeError("pass weights_only=False")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    with pytest.raises(ValueError, match=r"a\.pth: .*\(RuntimeError\): it is damaged") as told:
        bridge.load(TINY, tmp_path / "a.pth")
    assert "weights_only=False" not in str(told.value)
    assert told.value.__suppress_context__
    with pytest.raises(FileNotFoundError):
        bridge.load(TINY, tmp_path / "missing.pth")


def test_what_cannot_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    with pytest.raises(ImportError, match="only PyTorch can read this file"):
        bridge.load(TINY, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.npz: expected a \.safetensors, \.pth or \.pt file"):
        bridge.load(TINY, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"'net' holds a dict: .*\['net'\], and pass that"):
        bridge.load(TINY, {"epoch": 3, "net": random_weights(TINY, (8, 8, 3))})
    with pytest.raises(TypeError, match="got a list"):
        bridge.load(TINY, [1])
    with pytest.raises(TypeError, match=r"got a Module; pass module.state_dict\(\)"):
        bridge.load(TINY, type("Module", (), {"state_dict": None})())


def test_interop_is_imported_when_it_is_used():
    assert jaxd2l.interop is interop
    assert interop.torch is bridge
    assert "torch" in dir(interop)
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        interop.tensorflow  # noqa: B018
