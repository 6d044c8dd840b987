"""Sequences in pieces: `initial_carry` and `extend` against `apply` on the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

import jaxd2l
from jaxd2l import layers, models
from jaxd2l.analysis import count_flops
from jaxd2l.layers import extend, initial_carry

V = 5
N = 3
T = 2
LONG = 3 * T
FAST = {"xla_backend_optimization_level": 0}

# Every layer that remembers or works at each position, in every composite.
ALL = layers.Serial(
    [
        layers.Embedding("embedding", V, 4),
        layers.LearnedPositions("learned", 12),
        layers.SinusoidalPositions("sinusoidal", 12),
        layers.Parallel(
            [
                layers.Identity(),
                layers.Serial(
                    [
                        layers.LSTM("lstm", 6),
                        layers.Serial([layers.RNN("rnn", 4), layers.BatchNorm("bn")]),
                    ],
                    name="outer",
                ),
            ],
            "concat",
        ),
        layers.Repeat(
            layers.Serial(
                [
                    layers.Parallel(
                        [
                            layers.Identity(),
                            layers.SelfAttention("attention", 2, causal=True, rotary=100.0),
                        ],
                        "add",
                    ),
                    layers.LayerNorm("norm"),
                    layers.Parallel(
                        [layers.Identity(), layers.Repeat(layers.GRU("gru", 8), 3)], "add"
                    ),
                ]
            ),
            2,
            name="deep",
        ),
        layers.Parallel(
            [layers.GRU("a", 3, reset_after=True), layers.Identity(), layers.RNN("b", 1)],
            "concat",
            name="wide",
        ),
        layers.Split([layers.LSTM("left", 2), layers.SelfAttention("right", 1, causal=True)]),
        layers.Activation("gelu"),
        layers.Dropout("dropout", 0.5),
        layers.Dense("output", V),
    ]
)


def made(net, shape=(T,), seed=1):
    """Parameters and statistics away from where they start: drawn by NumPy, nothing compiled."""
    random = np.random.RandomState(seed)
    params, state = layers.declared(net, shape)
    draw = lambda a: jnp.asarray(0.9 * random.normal(size=a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, params), jax.tree.map(lambda a: abs(draw(a)) + 0.5, state)


def tokens(n, t, seed=3):
    return jnp.asarray(np.random.RandomState(seed).randint(0, V, (n, t)), jnp.int32)


PARAMS, STATE = made(ALL)
goes_on = jax.jit(
    functools.partial(extend, ALL, PARAMS, STATE), static_argnames="train", compiler_options=FAST
)


at_once = jax.jit(
    functools.partial(jaxd2l.apply, ALL, PARAMS), static_argnames="train", compiler_options=FAST
)


@functools.lru_cache
def whole():
    return at_once(STATE, tokens(N, LONG))[0]


# --- cutting changes nothing ----------------------------------------------------------------------


def test_what_comes_first_matters_to_the_last():
    # Or nothing of the rest would say anything.
    x = tokens(N, LONG)
    for at in (0, 4):
        changed = at_once(STATE, x.at[:, at].set((x[:, at] + 1) % V))[0]
        assert (np.abs(changed - whole())[:, at:].max(axis=2) > 2e-3).all()


@pytest.mark.smoke
@settings(max_examples=15)
@given(st.lists(st.integers(0, T), max_size=3))
def test_any_pieces_give_what_apply_gives_on_the_whole(cuts):
    x = tokens(N, LONG)[:, :T]
    carry, ys, done = initial_carry(ALL, x, length=LONG), [], 0
    for end in [*sorted(cuts), T]:  # pieces of no length as well
        y, carry, state = goes_on(x[:, done:end], carry)
        ys.append(y)
        done = end
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, STATE))
    np.testing.assert_allclose(np.concatenate(ys, axis=1), whole()[:, :T], rtol=2e-5, atol=2e-5)


@settings(max_examples=8)
@given(st.lists(st.tuples(*[st.integers(0, T)] * N), min_size=3, max_size=3))
def test_ragged_pieces_go_on_after_the_last_real_token_of_each_row(lengths):
    x = np.asarray(tokens(N, LONG))
    carry = initial_carry(ALL, x, length=LONG)
    done = np.zeros(N, int)
    ys = [[np.zeros((0, V))] for _ in range(N)]
    for of_piece in lengths:
        piece = np.full((N, T), 1, np.int32)  # what follows the real tokens is a token, too
        for i, length in enumerate(of_piece):
            piece[i, :length] = x[i, done[i] : done[i] + length]
        y, carry, _ = goes_on(jnp.asarray(piece), carry, lengths=jnp.array(of_piece))
        for i, length in enumerate(of_piece):
            ys[i].append(y[i, :length])
        done += of_piece
    for i in range(N):
        got = np.concatenate(ys[i])
        np.testing.assert_allclose(got, whole()[i, : done[i]], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bf16", "f64"])
def test_the_carry_has_the_dtype_of_the_parameters(dtype, strict_promotion):
    with jax.enable_x64(dtype == jnp.float64):
        shapes = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, dtype), layers.declared(ALL, (T,))
        )
        x = jax.ShapeDtypeStruct((N, T), jnp.int32)
        make = functools.partial(initial_carry, ALL, length=T, dtype=dtype)
        carry = jax.eval_shape(make, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(carry)} == {
            jnp.dtype(dtype),
            jnp.dtype("int32"),
        }
        call = functools.partial(extend, ALL, train=True, key=jax.random.key(0))
        y, new, state = jax.eval_shape(call, *shapes, x, carry)
        # The same structure, shapes and dtypes: so pieces can be the steps of a scan.
        assert (y.dtype, new, state) == (dtype, carry, shapes[1])


def test_the_first_carry_is_zeros_stacked_under_a_repeat():
    carry = initial_carry(ALL, np.ones((2, 3), np.int64), length=7)
    shapes = jax.tree.map(jnp.shape, carry)
    assert shapes["outer"] == {
        "lstm": {"hidden": (2, 6), "cell": (2, 6)},
        "rnn": {"hidden": (2, 4)},
    }
    assert shapes["deep"] == {
        "attention": {"key": (2, 2, 7, 2, 4), "value": (2, 2, 7, 2, 4), "position": (2, 2)},
        "gru": {"hidden": (2, 3, 2, 8)},
    }
    assert shapes["left"] == {"hidden": (2, 2), "cell": (2, 2)}
    assert sorted(shapes) == ["deep", "learned", "left", "outer", "right", "sinusoidal", "wide"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(carry))
    other = initial_carry(ALL, [[1, 1, 1]] * 2, length=7)  # lists will do
    assert jax.tree.map(jnp.shape, other) == shapes
    assert initial_carry(layers.Dense("output", 2), jnp.ones((2, 3, 4))) == {}
    empty = initial_carry(layers.RNN("rnn", 4), jnp.ones((2, 0, 3)))
    assert empty["rnn"]["hidden"].shape == (2, 4)


# --- statistics, dropout --------------------------------------------------------------------------


def test_statistics_and_carry_come_apart():
    x, key = tokens(N, T), jax.random.key(4)
    carry = initial_carry(ALL, x, length=LONG)
    y, new_carry, new_state = goes_on(x, carry, key=key, train=True)
    assert jax.tree.structure(new_carry) == jax.tree.structure(carry)
    assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(jnp.shape, STATE)
    y0, state0 = at_once(STATE, x, key=key, train=True)
    np.testing.assert_allclose(y, y0, rtol=2e-5, atol=2e-5)  # the same dropout, too
    for name in ("mean", "var"):
        moved = new_state["outer"]["bn"][name]
        np.testing.assert_allclose(moved, state0["outer"]["bn"][name], rtol=1e-5)
        assert not np.allclose(moved, STATE["outer"]["bn"][name])


def test_dropout_goes_by_the_index_of_the_example_and_padding_rows_by_the_mask():
    net = layers.Serial(
        [layers.RNN("rnn", 3), layers.Dropout("dropout", 0.5), layers.BatchNorm("bn")]
    )
    params, state = made(net, (2, 4))
    x = jnp.asarray(np.random.RandomState(0).normal(size=(4, 2, 4)), jnp.float32)
    call = functools.partial(extend, net, params, train=True, key=jax.random.key(2))
    call = jax.jit(call, compiler_options=FAST)
    carry = initial_carry(net, x)
    real = jnp.array([False, False, True, True])
    y, _, new = call(state, x, carry, mask=real)
    last = jax.tree.map(lambda leaf: leaf[2:], carry)
    y2, _, new2 = call(state, x[2:], last, examples=jnp.array([2, 3]), mask=real[2:])
    np.testing.assert_allclose(y[2:], y2, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new["bn"]["mean"], new2["bn"]["mean"], rtol=1e-5, atol=1e-6)


# --- gradients, and the claims of truncated back-propagation --------------------------------------

LM = models.gru_lm(V, 4)
LM_PARAMS, _ = made(LM)


def two_windows(params, carry, x, detach, earlier=None):
    """The loss on two windows; `earlier` are the parameters that run through the first."""
    y1, carry, _ = extend(LM, params, {}, x[:, :2], carry)
    if earlier is not None:
        carry = extend(LM, earlier, {}, x[:, :2], initial_carry(LM, x))[1]
    if detach:
        carry = jax.lax.stop_gradient(carry)
    y2, _, _ = extend(LM, params, {}, x[:, 2:], carry)
    return (y1**2).sum() + (y2**2).sum(), (y1, y2)


def test_gradients_flow_through_the_carry_and_stop_where_it_is_detached():
    x = tokens(N, 4)
    zeros = initial_carry(LM, x)

    @functools.partial(jax.jit, compiler_options=FAST)
    def gradients(params, carry):
        f = jax.grad(two_windows, argnums=(0, 1), has_aux=True)
        return {
            "through": f(params, carry, x, False)[0],
            "whole": jax.grad(lambda p: (jaxd2l.apply(LM, p, {}, x)[0] ** 2).sum())(params),
            "stopped": f(params, carry, x, True)[0],
            "constant": f(params, carry, x, False, jax.tree.map(jnp.copy, LM_PARAMS))[0],
        }

    found = gradients(LM_PARAMS, zeros)
    through, to_carry = found["through"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), through, found["whole"]
    )
    assert np.abs(to_carry["gru1"]["hidden"]).max() > 1e-3  # the first state has a gradient, too
    # Detached: as if the carry had been made with parameters that are not differentiated.
    stopped, constant = found["stopped"][0], found["constant"][0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), stopped, constant
    )
    difference = stopped["gru1"]["recurrent_kernel"] - through["gru1"]["recurrent_kernel"]
    assert np.abs(difference).max() > 1e-3


def test_c151_detaching_the_carry_leaves_forward_values_unchanged():
    x = tokens(N, 4)
    run = jax.jit(two_windows, static_argnums=3, compiler_options=FAST)
    detached, attached = (run(LM_PARAMS, initial_carry(LM, x), x, stop) for stop in (True, False))
    for a, b in zip(jax.tree.leaves(detached), jax.tree.leaves(attached), strict=True):
        np.testing.assert_array_equal(a, b)


def test_c150_without_detaching_the_cost_of_a_step_grows_with_the_number_of_steps_before():
    # The gradient of the last window's loss, where the carry still depends on the windows before.
    x = tokens(N, 2)

    def cost(windows, detach):
        def loss(params):
            carry = initial_carry(LM, x)
            for _ in range(windows - 1):
                _, carry, _ = extend(LM, params, {}, x, carry)
            if detach:
                carry = jax.lax.stop_gradient(carry)
            return extend(LM, params, {}, x, carry)[0].sum()

        return count_flops(jax.grad(loss), LM_PARAMS).multiply_adds

    attached = [cost(windows, False) for windows in (1, 2, 3, 4)]
    detached = [cost(windows, True) for windows in (1, 2, 3, 4)]
    forward = count_flops(
        lambda params: extend(LM, params, {}, x, initial_carry(LM, x))[1], LM_PARAMS
    ).multiply_adds
    growth = np.diff(attached)
    assert growth[1] == growth[2]  # in proportion to the history
    assert growth[1] >= 2 * forward  # forward and back through every window before
    # Detached, there is only the forward pass, which a training loop has done already: the carry
    # is an argument of its step.
    assert set(np.diff(detached)) == {forward}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        layers.RNN("x", 4, reverse=True),
        layers.Parallel([layers.LSTM("on", 2), layers.LSTM("x", 2, reverse=True)], "concat"),
        layers.Repeat(layers.SelfAttention("x", 2), 2),
        layers.Conv("x", 4, (2,)),
        layers.GlobalMaxPool(),
        layers.KMaxPool(1),
        layers.LastStep(),
        layers.RealSteps(2),
        layers.LayerNorm("x", axes=2),
        layers.GroupNorm("x", 2),
        layers.Function(functools.partial(jnp.cumsum, axis=1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_looks_ahead_is_refused_by_name(layer):
    net = layers.Serial([layers.Embedding("embedding", V, 4), layer], name="net")
    x = tokens(2, 3)
    carry = initial_carry(net, x, length=3)
    with pytest.raises(ValueError, match="mixes positions and has no carry") as raised:
        jax.eval_shape(lambda *a: extend(net, *a, x, carry), *layers.declared(net, (3,)))
    note = " ".join(raised.value.__notes__)
    assert "'net/x'" in note or type(layer).__name__ in note


H = jnp.zeros((2, 3))
WRONG = {
    "empty": ({}, ValueError, "the carry has no 'rnn1/hidden'"),
    "missing": ({"rnn1": {"hidden": H}}, ValueError, "has no 'rnn2/hidden'"),
    "foreign": (
        {"rnn1": {"hidden": H}, "rnn2": {"hidden": H}, "rnn3": {"hidden": H}},
        ValueError,
        "the carry has 'rnn3/hidden', where the network has",
    ),
    "foreign leaf": (
        {"rnn1": {"hidden": H, "cell": H}, "rnn2": {"hidden": H}},
        ValueError,
        "the carry has 'rnn1/cell'",
    ),
    "no dict inside": ({"rnn1": H, "rnn2": H}, ValueError, "has no 'rnn1/hidden'"),
    "batch": (
        {"rnn1": {"hidden": H}, "rnn2": {"hidden": H[:1]}},
        ValueError,
        "hidden must have the batch size 2 on its first axis, got shape \\(1, 3\\)",
    ),
    "features": (
        {"rnn1": {"hidden": H[:, :2]}, "rnn2": {"hidden": H}},
        ValueError,
        "must have shape \\(n, h\\) = \\(2, 3\\), got \\(2, 2\\)",
    ),
    "dtype": (
        {"rnn1": {"hidden": H.astype(jnp.bfloat16)}, "rnn2": {"hidden": H}},
        TypeError,
        "hidden must be float32, got bfloat16; initial_carry takes dtype",
    ),
    "array": (H, TypeError, "carry must be a dict, as initial_carry makes it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_carry_of_another_network_is_refused(name):
    net = models.rnn_lm(V, 3, depth=2)
    carry, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        extend(net, made(net)[0], {}, tokens(2, T), carry)


def test_state_and_carry_cannot_be_mistaken_for_each_other():
    net = layers.Serial([layers.RNN("rnn", 3), layers.BatchNorm("bn")])
    params, state = made(net, (2, 4))
    x = jnp.ones((2, 2, 4))
    carry = initial_carry(net, x)
    with pytest.raises(ValueError, match="the carry has no 'rnn/hidden', it has"):
        extend(net, params, carry, x, state)
    with pytest.raises(ValueError, match="statistics must be \\['mean', 'var'\\], got \\[\\]"):
        extend(net, params, {}, x, carry)
    with pytest.raises(ValueError, match="statistics must be \\[\\], got \\['hidden'\\]"):
        jaxd2l.apply(net, params, {**state, **carry}, x)  # apply takes no carry


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: initial_carry(ALL, tokens(2, 3)), ValueError, "attention needs length="),
        (lambda: initial_carry(LM, jnp.arange(3)), ValueError, r"x must be a batch \(n, t, ...\)"),
        (lambda: initial_carry(LM, tokens(2, 3), length=0), ValueError, "length must be at least"),
        (lambda: initial_carry("rnn_lm", tokens(2, 3)), TypeError, "expected a network"),
        (
            lambda: initial_carry(layers.LearnedPositions("p", 2), jnp.ones((1, 3, 4))),
            ValueError,
            "there are 2 positions, the sequence has 3",
        ),
        (
            lambda: initial_carry(
                layers.Serial(
                    [
                        layers.RNN("rnn", 4),
                        layers.Tied("again", layers.RNN("rnn", 4), to="rnn"),
                    ]
                ),
                jnp.ones((1, 3, 4)),
            ),
            ValueError,
            "Tied 'again': a layer with a carry cannot be tied",
        ),
    ],
)
def test_initial_carry_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_positions_beyond_the_cache_or_the_table_show_as_nan():
    # The number of positions is data on the device: nothing can raise.
    net = models.gpt(V, 4, 1, 1, length=3)
    params, _ = made(net, (3,))
    x = tokens(1, 2)
    run = jax.jit(functools.partial(extend, net, params, {}), compiler_options=FAST)
    _, carry, _ = run(x, initial_carry(net, x, length=3))
    y, carry, _ = run(x, carry)
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()
    assert carry["positions"]["position"].tolist() == [4]


# --- many devices ---------------------------------------------------------------------------------


def sharded(kind):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=jax.devices()[:4])
    return mesh, jax.NamedSharding(mesh, P("data"))


def expected(x):
    return jaxd2l.apply(LM, LM_PARAMS, {}, x)[0]


def in_pieces(params, x):
    carry = initial_carry(LM, x)
    first, carry, _ = extend(LM, params, {}, x[:, :2], carry)
    last, carry, _ = extend(LM, params, {}, x[:, 2:], carry)
    return jnp.concatenate([first, last], axis=1)


@pytest.mark.parametrize("check", [True, False], ids=["vma", "unchecked"])
def test_a_carry_can_be_made_and_extended_inside_shard_map(check):
    x = tokens(8, 4)
    mesh, _ = sharded(jax.sharding.AxisType.Auto)
    f = jax.shard_map(
        in_pieces, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=check
    )
    np.testing.assert_allclose(jax.jit(f)(LM_PARAMS, x), expected(x), rtol=2e-5, atol=2e-5)


def test_a_carry_is_sharded_like_the_batch_on_an_explicit_mesh():
    x = tokens(8, 4)
    mesh, sharding = sharded(jax.sharding.AxisType.Explicit)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, sharding)
        carry = jax.jit(functools.partial(initial_carry, LM))(placed)
        assert carry["gru1"]["hidden"].sharding.spec[0] == "data"
        params = jax.device_put(LM_PARAMS, jax.NamedSharding(mesh, P()))
        y = jax.jit(in_pieces)(params, placed)
    np.testing.assert_allclose(y, expected(x), rtol=2e-5, atol=2e-5)
