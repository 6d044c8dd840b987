"""The derivatives of recurrent layers are those of a plain scan, under every transform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops import recurrent
from jaxd2l.ops.recurrent import LSTMCarry, Weights, gru, lstm, rnn

KINDS = {
    "rnn": (1, rnn, recurrent.rnn_cell),
    "gru": (3, gru, recurrent.gru_cell),
    "after": (3, partial(gru, reset_after=True), partial(recurrent.gru_cell, reset_after=True)),
    "lstm": (4, lstm, recurrent.lstm_cell),
}
LENGTHS = jnp.array([2, 0, 4])


def make(kind, n=3, t=4, d=2, h=3, dtype=np.float64):
    """x, weights, a carry."""
    gates = KINDS[kind][0]
    draw = np.random.RandomState(11)
    x = jnp.asarray(draw.randn(n, t, d), dtype)
    own = [draw.randn(*s) for s in [(d, gates * h), (h, gates * h), (gates * h,), (h,)]]
    weights = Weights(*[jnp.asarray(a, dtype) for a in own[: 4 if kind == "after" else 3]])
    first = jnp.asarray(draw.randn(n, h), dtype)
    return x, weights, LSTMCarry(first, 2 * first) if kind == "lstm" else first


def plain(cell, x, weights, carry, lengths, reverse):
    """`lax.scan` of a cell, and nothing else."""

    def body(carry, inputs):
        x, time = inputs
        new = cell(x, weights, carry)
        ok = (time < lengths)[:, None]
        y = new.hidden if isinstance(new, LSTMCarry) else new
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, carry)
        return new, jnp.where(ok, y, 0)

    times = jnp.arange(x.shape[1], dtype=lengths.dtype)
    last, y = jax.lax.scan(body, carry, (jnp.swapaxes(x, 0, 1), times), reverse=reverse)
    return jnp.swapaxes(y, 0, 1), last


def value(outputs):
    """A number in which every output counts, and counts differently."""
    total = 0.0
    for leaf in jax.tree.leaves(outputs):
        total += jnp.sum(jnp.sin(leaf) * jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape))
    return total


@pytest.mark.usefixtures("x64", "strict_promotion")
@pytest.mark.parametrize(
    "kind", ["gru", "lstm", *(pytest.param(k, marks=pytest.mark.slow) for k in ("rnn", "after"))]
)
def test_first_and_second_derivatives_are_those_of_a_plain_scan(kind, monkeypatch):
    """Hessian times vector, jvp, and a vmap of the gradient: ragged rows, backwards in time."""
    _, layer, cell = KINDS[kind]
    arguments = make(kind)
    vector = jax.tree.map(jnp.cos, arguments)
    rows = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), arguments)

    def derivatives(function):
        gradient = jax.grad(function, (0, 1, 2))

        @jax.jit
        def run():
            return (
                jax.jvp(gradient, arguments, vector),
                jax.jvp(function, arguments, vector),
                jax.vmap(lambda a: gradient(*a))(rows),
            )

        return run()

    wanted = derivatives(lambda *a: value(plain(cell, *a, LENGTHS, True)))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for least in (1, 2**30):
        monkeypatch.setattr(recurrent.scan, "RECOMPUTE_FROM", least)
        found = derivatives(lambda *a: value(layer(*a, lengths=LENGTHS, reverse=True)))
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12 * scale), found, wanted)


@pytest.mark.usefixtures("x64")
def test_gradients_of_one_argument_alone_and_of_gradients():
    """What is not differentiated is left out of the rule; reverse over reverse is the hessian."""
    x, weights, carry = make("lstm", n=1, t=2, d=1, h=1)
    _, layer, cell = KINDS["lstm"]
    lengths = jnp.array([2])

    def gradients(run):
        def kernel(k):
            return value(run(x, weights._replace(recurrent_kernel=k), carry))

        return (
            jax.grad(lambda x: value(run(x, weights, carry)))(x),
            jax.grad(lambda c: value(run(x, weights, c)))(carry),
            jax.grad(lambda b: value(run(x, weights._replace(bias=b), carry)))(weights.bias),
            jax.jacrev(jax.grad(kernel))(weights.recurrent_kernel),
        )

    found = jax.jit(lambda: gradients(layer))()
    wanted = jax.jit(lambda: gradients(lambda *a: plain(cell, *a, lengths, False)))()
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), found, wanted)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
def test_check_grads(kind):
    _, layer, _ = KINDS[kind]
    run = jax.jit(partial(layer, lengths=jnp.array([2, 1])))
    check_grads(run, make(kind, n=2, t=2, h=2), 2, ["fwd", "rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.smoke
@pytest.mark.usefixtures("x64")
def test_numbers_are_those_of_finite_differences():
    x, weights, carry = make("gru", n=1, t=3)
    run = jax.jit(lambda w: value(gru(x, w, carry)))
    vector = jax.tree.map(jnp.cos, weights)
    slope = jax.jit(lambda w: jax.jvp(run, (w,), (vector,))[1])(weights)
    ends = [run(jax.tree.map(lambda w, v, s=s: w + s * v, weights, vector)) for s in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


@pytest.mark.usefixtures("strict_promotion")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype_is_kept_and_no_steps_are_no_change(dtype):
    x, weights, carry = make("lstm", dtype=dtype)
    y, last = jax.eval_shape(lstm, x, weights)
    assert {leaf.dtype for leaf in (y, *last)} == {jnp.dtype(dtype)}
    gradient = jax.eval_shape(jax.grad(lambda w: lstm(x, w)[0].sum()), weights)
    assert gradient.recurrent_kernel.dtype == dtype
    empty, same = lstm(x[:, :0], weights, carry)
    assert empty.shape == (3, 0, 3)
    np.testing.assert_array_equal(same.cell, carry.cell)


def test_padding_that_is_nan_reaches_no_gradient():
    x, weights, _ = make("gru", dtype=np.float32)
    mask = (jnp.arange(4)[None] < LENGTHS[:, None])[:, :, None]
    run = jax.jit(jax.grad(lambda x, w: value(gru(x, w, lengths=LENGTHS)), (0, 1)))
    found = run(jnp.where(mask, x, jnp.nan), weights)
    jax.tree.map(np.testing.assert_array_equal, found, run(x, weights))
    assert not np.any(found[0][1])


@pytest.mark.parametrize(("check", "least"), [(True, 1), (True, 2**30), (False, 2**30)])
def test_works_on_shards(check, least, monkeypatch):
    """Both kinds of gradient, without a carry given, with and without checked variance."""
    monkeypatch.setattr(recurrent.scan, "RECOMPUTE_FROM", least)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    x, weights, _ = make("lstm", n=4, d=3, dtype=np.float32)
    lengths = jnp.array([2, 0, 4, 1])

    def run(x, weights, lengths):
        return lstm(x, weights, lengths=lengths)[0]

    sharded = jax.shard_map(
        run, mesh=mesh, in_specs=(spec, whole, spec), out_specs=spec, check_vma=check
    )
    found, wanted = (
        jax.jit(jax.value_and_grad(lambda w, f=f: value(f(x, w, lengths))))(weights)
        for f in (sharded, run)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, wanted)
