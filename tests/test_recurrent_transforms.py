"""The derivatives of recurrent layers are those of a plain scan, under every transform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops import recurrent
from jaxd2l.ops.recurrent import LSTMCarry, Weights, gru, lstm, rnn, scan

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


WAYS = [("gru", "defer"), ("lstm", "defer")]
SLOW = [(kind, way) for kind in KINDS for way in ("defer", "recompute") if (kind, way) not in WAYS]


@pytest.mark.usefixtures("x64", "strict_promotion")
@pytest.mark.parametrize(
    ("kind", "way"), [*WAYS, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_second_derivatives_are_those_of_a_plain_scan(kind, way, monkeypatch):
    """Hessian times vector, and with it the gradient: ragged rows, backwards in time."""
    monkeypatch.setattr(scan, "choose", lambda n, weights: way)
    _, layer, cell = KINDS[kind]
    arguments = make(kind)
    vector = jax.tree.map(jnp.cos, arguments)

    def derivatives(function):
        return jax.jit(lambda a, v: jax.jvp(jax.grad(function, (0, 1, 2)), a, v))(arguments, vector)

    wanted = derivatives(lambda *a: value(plain(cell, *a, LENGTHS, True)))
    found = derivatives(lambda *a: value(layer(*a, lengths=LENGTHS, reverse=True)))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12 * scale), found, wanted)


@pytest.mark.usefixtures("x64")
def test_vmap_over_weights_and_inputs_of_jvp_and_of_gradient(monkeypatch):
    """A batch of networks is as one after the other."""
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
    one = make("after", n=2, t=3)
    many = jax.tree.map(lambda a: jnp.stack([a, -a]), one)

    @jax.jit
    def both(x, weights, carry):
        def run(x, weights, carry):
            return value(gru(x, weights, carry, reset_after=True))

        _, forward = jax.jvp(run, (x, weights, carry), jax.tree.map(jnp.cos, (x, weights, carry)))
        return forward, jax.grad(run, 1)(x, weights, carry)

    found = jax.jit(jax.vmap(both))(*many)
    for row in range(2):
        wanted = both(*jax.tree.map(lambda a, row=row: a[row], many))
        jax.tree.map(
            lambda a, b, row=row: np.testing.assert_allclose(a[row], b, atol=1e-12), found, wanted
        )


@pytest.mark.usefixtures("x64")
def test_gradients_of_one_argument_alone_and_of_gradients(monkeypatch):
    """What is not differentiated is left out of the rule; reverse over reverse is the hessian."""
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
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
def test_check_grads(kind, monkeypatch):
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
    _, layer, _ = KINDS[kind]
    run = jax.jit(partial(layer, lengths=jnp.array([2, 1])))
    check_grads(run, make(kind, n=2, t=2, h=2), 2, ["fwd", "rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.smoke
@pytest.mark.usefixtures("x64")
def test_numbers_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
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


def test_padding_that_is_nan_reaches_no_gradient(monkeypatch):
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
    x, weights, _ = make("gru", dtype=np.float32)
    mask = (jnp.arange(4)[None] < LENGTHS[:, None])[:, :, None]
    run = jax.jit(jax.grad(lambda x, w: value(gru(x, w, lengths=LENGTHS)), (0, 1)))
    found = run(jnp.where(mask, x, jnp.nan), weights)
    jax.tree.map(np.testing.assert_array_equal, found, run(x, weights))
    assert not np.any(found[0][1])


@pytest.mark.parametrize(("check", "way"), [(True, "defer"), (False, "recompute")])
def test_works_on_shards(check, way, monkeypatch):
    """Both kinds of gradient, without a carry given, with and without checked variance."""
    monkeypatch.setattr(scan, "choose", lambda n, weights: way)
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


def test_the_way_is_chosen_by_sizes():
    """The shapes that were measured: the Time Machine's, small batches of wide layers, neither."""

    def way(n, d, h, gates):
        return scan.choose(n, Weights(jnp.zeros((d, gates * h)), jnp.zeros((h, gates * h))))

    assert [way(1024, 28, 32, gates) for gates in (1, 3, 4)] == ["plain", "recompute", "recompute"]
    assert [way(32, 28, 256, gates) for gates in (1, 3, 4)] == ["defer"] * 3
    assert [way(16, 128, 128, gates) for gates in (1, 3, 4)] == ["plain", "defer", "defer"]
    assert way(64, 256, 512, 4) == "plain"


def test_gradients_of_the_ways_need_what_they_say():
    """Recomputing stores no gates; deferring sums up no kernel in the backward scan."""

    def scans(way):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan, "choose", lambda n, weights: way)
            x, weights, _ = make("lstm", n=5, t=4, d=2, h=3, dtype=np.float32)
            jaxpr = jax.make_jaxpr(jax.grad(lambda w: value(lstm(x, w))))(weights)
        found = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
        assert len(found) == 2
        return [[v.aval.shape for v in eqn.outvars] for eqn in found]

    size = {way: sum(np.prod(s) for s in scans(way)[0]) for way in ("plain", "recompute")}
    assert size["recompute"] < size["plain"] / 2
    kernel = (3, 12)
    assert [kernel in scans(way)[1] for way in ("plain", "defer")] == [True, False]
