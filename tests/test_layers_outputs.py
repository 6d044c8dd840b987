"""The outputs of layers inside a network, through every composite and every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers

KEY = jax.random.key(0)
X = jnp.asarray(np.random.RandomState(0).normal(size=(3, 4)), jnp.float32)


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def made(net, x=X):
    return jaxd2l.init(net, KEY, x.shape[1:])


@pytest.mark.smoke
def test_through_all_composites():
    net = layers.Serial(
        [
            layers.Parallel(
                [layers.Dense("a", 4), layers.Serial([layers.Dense("b", 4)], name="deep")],
                "add",
                name="both",
            ),
            layers.Split([layers.Identity(), layers.Dense("half", 3)], "concat"),
            layers.Activation("relu"),
            layers.Dense("output", 2),
        ]
    )
    params, state = made(net)
    paths = layers.layer_paths(net)
    assert paths == ("both", "both/a", "both/deep", "both/deep/b", "half", "output")
    found = layers.outputs_at(net, params, state, X, paths)
    assert list(found) == list(paths)
    a, b = dense(X, params["both"]["a"]), dense(X, params["both"]["deep"]["b"])
    half = dense((a + b)[:, 2:], params["half"])
    wanted = {"both/a": a, "both/deep/b": b, "both/deep": b, "both": a + b, "half": half}
    for path, want in wanted.items():
        np.testing.assert_allclose(found[path], want, atol=1e-6)
    np.testing.assert_array_equal(found["output"], jaxd2l.apply(net, params, state, X)[0])
    only = layers.outputs_at(net, params, state, X, ["half"])
    assert list(only) == ["half"]


@pytest.mark.parametrize("name", [None, "blocks"])
def test_repetitions_come_stacked(name):
    block = layers.Serial([layers.Dense("dense", 4), layers.Activation("tanh")], name="block")
    net = layers.Serial([layers.Dense("first", 4), layers.Repeat(block, 3, name=name)])
    params, state = made(net)
    inside = "block" if name is None else "blocks/block"
    found = layers.outputs_at(net, params, state, X, [f"{inside}/dense", inside, "first"])
    assert found[inside].shape == (3, 3, 4)  # repetitions, examples, features
    stacked = params["block"] if name is None else params["blocks"]["block"]
    x = found["first"]
    for i in range(3):
        before = dense(x, jax.tree.map(lambda leaf, i=i: leaf[i], stacked["dense"]))
        np.testing.assert_allclose(found[f"{inside}/dense"][i], before, atol=1e-6)
        x = jnp.tanh(before)
        np.testing.assert_allclose(found[inside][i], x, atol=1e-6)
    if name is not None:
        np.testing.assert_array_equal(
            layers.outputs_at(net, params, state, X, [name])[name], found[inside][-1]
        )


def test_a_tied_layer_and_running_statistics_are_seen_as_in_a_test():
    hidden = layers.Dense("hidden", 4)
    net = layers.Serial(
        [
            hidden,
            layers.BatchNorm("bn"),
            layers.Dropout("drop", 0.5),
            layers.Tied("again", hidden, to="hidden"),
        ]
    )
    params, state = made(net)
    state = {"bn": {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 4.0)}}
    found = layers.outputs_at(net, params, state, X, layers.layer_paths(net))
    first = dense(X, params["hidden"])
    np.testing.assert_allclose(found["bn"], (first - 0.5) / np.sqrt(4 + 1e-5), atol=1e-6)
    np.testing.assert_array_equal(found["drop"], found["bn"])
    np.testing.assert_allclose(found["again"], dense(found["drop"], params["hidden"]), atol=1e-6)


def test_compiles_maps_and_differentiates():
    net = layers.Serial([layers.Dense("a", 3), layers.Activation("tanh"), layers.Dense("b", 2)])
    params, state = made(net)

    def mean(params, x):
        return layers.outputs_at(net, params, state, x, ["a"])["a"].mean()

    grads = jax.jit(jax.grad(mean))(params, X)
    np.testing.assert_allclose(grads["a"]["bias"], 1 / 3, atol=1e-6)
    assert not np.asarray(grads["b"]["kernel"]).any()  # it comes after
    each = jax.vmap(lambda x: mean(params, x[None]))(X)
    np.testing.assert_allclose(each.mean(), mean(params, X), atol=1e-6)


def test_errors():
    net = layers.Serial([layers.Dense("a", 3)], name="net")
    params, state = made(net)
    with pytest.raises(ValueError, match=r"no layer at 'a'; the named layers are \['net', 'net/a'"):
        layers.outputs_at(net, params, state, X, ["a"])
    with pytest.raises(TypeError, match="paths must be a list of paths, got the string 'net/a'"):
        layers.outputs_at(net, params, state, X, "net/a")
    with pytest.raises(ValueError, match="params has 'b' at 'the top level'"):
        layers.outputs_at(net, {"b": {}}, state, X, ["net/a"])
    with pytest.raises(TypeError, match="expected a network"):
        layers.outputs_at(len, params, state, X, ["net/a"])
