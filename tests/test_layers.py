"""Layers: what they compute against formulas, and the message of every error they raise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxd2l
from jaxd2l import layers
from jaxd2l.ops import initializers
from jaxd2l.testing import assert_gradients_match

X = jax.random.normal(jax.random.key(9), (4, 6))


def notes(excinfo):
    return " ".join(getattr(excinfo.value, "__notes__", ()))


def started(net, shape, **options):
    return jaxd2l.init(net, jax.random.key(0), shape, **options)


def run(net, params, x, **call):
    return jaxd2l.apply(net, params, {}, x, **call)[0]


# --- what they compute --------------------------------------------------------------------------


def test_running_statistics_survive_layers_without_a_name():
    # Such layers share the level of their neighbours, and must not touch its statistics.
    net = layers.Serial([layers.BatchNorm("bn", decay=0.0), layers.Activation("relu")])
    params, state = started(net, (6,))
    _, new = jaxd2l.apply(net, params, state, X, train=True)
    np.testing.assert_allclose(new["bn"]["mean"], X.mean(0), atol=1e-6)
    np.testing.assert_allclose(new["bn"]["var"], X.var(0), atol=1e-6)
    _, same = jaxd2l.apply(net, params, new, X)
    assert same is new


def test_statistics_of_every_branch_are_updated():
    def norm(name):
        return layers.BatchNorm(name, decay=0.0)

    net = layers.Parallel(
        [layers.Serial([norm("a"), layers.Identity()]), norm("b"), layers.Identity()], "add", "top"
    )
    params, state = started(net, (6,))
    _, new = jaxd2l.apply(net, params, state, X, train=True)
    assert set(new["top"]) == {"a", "b"}
    for name in "ab":
        np.testing.assert_allclose(new["top"][name]["mean"], X.mean(0), atol=1e-6)


def test_dense_over_the_last_axis():
    net = layers.Dense("d", 3)
    params, _ = started(net, (2, 6))
    x = jnp.stack([X, -X], 1)  # (4, 2, 6)
    want = np.einsum("npi,io->npo", x, params["d"]["kernel"])
    np.testing.assert_allclose(run(net, params, x), want, atol=1e-6)


def test_gate_add_and_concat_against_the_formula():
    a, b = layers.Dense("a", 6), layers.Dense("b", 6)
    gate = layers.Serial([b, layers.Activation("sigmoid")])
    params, _ = started(layers.Serial([a, b]), (6,))
    ya, yb = (np.asarray(X @ params[n]["kernel"]) for n in "ab")
    sigmoid = 1 / (1 + np.exp(-yb))
    for branches, combine, want in [
        ([a, gate], "multiply", ya * sigmoid),
        ([a, gate, layers.Identity()], "add", ya + sigmoid + np.asarray(X)),
        ([a, gate], "concat", np.concatenate([ya, sigmoid], -1)),
    ]:
        net = layers.Parallel(branches, combine)
        np.testing.assert_allclose(run(net, params, X), want, atol=1e-5)


def test_split_gives_each_branch_its_own_features():
    net = layers.Split([layers.Identity(), layers.Powers(2)], "concat")
    y = run(net, {}, jnp.asarray([[3.0, 4.0]]))
    np.testing.assert_allclose(y, [[3.0, 4.0, 8.0]])


def test_prelu_maxout_rbf_powers_against_the_formula():
    x = np.asarray(X)
    prelu = layers.PReLU("p", slope_init=initializers.Normal(1.0))
    params, _ = started(prelu, (6,))
    want = np.maximum(x, 0) + np.asarray(params["p"]["slope"]) * np.minimum(x, 0)
    np.testing.assert_allclose(run(prelu, params, X), want, atol=1e-6)

    maxout = layers.Maxout("m", 3, pieces=2, bias_init=initializers.Normal(1.0))
    params, _ = started(maxout, (6,))
    pieces = x @ np.asarray(params["m"]["kernel"]) + np.asarray(params["m"]["bias"])
    np.testing.assert_allclose(run(maxout, params, X), pieces.reshape(4, 3, 2).max(-1), atol=1e-5)

    rbf = layers.RBF("r", 2, sigma=2.0)
    params, _ = started(rbf, (6,))
    square = ((x[:, None] - np.asarray(params["r"]["centres"])) ** 2).sum(-1)
    np.testing.assert_allclose(run(rbf, params, X), np.exp(-square / 8), atol=1e-6)

    np.testing.assert_allclose(
        run(layers.Powers(4), {}, jnp.asarray([[2.0]])), [[2, 2, 8 / 6, 16 / 24]], rtol=1e-6
    )


def test_locally_connected_and_tiled_with_shared_values_are_a_convolution():
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 2))
    conv = layers.Conv("c", 3, (2, 3), stride=(2, 1), padding=1)
    params, _ = started(conv, (5, 4, 2))
    kernel = params["c"]["kernel"]
    out = jaxd2l.output_shape(conv, (5, 4, 2))
    want = run(conv, params, x)

    local = layers.LocallyConnected("c", 3, (2, 3), stride=(2, 1), padding=1)
    assert jaxd2l.output_shape(local, (5, 4, 2)) == out
    shared = {
        "kernel": jnp.broadcast_to(kernel.reshape(1, 1, -1, 3), (*out[:2], 12, 3)),
        "bias": jnp.zeros(out),
    }
    np.testing.assert_allclose(run(local, {"c": shared}, x), want, atol=1e-5)
    declared = jax.tree.map(jnp.shape, started(local, (5, 4, 2))[0])
    assert declared == {"c": jax.tree.map(jnp.shape, shared)}

    tiled = layers.TiledConv("c", 3, (2, 3), tiles=(2, 1), stride=(2, 1), padding=1)
    shared = {
        "kernel": jnp.broadcast_to(kernel.reshape(1, 1, 2, 3, 2, 3), (2, 1, 2, 3, 2, 3)),
        "bias": jnp.zeros((2, 1, 3)),
    }
    np.testing.assert_allclose(run(tiled, {"c": shared}, x), want, atol=1e-5)
    assert jax.tree.map(jnp.shape, started(tiled, (5, 4, 2))[0]) == {
        "c": jax.tree.map(jnp.shape, shared)
    }


def test_weight_norm_equals_the_plain_layer_at_first_and_splits_length_from_direction():
    for plain, shape in [(layers.Dense("l", 3), (6,)), (layers.Conv("l", 3, 2), (4, 4, 2))]:
        net = layers.WeightNorm(plain)
        params, _ = started(plain, shape)
        normed, _ = started(net, shape)
        x = jax.random.normal(jax.random.key(1), (2, *shape))
        np.testing.assert_allclose(run(net, normed, x), run(plain, params, x), atol=1e-5)
        np.testing.assert_allclose(normed["l"]["direction"], params["l"]["kernel"], atol=2e-7)
        longer = {"l": {**normed["l"], "direction": 7 * normed["l"]["direction"]}}
        np.testing.assert_allclose(run(net, longer, x), run(net, normed, x), atol=1e-5)


def test_layers_without_parameters_and_constant_weights_have_none():
    net = layers.Serial([layers.Identity(), layers.ConstantDense(3, seed=4), layers.Flatten()])
    assert started(net, (6,)) == ({}, {})
    kernel = jax.random.uniform(jax.random.key(4), (6, 3))
    np.testing.assert_allclose(run(net, {}, X), X @ kernel, rtol=1e-5)
    other = layers.ConstantDense(3, seed=5)
    assert not np.allclose(run(other, {}, X), run(net, {}, X))
    assert np.isfinite(jax.grad(lambda x: run(net, {}, x).sum())(X)).all()


def test_fancy_mlp_with_constant_weights_a_shared_layer_and_control_flow():
    # D2L 6.1 (BL3): constant weights, one dense layer used twice, while |x| > 1 halve,
    # if |x| < 0.8 times 10, sum.
    def control(x):
        x = lax.while_loop(lambda x: jnp.abs(x).sum() > 1, lambda x: x / 2, x)
        return lax.cond(jnp.abs(x).sum() < 0.8, lambda x: x * 10, lambda x: x, x)

    dense = layers.Dense("dense", 20)
    net = layers.Serial(
        [
            dense,
            layers.ConstantDense(20, seed=1),
            layers.Activation("relu"),
            layers.Tied("again", dense, to="dense"),
            layers.Function(control),
            layers.Function(lambda x: x.sum(axis=1)),
        ]
    )
    params, state = started(net, (20,))
    assert jax.tree.map(jnp.shape, params) == {"dense": {"kernel": (20, 20), "bias": (20,)}}
    for scale in (1.0, 1e-3):  # both branches of the condition are met
        x = scale * jax.random.normal(jax.random.key(1), (2, 20))
        kernel = np.asarray(params["dense"]["kernel"], np.float64)
        constant = np.asarray(jax.random.uniform(jax.random.key(1), (20, 20)), np.float64)
        y = np.maximum(np.asarray(x, np.float64) @ kernel @ constant, 0) @ kernel
        while np.abs(y).sum() > 1:
            y = y / 2
        y = y * 10 if np.abs(y).sum() < 0.8 else y
        got = jax.jit(lambda x: jaxd2l.apply(net, params, state, x)[0])(x)
        np.testing.assert_allclose(got, y.sum(1), rtol=1e-4)


# --- composites ---------------------------------------------------------------------------------


def test_gradients_of_a_tied_layer_are_the_sum_over_both_uses():
    # C90: the notes' claim that the later gradient overwrites the earlier is false.
    hidden = layers.Dense("hidden", 6)
    tied = layers.Serial([hidden, layers.Activation("tanh"), layers.Tied("b", hidden, "hidden")])
    free = layers.Serial([hidden, layers.Activation("tanh"), layers.Dense("b", 6)])
    params, _ = started(tied, (6,))
    own = {"hidden": params["hidden"], "b": params["hidden"]}

    def loss(net, params):
        return (run(net, params, X) ** 2).sum()

    np.testing.assert_allclose(loss(tied, params), loss(free, own), rtol=1e-6)
    got = jax.grad(functools.partial(loss, tied))(params)["hidden"]
    both = jax.grad(functools.partial(loss, free))(own)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(got[name], both["hidden"][name] + both["b"][name], rtol=1e-4)
        assert not np.allclose(got[name], both["b"][name], rtol=1e-2)


def test_a_whole_block_can_be_tied_and_lie_deep():
    block = layers.Serial([layers.Dense("a", 6), layers.Dropout("drop", 0.5)], name="block")
    net = layers.Serial(
        [layers.Serial([block], name="stage"), layers.Tied("again", block, to="stage/block")]
    )
    params, _ = started(net, (6,))
    assert set(params) == {"stage"}
    kernel = params["stage"]["block"]["a"]["kernel"]
    np.testing.assert_allclose(run(net, params, X), X @ kernel @ kernel, atol=1e-5)


def test_both_uses_of_a_tied_dropout_draw_different_masks():
    block = layers.Serial([layers.Dense("a", 16), layers.Dropout("drop", 0.5)], name="block")
    net = layers.Parallel([block, layers.Tied("again", block, to="block")], "concat")
    params = {"block": {"a": {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}}}
    y = run(net, params, jnp.ones((8, 16)), key=jax.random.key(1), train=True)
    first, second = np.split(np.asarray(y), 2, axis=1)
    assert set(np.unique(first)) == set(np.unique(second)) == {0.0, 2.0}
    assert 0.3 < (first == second).mean() < 0.7  # independent, not equal


def unrolled(params, times):
    return {f"{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(times)}


def test_repeat_equals_the_unrolled_network_in_values_gradients_and_statistics():
    block = layers.Serial(
        [layers.Dense("dense", 6), layers.BatchNorm("bn", decay=0.5), layers.Activation("tanh")]
    )
    repeated = layers.Repeat(block, 3, name="blocks")
    serial = layers.Serial([layers.Serial(block.layers, name=f"{i}") for i in range(3)])
    params, state = started(repeated, (6,))
    kernels = params["blocks"]["dense"]["kernel"]
    assert kernels.shape == (3, 6, 6)
    assert not np.allclose(kernels[0], kernels[1])

    def scanned(params):
        y, new = jaxd2l.apply(repeated, params, state, X, train=True)
        return y, unrolled(new["blocks"], 3)

    def written_out(params):
        stages = unrolled(params["blocks"], 3), unrolled(state["blocks"], 3)
        return jaxd2l.apply(serial, *stages, X, train=True)

    assert_gradients_match(scanned, written_out, params, rtol=1e-4)
    _, new = jaxd2l.apply(repeated, params, state, X, train=True)
    assert new["blocks"]["bn"]["mean"].shape == (3, 6)
    assert not np.allclose(new["blocks"]["bn"]["mean"][0], new["blocks"]["bn"]["mean"][1])


def test_dropout_masks_differ_between_repetitions():
    net = layers.Repeat(layers.Dropout("drop", 0.5), 2)
    kept_2 = np.asarray(run(net, {}, jnp.ones((64, 64)), key=jax.random.key(0), train=True))
    assert set(np.unique(kept_2)) == {0.0, 4.0}
    assert abs((kept_2 == 4.0).mean() - 0.25) < 0.03  # 0.5 were both masks the same


def test_repeat_of_composites_that_have_names_or_none():
    named = layers.Repeat(layers.Serial([layers.Dense("d", 6)], name="in"), 2, name="out")
    params, _ = started(named, (6,))
    assert jax.tree.map(jnp.shape, params) == {
        "out": {"in": {"d": {"kernel": (2, 6, 6), "bias": (2, 6)}}}
    }
    nested = layers.Repeat(layers.Repeat(layers.Dense("d", 6), 2), 3)
    params, _ = started(nested, (6,))
    assert params["d"]["kernel"].shape == (3, 2, 6, 6)
    want = X
    for kernel in params["d"]["kernel"].reshape(6, 6, 6):
        want = want @ kernel
    np.testing.assert_allclose(run(nested, params, X), want, rtol=1e-4, atol=1e-5)


# --- init ---------------------------------------------------------------------------------------

NET = layers.Serial(
    [
        layers.Dense("first", 6),
        layers.Repeat(layers.Serial([layers.Dense("dense", 6)]), 2, name="blocks"),
        layers.Serial([layers.Dense("last", 3)], name="head"),
    ]
)


def test_initializers_by_pattern_the_first_match_wins():
    overrides = {
        "blocks/*/kernel": initializers.Constant(1.0),
        "*/kernel": initializers.Constant(2.0),
        "head/last/bias": initializers.Constant(3.0),
    }
    params, _ = started(NET, (6,), initializers=overrides)
    plain, _ = started(NET, (6,))
    values = {
        "first/kernel": params["first"]["kernel"],
        "head/last/kernel": params["head"]["last"]["kernel"],
    }
    assert all((v == 2).all() for v in values.values())
    assert params["blocks"]["dense"]["kernel"].shape == (2, 6, 6)
    assert (params["blocks"]["dense"]["kernel"] == 1).all()
    assert (params["head"]["last"]["bias"] == 3).all()
    assert (params["first"]["bias"] == plain["first"]["bias"]).all()


def test_a_random_override_draws_what_the_layer_itself_would_with_it():
    he = initializers.HeNormal()
    params, _ = started(NET, (6,), initializers={"*/kernel": he})
    own, _ = started(layers.Serial([layers.Dense("first", 6, kernel_init=he)]), (6,))
    np.testing.assert_array_equal(params["first"]["kernel"], own["first"]["kernel"])
    kernels = params["blocks"]["dense"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


def test_a_pattern_that_matches_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"'frist/\*' matches no parameter.*'first/kernel'"):
        started(NET, (6,), initializers={"*": initializers.Normal(), "frist/*": abs})
    with pytest.raises(ValueError, match=r"'\*/kernel' matches no"):  # covered by an earlier one
        started(NET, (6,), initializers={"*": initializers.Normal(), "*/kernel": abs})
    with pytest.raises(TypeError, match="maps path patterns to initialisers, got '\\*': 3"):
        started(NET, (6,), initializers={"*": 3})


def test_adding_a_layer_changes_no_other_layers_values():
    more = layers.Serial([NET.layers[0], layers.Dense("new", 6), *NET.layers[1:]])
    params, _ = started(NET, (6,))
    bigger, _ = started(more, (6,))
    del bigger["new"]
    jax.tree.map(np.testing.assert_array_equal, params, bigger)


def test_init_is_the_same_under_jit_and_vmap_and_keeps_the_dtype():
    keys = jax.random.split(jax.random.key(1), 2)
    many = jax.vmap(lambda k: jaxd2l.init(NET, k, (6,))[0])(keys)
    for i, key in enumerate(keys):
        alone = jaxd2l.init(NET, key, (6,))[0]
        jitted = jax.jit(lambda k: jaxd2l.init(NET, k, (6,))[0])(key)
        jax.tree.map(np.testing.assert_array_equal, alone, jitted)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6),
            alone,
            jax.tree.map(lambda leaf, i=i: leaf[i], many),
        )
    half, _ = started(NET, (6,), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("layer", "shape", "fan"),
    [
        (layers.Conv("l", 128, 3, groups=4), (8, 8, 64), (9 * 16, 9 * 32)),
        (layers.ConvTranspose("l", 128, 3, groups=4), (8, 8, 64), (9 * 16, 9 * 32)),
        (layers.Maxout("l", 64, pieces=4), (128,), (128, 64)),
        (layers.LocallyConnected("l", 16, 3), (8, 8, 8), (9 * 8, 9 * 16)),
        (layers.TiledConv("l", 32, 3, tiles=2), (8, 8, 32), (9 * 32, 9 * 32)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_fan_of_each_kernel_gives_the_right_deviation(layer, shape, fan):
    for initializer, want in [
        (initializers.LecunNormal(), 1 / fan[0]),
        (initializers.XavierNormal(), 2 / sum(fan)),
    ]:
        params, _ = started(layer, shape, initializers={"l/kernel": initializer})
        std = float(params["l"]["kernel"].std())
        assert abs(std / np.sqrt(want) - 1) < 0.03


# --- walk and output_shape ----------------------------------------------------------------------


def test_walk_visits_every_leaf_in_order():
    net = layers.Serial(
        [
            layers.Repeat(layers.Dense("d", 4), 2, name="blocks"),
            layers.Parallel([layers.Identity(), layers.Dense("e", 4)], "add", name="res"),
            layers.Tied("again", layers.Serial([layers.Dense("e", 4)]), to="res"),
        ]
    )
    assert [(s.path, s.output_shape) for s in jaxd2l.layers.walk(net, (4,))] == [
        ("blocks[0]/d", (4,)),
        ("blocks[1]/d", (4,)),
        ("res/identity", (4,)),
        ("res/e", (4,)),
        ("again/e", (4,)),
    ]


def test_a_function_of_tokens_and_an_embedding():
    net = layers.Serial(
        [layers.Function(lambda t: jnp.arange(5, 0, -1)[t]), layers.Embedding("words", 7, 3)]
    )
    assert jaxd2l.output_shape(net, (4,)) == (4, 3)
    params, state = started(net, (4,))
    tokens = jnp.asarray([[0, 1, 2, 3]])
    y, _ = jaxd2l.apply(net, params, state, tokens)
    np.testing.assert_array_equal(y[0], params["words"]["embedding"][jnp.asarray([5, 4, 3, 2])])


# --- errors of construction ---------------------------------------------------------------------

A, B = layers.Dense("a", 4), layers.Dense("b", 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.Dense("a/b", 3), ValueError, "'a/b' must be letters"),
        (lambda: layers.Dense("", 3), ValueError, "Dense: the name '' must be"),
        (lambda: layers.Dense("a b", 3), ValueError, "the name 'a b'"),
        (lambda: layers.Dense(None, 3), TypeError, "the name must be a string, got None"),
        (lambda: layers.Dense(3, "a"), TypeError, "the name must be a string, got 3"),
        (lambda: layers.Conv("../c", 3, 3), ValueError, "Conv: the name"),
        (lambda: layers.Function(abs, name="x/y"), ValueError, "Function: the name"),
        (lambda: layers.Serial([A], name="x/y"), ValueError, "Serial 'x/y': the name"),
        (lambda: layers.Repeat(A, 2, name=""), ValueError, "Repeat: the name"),
        (lambda: layers.Tied("", A, "a"), ValueError, "Tied: the name"),
        (lambda: layers.Dense("a", 0), ValueError, "Dense: features must be at least 1, got 0"),
        (lambda: layers.Dense("a", -4), ValueError, "features must be at least 1, got -4"),
        (lambda: layers.Dense("a", 2.0), TypeError, "features must be an integer, got 2.0"),
        (lambda: layers.Dense("a", 4, "relu"), TypeError, "bias must be True or False, got 'relu'"),
        (lambda: layers.Dense("a", 4, kernel_init="he"), TypeError, "kernel_init must be an init"),
        (lambda: layers.Conv("c", 4, 3, bias=0), TypeError, "Conv: bias must be True or False"),
        (lambda: layers.Conv("c", 4, 0), ValueError, "Conv 'c': kernel must be at least 1, got 0"),
        (lambda: layers.Conv("c", 4, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: layers.Conv("c", 4, 3, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: layers.Conv("c", 4, 3, padding="SAME"), ValueError, "'same', 'valid' or 'full'"),
        (lambda: layers.Conv("c", 4, (3, 3), stride=(1,)), ValueError, "one per axis .2 axes."),
        (lambda: layers.Conv("c", 4, (1, 1, 1, 1)), ValueError, "1, 2 or 3 axes, got .1, 1, 1, 1"),
        (lambda: layers.Conv("c", 4, 3, groups=0), ValueError, "groups must be at least 1"),
        (
            lambda: layers.ConvTranspose("c", 4, 3, output_padding=1),
            ValueError,
            "output_padding",
        ),
        (lambda: layers.TiledConv("t", 4, 3, tiles=0), ValueError, "tiles must be at least 1"),
        (lambda: layers.TiledConv("t", 4, 3, tiles=(1,)), ValueError, "tiles must be one int"),
        (lambda: layers.LocallyConnected("", 4, 3), ValueError, "LocallyConnected: the name"),
        (lambda: layers.MaxPool(0), ValueError, "MaxPool: kernel must be at least 1"),
        (lambda: layers.MaxPool(2, ceil_mode=1), TypeError, "ceil_mode must be True or False"),
        (lambda: layers.KMaxPool(0), ValueError, "KMaxPool: k must be at least 1"),
        (lambda: layers.RBF("r", 3, sigma=0), ValueError, "RBF 'r': sigma must be above 0"),
        (lambda: layers.RBF("r", 3, sigma=-1), ValueError, "RBF: sigma must be >= 0, got -1"),
        (lambda: layers.Maxout("m", 3, pieces=0), ValueError, "pieces must be at least 1"),
        (lambda: layers.ConstantDense(3, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: layers.Embedding("e", 0, 3), ValueError, "Embedding: size must be at least 1"),
        (lambda: layers.Dropout("d", 1.5), ValueError, "Dropout 'd': rate .* <= 1, got 1.5"),
        (lambda: layers.Dropout("d", "x"), TypeError, "rate .* must be a number, got 'x'"),
        (lambda: layers.Dropout("d", True), TypeError, "rate .* must be a number, got True"),
        (lambda: layers.BatchNorm("n", decay=1.1), ValueError, "decay must be >= 0 and <= 1"),
        (lambda: layers.BatchNorm("n", eps=-1), ValueError, "BatchNorm: eps must be >= 0"),
        (lambda: layers.GroupNorm("n", 0), ValueError, "groups must be at least 1"),
        (lambda: layers.LayerNorm("n", axes=0), ValueError, "axes must be at least 1"),
        (lambda: layers.LocalResponseNorm(size=0), ValueError, "size must be at least 1"),
        (lambda: layers.LocalResponseNorm(alpha="x"), TypeError, "alpha must be a number"),
        (lambda: layers.Activation("rleu"), ValueError, "unknown kind 'rleu'; known are .*'relu'"),
        (lambda: layers.Function(3), TypeError, "expected a function, got 3"),
        (lambda: layers.Reshape(6), TypeError, "shape must be a tuple of integers, got 6"),
        (lambda: layers.Reshape((2, -1)), ValueError, "each size must be at least 1, got -1"),
        (lambda: layers.Powers(0), ValueError, "degree must be at least 1"),
        (lambda: layers.WeightNorm(layers.Flatten()), TypeError, "WeightNorm: expected a named"),
        (lambda: layers.WeightNorm(3), TypeError, "WeightNorm: expected a named layer, got 3"),
        (lambda: layers.Serial([]), ValueError, "Serial: layers is empty"),
        (lambda: layers.Serial([], name="top"), ValueError, "Serial 'top': layers is empty"),
        (lambda: layers.Serial(A), TypeError, "layers must be a list of layers, got Dense"),
        (lambda: layers.Serial(A, B), TypeError, "layers must be a list of layers"),
        (lambda: layers.Serial([A, jnp.tanh]), TypeError, r"wrap a function as layers.Function"),
        (lambda: layers.Serial([A, 3]), TypeError, "Serial: 3 is not a layer$"),
        (lambda: layers.Serial([layers.Dense]), TypeError, "is not a layer"),
        (lambda: layers.Serial([A, A]), ValueError, "two layers are named 'a'; siblings need"),
        (
            lambda: layers.Serial([A, layers.Serial([layers.Serial([A])])]),
            ValueError,
            "two layers are named 'a'",
        ),
        (lambda: layers.Serial([A, layers.Repeat(A, 2)]), ValueError, "are named 'a'"),
        (lambda: layers.Serial([A, layers.WeightNorm(A)]), ValueError, "are named 'a'"),
        (lambda: layers.Serial([A, layers.Tied("a", A, "a")]), ValueError, "are named 'a'"),
        (lambda: layers.Parallel([A, A], "add"), ValueError, "Parallel: two layers are named 'a'"),
        (lambda: layers.Parallel([A, B], "sum"), ValueError, "combine must be one of .*'sum'"),
        (lambda: layers.Split([A, B], "stack"), ValueError, "Split: combine must be one of"),
        (lambda: layers.Parallel([], "add"), ValueError, "Parallel: branches is empty"),
        (lambda: layers.Repeat([A], 2), TypeError, "Repeat: .* is not a layer"),
        (lambda: layers.Repeat(A, 0), ValueError, "Repeat: times must be at least 1"),
        (lambda: layers.Tied("t", "a", "a"), TypeError, "Tied: 'a' is not a layer"),
        (lambda: layers.Tied("t", A, ""), ValueError, "Tied 't': to must be a path"),
        (lambda: layers.FlaxModule("f", A), TypeError, "expected a flax.linen module, got Dense"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_when_it_is_built(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_same_name_is_fine_on_different_levels():
    layers.Serial([A, layers.Serial([A], name="block"), layers.Repeat(A, 2, name="blocks")])


# --- errors of shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "shape", "error", "message", "note"),
    [
        (A, 6, TypeError, "input_shape must be a tuple such as", ""),
        (A, (0,), ValueError, "input_shape: each size must be at least 1, got 0", ""),
        (A, (-3,), ValueError, "at least 1, got -3", ""),
        (A, (2.0,), TypeError, "each size must be an integer, got 2.0", ""),
        (A, (None, 3), TypeError, "each size must be an integer, got None", ""),
        (A, (), ValueError, "needs a feature axis", "in layer 'a'"),
        (layers.BatchNorm("n"), (), ValueError, "BatchNorm: the input needs a feature axis", "'n'"),
        (layers.GroupNorm("n", 2), (), ValueError, "needs a feature axis", "'n'"),
        (layers.GroupNorm("n", 2), (3,), ValueError, "groups=2 must divide the 3 channels", "'n'"),
        (layers.LayerNorm("n", axes=3), (4, 4), ValueError, "axes=3, but the input shape", "'n'"),
        (layers.Conv("c", 3, 3), (8, 8), ValueError, "needs an input of shape .h, w, c.", "'c'"),
        (layers.Conv("c", 3, 3), (2, 28, 28, 1), ValueError, "needs an input of shape", "'c'"),
        (layers.Conv("c", 3, (3,)), (8, 8, 1), ValueError, "of shape .t, c.", "'c'"),
        (layers.Conv("c", 3, 9), (8, 8, 1), ValueError, "9", "in layer 'c': Conv"),
        (layers.Conv("c", 3, 1, groups=2), (8, 8, 4), ValueError, "groups=2 must divide", "'c'"),
        (layers.MaxPool(9), (8, 8, 1), ValueError, "9", "'MaxPool'"),
        (layers.TiledConv("t", 1, 3, tiles=4), (5, 5, 1), ValueError, "more tiles .4, 4.", "'t'"),
        (layers.GlobalAvgPool(), (8,), ValueError, "GlobalAvgPool needs an input", "GlobalAvgPool"),
        (layers.KMaxPool(3), (2, 4), ValueError, "t >= k=3, got .2, 4.", "KMaxPool"),
        (layers.Reshape((2, 3)), (5,), ValueError, r"cannot reshape \(5,\) to \(2, 3\)", "Reshape"),
        (layers.Powers(3), (2,), ValueError, "Powers needs one input feature", "Powers"),
        (layers.Function(jnp.sum), (3,), ValueError, "keep the batch axis first", "Function"),
        (layers.Function(lambda x: (x, x)), (3,), ValueError, "must return one array", "Function"),
        (layers.Function(lambda x: x[:2]), (3,), ValueError, "keep the batch axis", "Function"),
        (layers.Parallel([A, B], "add", "p"), (), ValueError, "needs a feature axis", "'p/a'"),
        (
            layers.Parallel([A, layers.Identity()], "add", "p"),
            (3,),
            ValueError,
            r"branches at 'p' cannot be combined by 'add'.*\(4,\), \(3,\)",
            "",
        ),
        (
            layers.Parallel([layers.Flatten(), layers.Identity()], "concat"),
            (2, 3),
            ValueError,
            "branches at 'the top level' cannot be concatenated",
            "",
        ),
        (layers.Split([A, B], name="s"), (5,), ValueError, "Split at 's': 5 features", ""),
        (layers.Split([A, B]), (), ValueError, "no features cannot be divided", ""),
        (
            layers.Repeat(layers.Dense("d", 3), 2, name="r"),
            (4,),
            ValueError,
            r"Repeat at 'r': the block turns \(4,\) into \(3,\); a repeated block must keep",
            "",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_everywhere_and_the_layer_named(
    net, shape, error, message, note
):
    for ask in (
        lambda: jaxd2l.output_shape(net, shape),
        lambda: started(net, shape),
        lambda: jaxd2l.summarize(net, shape),
    ):
        with pytest.raises(error, match=message) as excinfo:
            ask()
        assert note in notes(excinfo)


def test_the_note_of_an_error_names_the_path_in_a_deep_network():
    deep = layers.Serial(
        [layers.Serial([layers.Dense("x", 3), layers.Conv("conv", 3, 3)], name="in")], name="out"
    )
    with pytest.raises(ValueError, match="needs an input of shape") as excinfo:
        started(deep, (4,))
    assert "in layer 'out/in/conv': Conv(name='conv', features=3" in notes(excinfo)
    assert "with input shape (3,)" in notes(excinfo)
    assert sum(note.startswith("in layer") for note in excinfo.value.__notes__) == 1


def test_things_that_are_not_networks_or_keys_are_refused():
    for net in (3, [A], layers.Dense, jnp.tanh):
        with pytest.raises(TypeError, match="expected a network"):
            started(net, (3,))
        with pytest.raises(TypeError, match="expected a network"):
            jaxd2l.apply(net, {}, {}, X)
        with pytest.raises(TypeError, match="expected a network"):
            jaxd2l.summarize(net, (3,))
    for key in (0, None):
        with pytest.raises(TypeError, match=r"key must be a random key, jax.random.key\(seed\)"):
            jaxd2l.init(A, key, (3,))


def test_a_layer_with_arrays_but_no_name_is_refused():
    from jaxd2l import records

    @records.record
    class Nameless(layers.Layer):
        def parameters(self, input_shape):
            return {"bias": layers.Parameter(input_shape, initializers.Constant(0.0))}

        def apply(self, params, state, x, context):
            return x + params["bias"], state

    with pytest.raises(ValueError, match="has parameters or statistics, so it needs a name"):
        started(layers.Serial([Nameless()]), (3,))


def test_ties_that_do_not_fit():
    def net(layer, to):
        return layers.Serial([A, layers.BatchNorm("bn"), layers.Tied("again", layer, to=to)])

    with pytest.raises(ValueError, match=r"Tied 'again': there are no parameters at 'b/c'.*'a/k"):
        started(net(A, "b/c"), (4,))
    with pytest.raises(ValueError, match=r"Tied 'again': Dense.*kernel.*but 'bn' has .*'scale'"):
        started(net(A, "bn"), (4,))
    with pytest.raises(ValueError, match=r"needs .*\(4, 4\).*but 'a' has .*\(3, 4\)"):
        started(net(A, "a"), (3,))
    with pytest.raises(ValueError, match="a layer with running statistics cannot be tied"):
        started(net(layers.BatchNorm("bn"), "bn"), (4,))


# --- errors of apply ----------------------------------------------------------------------------

SMALL = layers.Serial([A, layers.Serial([B, layers.BatchNorm("bn")], name="block")])


@pytest.fixture(scope="module")
def small():
    return started(SMALL, (6,))


def test_params_that_do_not_fit_are_refused_and_the_layer_named(small):
    params, state = small
    kernel = params["a"]["kernel"]

    def fails(new, message, state=state):
        with pytest.raises(ValueError, match=message) as excinfo:
            jaxd2l.apply(SMALL, new, state, X)
        return notes(excinfo)

    assert "in layer 'a'" in fails({**params, "a": {"kernel": kernel}}, r"got \['kernel'\]")
    assert "in layer 'a'" in fails(
        {k: v for k, v in params.items() if k != "a"}, r"must be \['bias', 'kernel'\], got \[\]"
    )
    assert "in layer 'a'" in fails(
        {**params, "a": {**params["a"], "scale": 1.0}}, r"got \['bias', 'kernel', 'scale'\]"
    )
    assert "in layer 'a'" in fails(
        {**params, "a": {**params["a"], "kernel": kernel.T}},
        r"kernel must have shape \(6, 4\) for input shape \(6,\), got \(4, 6\)",
    )
    assert "in layer 'block/b'" in fails({**params, "block": {}}, r"must be .* got \[\]")
    fails({**params, "c": {}}, r"params has 'c' at 'the top level', where .* \['a', 'block'\]")
    wide = {**params["block"], "b2": params["block"]["b"]}
    fails({**params, "block": wide}, r"params has 'b2' at 'block', where the network has \['b', 'b")
    assert "in layer 'block/bn'" in fails(params, r"statistics must be \['mean', 'var'\]", {})
    fails(params, "state has 'x' at 'the top level'", {**state, "x": 1})


def test_apply_refuses_arguments_of_the_wrong_kind(small):
    params, state = small
    apply = functools.partial(jaxd2l.apply, SMALL)
    for train in (1, None, "yes", jnp.asarray(True)):
        with pytest.raises(TypeError, match="train must be True or False"):
            apply(params, state, X, train=train)
    with pytest.raises(TypeError, match="train must be True or False"):
        jax.jit(lambda t: apply(params, state, X, train=t))(True)
    with pytest.raises(ValueError, match="x needs a batch axis"):
        apply(params, state, jnp.asarray(1.0))
    with pytest.raises(TypeError, match="state must be a dict, as init returned it, got None"):
        apply(params, None, X)
    with pytest.raises(TypeError, match="params must be a dict"):
        apply(X, state, params)
    for name in ("examples", "mask"):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(4,\), one per example"):
            apply(params, state, X, **{name: jnp.ones(3, int)})
    with pytest.raises(ValueError, match=r"kernel must have shape \(5, 4\)") as excinfo:
        apply(params, state, X[:, :5])
    assert "in layer 'a': Dense(name='a', features=4) with input shape (5,)" in notes(excinfo)
    with pytest.raises(TypeError, match="mask"):
        apply(params, state, X, mask=jnp.ones(4), train=True)


@pytest.mark.parametrize("classic", [False, True])
def test_a_missing_key_names_the_layer(classic):
    drop = layers.Dropout("drop", 0.5, classic=classic)
    net = layers.Serial([layers.Serial([drop], name="block")])
    with pytest.raises(ValueError, match="layer 'block/drop' is random when train=True: pass key"):
        run(net, {}, X, train=True)
    with pytest.raises(ValueError, match="layer 'blocks/drop' is random"):
        run(layers.Repeat(drop, 2, name="blocks"), {}, X, train=True)
    run(net, {}, X)  # nothing random runs
    run(layers.Dropout("drop", 0), {}, X, train=True)


def test_repeat_in_apply():
    net = layers.Repeat(A, 2, name="blocks")
    params, _ = started(net, (4,))
    one = jax.tree.map(lambda leaf: leaf[:1], params)
    with pytest.raises(
        ValueError, match=r"Repeat at 'blocks': .*kernel must be stacked over 2|bias"
    ):
        run(net, one, X[:, :4])
    with pytest.raises(ValueError, match=r"Repeat at 'blocks': the block turns \(6,\) into \(4,\)"):
        run(net, params, X)


def test_a_tie_that_lost_its_target_in_apply():
    net = layers.Serial([layers.Tied("again", A, to="elsewhere/a")])
    with pytest.raises(ValueError, match="Tied 'again': there are no parameters at 'elsewhere/a'"):
        run(net, {}, X)


def test_a_layer_must_define_apply():
    from jaxd2l import records

    @records.record
    class Empty(layers.Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define apply"):
        run(Empty(), {}, X)
    assert Empty().name is None
    with pytest.raises(AttributeError, match="'Empty' object has no attribute 'size'"):
        Empty().size  # noqa: B018


def test_flatten_of_no_examples():
    y = run(layers.Flatten(), {}, jnp.ones((0, 2, 3)))
    assert y.shape == (0, 6)


def test_declared_arrays_are_those_that_init_makes(key):
    block = layers.Serial([layers.WeightNorm(layers.Dense("wn", 4)), layers.BatchNorm("bn")])
    net = layers.Serial(
        [layers.Repeat(layers.Repeat(block, 2, name="inner"), 3), layers.PReLU("p")]
    )
    for dtype in (jnp.float32, jnp.bfloat16):
        wanted = layers.declared(net, (4,), dtype=dtype)
        made = jaxd2l.init(net, key, (4,), dtype=dtype)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), made) == jax.tree.map(
            lambda a: (a.shape, a.dtype), wanted
        )
    assert made[0]["inner"]["wn"]["direction"].shape == (3, 2, 4, 4)
    endless = layers.declared(layers.Repeat(layers.Dense("dense", 4), 10**12), (4,))
    assert endless[0]["dense"]["kernel"].shape == (10**12, 4, 4)  # only said, not made
