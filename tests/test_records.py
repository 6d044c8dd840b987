"""Records: equality, hashing, repr, and JSON that never builds anything but a record."""

import dataclasses
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import layers, models, records
from jaxd2l.geometry import as_int
from jaxd2l.ops import initializers


@records.record
class Pair:
    first: object
    second: object = 0


# Every public layer, in forms that need normalising: lists, NumPy integers, strings.
NETS = [
    layers.Conv("conv", 4, [3, 2], stride=[1, 2], padding="same", dilation=2),
    layers.Conv("conv", np.int64(4), np.int64(3), padding=[[1, 2], 0]),
    layers.Conv("conv", 4, 3, kernel_init=initializers.Orthogonal(0.5)),
    layers.ConvTranspose("up", 3, (4,), stride=2, padding=[(1, 0)], output_padding=[1]),
    layers.LocallyConnected("local", 2, 3, padding=(1, 2)),
    layers.TiledConv("tiled", 2, 3, tiles=[2, 1]),
    layers.MaxPool([3, 2], stride=2, padding=[0, [1, 0]], ceil_mode=True),
    layers.AvgPool(2, count_include_pad=False),
    layers.MinPool((2,)),
    layers.KMaxPool(2),
    layers.GlobalAvgPool(),
    layers.BatchNorm("bn", decay=1, unbiased=True, axis_name="data"),
    layers.LayerNorm("ln", axes=2),
    layers.GroupNorm("gn", 2, eps=1e-3),
    layers.InstanceNorm("in", scale=False),
    layers.LocalResponseNorm(k=1),
    layers.Dense("dense", 3, bias=False),
    layers.CosineDense("cosine", 3),
    layers.ConstantDense(3, seed=2),
    layers.Maxout("maxout", 3, 4),
    layers.RBF("rbf", 3, sigma=2),
    layers.PReLU("prelu"),
    layers.Embedding("words", 10, 3),
    layers.WeightNorm(layers.Dense("dense", 3)),
    layers.Activation("tanh"),
    layers.Dropout("dropout", 0, classic=True),
    layers.Reshape([2, 3]),
    layers.Powers(3),
    layers.Flatten(),
    layers.Identity(),
    layers.Serial([layers.Flatten(), layers.Serial([layers.Dense("a", 2)], name="block")]),
    layers.Parallel([layers.Identity(), layers.Dense("a", 2)], "add"),
    layers.Split([layers.Identity()], "concat", name="split"),
    layers.Repeat(layers.Dense("a", 2), 3),
    layers.Tied("again", layers.Dense("a", 2), to="a"),
    models.lenet(batch_norm=True),
    models.mlp([6, 5], dropout=[0.2, 0.5]),
]


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_round_trip_gives_an_equal_record_with_the_same_hash_and_repr(net):
    twin = records.load(records.dump(net))
    assert twin == net
    assert twin is not net
    assert hash(twin) == hash(net)
    assert repr(twin) == repr(net)
    assert records.dump(twin) == records.dump(net)
    json.loads(records.dump(net))


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_repr_is_an_expression_that_gives_the_record_back(net):
    names = {name: getattr(initializers, name) for name in ("Orthogonal", "XavierUniform")}
    assert eval(repr(net), {**vars(layers), **names}) == net


def test_all_leaf_types_and_tuples_survive():
    value = Pair((None, True, 3, -2.5, "s", (), ((1, 2), ("a", Pair(1)))), float("inf"))
    assert records.load(records.dump(value)) == value


def test_lists_become_tuples_so_that_records_hash():
    assert records.load('{"type": "Pair", "first": [1, [2, 3]]}') == Pair((1, (2, 3)))
    net = layers.Serial([layers.Reshape([2, 3]), layers.MaxPool([2, 1])])
    assert isinstance(net.layers, tuple)
    assert net.layers[0].shape == (2, 3)
    hash(net)


def test_equal_arguments_written_differently_give_equal_records():
    assert layers.Conv("a", 2, 3, 1, "same") == layers.Conv("a", 2, (3, 3), (1, 1), 1)
    assert layers.MaxPool(2) == layers.MaxPool((2, 2), stride=2, padding=((0, 0), 0))
    assert layers.Dropout("d", 0) == layers.Dropout("d", 0.0)
    assert layers.Conv("a", 2, 3) != layers.Conv("a", 2, (3,))
    assert layers.MaxPool(2) != layers.MinPool(2)


def test_repr_leaves_out_the_defaults_in_whatever_form():
    assert repr(layers.MaxPool(2)) == "MaxPool(kernel=(2, 2))"
    assert repr(layers.MaxPool(2, stride=1)) == "MaxPool(kernel=(2, 2), stride=(1, 1))"
    assert repr(layers.Conv("c", 6, 5, stride=1, padding=2)) == (
        "Conv(name='c', features=6, kernel=(5, 5), padding=((2, 2), (2, 2)))"
    )
    assert repr(models.softmax_regression()) == (
        "Serial(layers=(Flatten(), Dense(name='output', features=10, kernel_init=Normal())))"
    )
    assert repr(Pair(1, (0, 0))) == "Pair(first=1, second=(0, 0))"  # not the default 0


def test_a_record_is_static_under_jit_and_an_equal_one_is_not_traced_again():
    traces = []

    @jax.jit
    def double(net, x):
        traces.append(net)
        return x * net.features

    assert double(layers.Dense("a", 3), jnp.ones(2)).tolist() == [3.0, 3.0]
    assert double(layers.Dense("a", 3), jnp.ones(2)).tolist() == [3.0, 3.0]
    assert len(traces) == 1
    assert double(layers.Dense("a", 4), jnp.ones(2)).tolist() == [4.0, 4.0]
    assert len(traces) == 2
    assert jax.tree.leaves(layers.Dense("a", 3)) == []


def test_a_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        layers.Dense("a", 3).features = 4
    assert dataclasses.replace(layers.Dense("a", 3), features=4) == layers.Dense("a", 4)


def test_is_record_wants_an_instance_of_a_declared_type():
    class Undeclared(Pair):
        pass

    assert records.is_record(Pair(1))
    assert not records.is_record(Pair)
    assert not records.is_record(Undeclared(1))
    assert not records.is_record(3)


def test_a_class_defined_again_keeps_its_old_instances_alive():
    def define():
        @records.record
        class DefinedTwice(layers.Layer):
            size: int

        return DefinedTwice(3)

    old, new = define(), define()
    assert records.is_record(old)
    assert records.is_record(new)
    layers.Serial([old])
    assert type(records.load(records.dump(old))) is type(new)


def test_names_that_clash_across_modules_are_refused():
    with pytest.raises(ValueError, match="'Dense' is already defined in jaxd2l"):
        records.record(type("Dense", (), {"__module__": "elsewhere", "__annotations__": {}}))
    assert type(records.load(records.dump(layers.Dense("a", 1)))) is layers.Dense


def test_a_field_called_type_is_refused():
    with pytest.raises(ValueError, match="cannot have a field called 'type'"):

        @records.record
        class Typed:
            type: str


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"type": "Pair", "first": 1', "not JSON"),
        ("{}", "unknown record type None"),
        ('{"type": "os.system", "command": "ls"}', "record: unknown record type 'os.system'"),
        ('{"type": "__import__"}', "unknown record type '__import__'"),
        ('{"type": ["Pair"]}', "unknown record type"),
        ('{"type": {"type": "Pair"}}', "unknown record type"),
        ('{"type": "Pair", "first": {"type": "No"}}', "record.first: unknown record type 'No'"),
        ('{"type": "Pair", "first": [0, {"a": 1}]}', r"record.first\[1\]: unknown record type"),
        ('{"type": "Pair", "third": 1}', r"Pair has no field 'third' \(it has \['first', "),
        ('{"type": "Pair", "__class__": 1}', "no field '__class__'"),
        ('{"type": "Pair"}', "not a valid Pair"),
        ('{"type": "Dense", "name": "a", "features": 0}', "features must be at least 1"),
        ('{"type": "Dense", "name": "a", "features": 1.5}', "features must be an integer"),
        ('{"type": "Dense", "name": "a", "features": true}', "features must be an integer"),
        ('{"type": "Dense", "name": "a", "features": 1e999}', "features must be an integer"),
        ('{"type": "Dense", "name": "a", "features": null}', "features must be an integer"),
        ('{"type": "Dense", "name": "../a", "features": 2}', "the name '../a' must be"),
        ('{"type": "Dense", "name": 3, "features": 2}', "the name must be a string"),
        ('{"type": "Dense", "name": "a", "features": 2, "bias": 1}', "bias must be True or False"),
        ('{"type": "Dense", "name": "a", "features": 2, "kernel_init": 1}', "an initialiser"),
        ('{"type": "Dropout", "name": "a", "rate": NaN}', "rate .* must be >= 0 and <= 1"),
        ('{"type": "BatchNorm", "name": "a", "eps": NaN}', "eps must be >= 0, got nan"),
        ('{"type": "BatchNorm", "name": "a", "decay": "x"}', "decay must be a number"),
        ('{"type": "Normal", "std": NaN}', "std must be finite"),
        ('{"type": "Serial", "layers": []}', "layers is empty"),
        ('{"type": "Serial", "layers": 3}', "layers must be a list of layers"),
        ('{"type": "Serial", "layers": "abc"}', "'a' is not a layer"),
        ('{"type": "Serial", "layers": [{"type": "Normal", "std": 1.0}]}', "is not a layer"),
        ('{"type": "Conv", "name": "c", "features": 1, "kernel": []}', "1, 2 or 3 axes"),
        ('{"type": "Conv", "name": "c", "features": 1, "kernel": "333"}', "must be an integer"),
        ('{"type": "Conv", "name": "c", "features": 1, "kernel": null}', "must be an integer"),
        ('{"type": "Activation", "kind": ["relu"]}', "unknown kind"),
        ('{"type": "Function", "function": "os.system"}', "expected a function"),
        ('{"type": "FlaxModule", "name": "a", "module": "x"}', "expected a flax.linen module"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "Pair", "first": ' * 100_000, "nested too deeply"),
        ("9" * 10_000, "."),
    ],
)
def test_hostile_text_gives_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        records.load(text)


def test_a_long_chain_of_records_is_loaded_or_refused_but_never_crashes():
    net = layers.Identity()
    for _ in range(100):
        net = layers.Serial([net])
    assert records.load(records.dump(net)) == net
    deep = '{"type": "Serial", "layers": [' * 5000 + '{"type": "Identity"}' + "]}" * 5000
    with pytest.raises(ValueError, match=r"nested too deeply|not a valid"):
        records.load(deep)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (layers.Function(jnp.sum), "Function.function holds"),
        (layers.Serial([layers.Flatten(), layers.Function(abs)]), r"Serial.layers\[1\].function"),
        (Pair(1, {"a": 1}), "Pair.second holds"),
        (Pair((1, np.float32(2))), r"Pair.first\[1\] holds"),
        (layers.Dense("a", 1, kernel_init=lambda *a: 0), "Dense.kernel_init holds"),
    ],
)
def test_dump_names_the_place_of_what_it_cannot_write(value, where):
    with pytest.raises(TypeError, match=f"{where}.*cannot be written to a file"):
        records.dump(value)


def test_dump_of_a_flax_module_names_its_place():
    net = layers.Serial([layers.FlaxModule("features", nn.Dense(3))], name="net")
    with pytest.raises(TypeError, match=r"Serial.layers\[0\].module holds"):
        records.dump(net)
    hash(net)
    assert net == layers.Serial([layers.FlaxModule("features", nn.Dense(3))], name="net")


@pytest.mark.parametrize("value", [True, 1.0, "1", None, (1,), np.ones(2, int)])
def test_as_int_wants_an_integer(value):
    with pytest.raises(TypeError, match="stride must be an integer, got"):
        as_int(value, "stride", 0)


def test_as_int_takes_numpy_integers_and_checks_the_bound():
    got = as_int(np.uint8(3), "stride", 1)
    assert got == 3
    assert type(got) is int
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        as_int(0, "stride", 1)


@pytest.mark.parametrize("value", [True, "1", None, 1j, jnp.float32(1)])
def test_as_float_wants_a_number(value):
    with pytest.raises(TypeError, match="rate must be a number, got"):
        records.as_float(value, "rate")


def test_as_float_checks_the_bounds():
    assert records.as_float(np.float32(0.5), "rate", 0, 1) == 0.5
    assert type(records.as_float(1, "rate")) is float
    for value in (math.nan, math.inf, -0.1, 1.1):
        with pytest.raises(ValueError, match="rate must be >= 0 and <= 1, got"):
            records.as_float(value, "rate", 0, 1)
    with pytest.raises(ValueError, match="k must be finite, got inf"):
        records.as_float(math.inf, "k")
