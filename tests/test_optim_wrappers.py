"""What is put around an optimiser: the guard against NaN, clipping, accumulation, averages."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import models, optim, train
from jaxd2l.ops import losses
from jaxd2l.optim.averaging import AverageState
from jaxd2l.optim.guards import SkipState, states_of

PARAMS = {"a": {"kernel": jnp.asarray([[1.0, -0.0], [2.0, 3.0]]), "bias": jnp.asarray([0.5, -1.0])}}
BAD = [np.nan, np.inf, -np.inf]


def like(value, tree=PARAMS):
    return jax.tree.map(lambda p: jnp.full_like(p, value), tree)


def gradients(number, seed=0, tree=PARAMS):
    random = np.random.RandomState(seed)
    return [
        jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), tree)
        for _ in range(number)
    ]


def follow(optimizer, grads, params=PARAMS):
    """The parameters after each step, and the last state."""

    @jax.jit
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state, path = optimizer.init(params), []
    for g in grads:
        params, state = step(params, state, g)
        path.append(params)
    return path, state


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-6):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-7), a, b)


def spoilt(g, value):
    return {"a": {**g["a"], "bias": g["a"]["bias"].at[1].set(value)}}


# --- the guard ------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_bad_step_is_as_if_it_had_not_been_and_there_is_no_last_one():
    good = gradients(4)
    mixed = [good[0], *(spoilt(good[1], bad) for bad in BAD * 4), good[1], good[2], good[3]]
    optimizer = optim.skip_non_finite(optim.adam(optim.step(0.1, 1, 0.5)))
    path, state = follow(optimizer, mixed)
    alone, plain = follow(optim.adam(optim.step(0.1, 1, 0.5)), good)
    for skipped in path[1:13]:
        same(skipped, path[0])
    same(path[-1], alone[-1])
    same(state.inner, plain)  # the count, which the schedule reads, included
    assert int(state.total) == 12

    # Optax's own lets the fourth through
    path, _ = follow(optax.apply_if_finite(optax.adam(0.1), 3), [mixed[1]] * 4)
    assert not np.isfinite(path[-1]["a"]["bias"]).all()


def test_signs_of_zeros_and_other_dtypes_are_kept(strict_promotion):
    params = {"w": jnp.asarray([-0.0, 1.0], jnp.bfloat16)}
    optimizer = optim.skip_non_finite(optim.sgd(0.1))
    updates, state = optimizer.update(
        {"w": jnp.full(2, jnp.nan, jnp.bfloat16)}, optimizer.init(params), params
    )
    new = optax.apply_updates(params, updates)["w"]
    assert new.dtype == jnp.bfloat16
    assert jnp.signbit(new[0])
    assert bool(optim.was_skipped(state))
    _, state = optimizer.update(params, state, params)
    assert not optim.was_skipped(state)


def test_what_overflows_inside_the_optimiser_is_a_bad_step_too():
    """1e20 squared is infinite in float32: Adam would never move that weight again."""
    huge = spoilt(gradients(1)[0], 1e20)
    _, state = follow(optax.adam(0.1), [huge])
    assert np.isinf(state[0].nu["a"]["bias"][1])
    path, state = follow(optim.skip_non_finite(optax.adam(0.1)), [huge])
    same(path[0], PARAMS)
    assert bool(optim.was_skipped(state))
    path, _ = follow(optim.skip_non_finite(optax.sgd(1e38)), [like(10.0)])  # an infinite update
    same(path[0], PARAMS)


def test_infinite_numbers_that_belong_to_the_state_do_not_stop_it():
    best = optax.GradientTransformation(
        lambda params: {"best": jnp.inf * jnp.ones(())}, lambda g, state, params=None: (g, state)
    )
    path, state = follow(optim.skip_non_finite(best), [like(1.0)])
    assert not optim.was_skipped(state)
    close(path[0], jax.tree.map(lambda p: p + 1, PARAMS))


def test_the_flag_is_found_wherever_the_guard_is():
    guard = optim.skip_non_finite
    groups = {"a/kernel": guard(optax.sgd(0.1)), "a/bias": guard(optax.adam(0.1))}
    places = [
        guard(optax.adam(0.1)),
        optim.average(guard(optax.adam(0.1)), 0.9),
        optax.chain(optax.identity(), guard(optax.sgd(0.1))),
        train.by_path(groups),
        guard(optax.chain(optax.scale(2.0), guard(optax.sgd(0.1)))),
    ]
    good = gradients(1)[0]
    orders = [[good, spoilt(good, np.nan)], [spoilt(good, np.nan), good]]

    @jax.jit
    def states(orders):
        found = []
        for optimizer in places:
            for grads in orders:
                state = optimizer.init(PARAMS)
                for g in grads:
                    _, state = optimizer.update(g, state, PARAMS)
                found.append((optim.was_skipped(state), states_of(state, SkipState)))
        return found

    found = states(orders)
    assert [bool(flag) for flag, _ in found] == [True, False] * len(places)
    assert sorted(bool(s.skipped) for s in found[6][1]) == [False, True]  # of the two groups
    assert optim.was_skipped(optax.adam(0.1).init(PARAMS)) is None


def test_extra_arguments_go_in_and_it_maps_over_runs():
    optimizer = optim.skip_non_finite(optim.sam(optim.sgd(0.5), radius=0.1))
    w = jnp.asarray([3.0, 4.0])
    doubled = jax.jit(
        lambda w: optimizer.update(2 * w, optimizer.init(w), w, grad_fn=lambda w: 2 * w)[0]
    )
    np.testing.assert_allclose(doubled(w), [-1.02 * 3, -1.02 * 4], rtol=1e-6)

    def run(rate, g):
        optimizer = optim.skip_non_finite(optim.sgd(rate))
        updates, state = optimizer.update(g, optimizer.init(w), w)
        return w + updates, optim.was_skipped(state)

    g = jnp.asarray([[1.0, 1.0], [np.nan, 1.0]])
    after, skipped = jax.jit(jax.vmap(run))(jnp.asarray([1.0, 2.0]), g)
    np.testing.assert_array_equal(after, [[2.0, 3.0], [3.0, 4.0]])
    assert skipped.tolist() == [False, True]
    slope = jax.jit(jax.grad(lambda rate: run(rate, g[1])[0].sum()))(1.0)  # skipped: 0, not NaN
    assert slope == 0


# --- clipping -------------------------------------------------------------------------------------


def norm(tree):
    return float(
        np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(tree)))
    )


def clip(transformation, grads):
    return jax.jit(lambda g: transformation.update(g, transformation.init(None))[0])(grads)


def test_clipping_by_norm_keeps_the_direction_and_by_value_does_not():
    """F30, E70."""
    g = gradients(1)[0]
    size = norm(g)
    for limit in (0.1, size * 1.01):
        clipped = clip(optim.clip_by_norm(limit), g)
        factor = min(1, limit / size)
        close(clipped, jax.tree.map(lambda x, f=factor: np.asarray(x) * f, g))
        close(clipped, clip(optax.clip_by_global_norm(limit), g))
    same(clip(optim.clip_by_norm(size * 1.01), g), g)  # bit for bit

    g = jnp.asarray([4.0, 0.5])
    by_value = clip(optim.clip_by_value(1.0), g)
    np.testing.assert_array_equal(by_value, [1.0, 0.5])
    np.testing.assert_array_equal(by_value, clip(optax.clip(1.0), g))
    cosine = float(g @ by_value / jnp.linalg.norm(g) / jnp.linalg.norm(by_value))
    assert cosine < 0.95


def test_bad_gradients_are_not_made_to_look_good():
    g = {"x": jnp.asarray([1.0, 5.0]), "y": jnp.asarray([2.0])}

    @jax.jit
    def clipped(spoiled):
        found = []
        for clipping in (optim.clip_by_norm(1.0), optim.clip_by_value(1.0)):
            guarded = optim.skip_non_finite(optax.chain(clipping, optim.sgd(0.1)))
            updates, state = guarded.update(spoiled, guarded.init(g), g)
            found.append((clip(clipping, spoiled), updates, optim.was_skipped(state)))
        return found

    for bad in BAD:
        spoiled = {**g, "y": jnp.asarray([bad])}
        by_norm, by_value = clipped(spoiled)
        same(by_norm[0], spoiled)
        same(by_value[0], {"x": np.asarray([1.0, 1.0]), "y": np.asarray([bad])})
        for _, updates, skipped in (by_norm, by_value):
            assert bool(skipped)
            assert all(not np.asarray(u).any() for u in jax.tree.leaves(updates))
    hidden = clip(optax.clip_by_global_norm(1.0), {**g, "y": jnp.asarray([np.inf])})
    np.testing.assert_array_equal(hidden["x"], [0.0, 0.0])  # Optax's: silently nothing


def test_a_norm_that_overflows_when_squared_is_clipped(strict_promotion):
    g = jnp.asarray([3e25, 4e25])
    np.testing.assert_allclose(clip(optim.clip_by_norm(1.0), g), [0.6, 0.8], rtol=1e-6)
    half = clip(
        optim.clip_by_norm(jnp.float32(1.0)), {"a": jnp.asarray([300.0, 400.0], jnp.float16)}
    )
    assert half["a"].dtype == jnp.float16
    np.testing.assert_allclose(half["a"], [0.6, 0.8], rtol=1e-3)
    for clipping in (optim.clip_by_norm, optim.clip_by_value):
        slope = jax.jit(jax.grad(lambda g, f=clipping: clip(f(1.0), g).sum()))(jnp.zeros(2))
        assert np.isfinite(slope).all()
        with pytest.raises(ValueError, match="limit must be positive, got 0"):
            clipping(0)


# --- accumulation ---------------------------------------------------------------------------------


def linear_gradient(w, x, y):
    return jax.grad(lambda w: losses.squared_loss(x @ w, y).mean())(w)


def test_small_batches_added_up_are_the_large_batch(x64):
    """The same parameters as with the large batches, and in between none moves."""
    random = np.random.RandomState(1)
    x, y = jnp.asarray(random.normal(size=(24, 3))), jnp.asarray(random.normal(size=24))
    start = jnp.zeros(3)

    def run(optimizer, size):
        w, state, path = start, optimizer.init(start), []
        step = jax.jit(lambda w, s, i: optimizer.update(linear_gradient(w, x[i], y[i]), s, w))
        for first in range(0, 24, size):
            updates, state = step(w, state, jnp.arange(first, first + size))
            w = optax.apply_updates(w, updates)
            path.append(w)
        return path

    for make in (optim.sgd, optim.adam):
        rate = optim.step(0.1, 2, 0.5)  # by updates
        small = run(optim.accumulate(make(rate), 4), 2)
        large = run(make(rate), 8)
        np.testing.assert_allclose(small[3::4], large, rtol=1e-14)
        for first in range(0, 12, 4):
            before = small[first - 1] if first else start
            assert all((small[first + i] == before).all() for i in range(3))
    multi = optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation()
    np.testing.assert_allclose(
        run(optim.accumulate(optax.adam(0.1), 3), 2)[-1], run(multi, 2)[-1], rtol=1e-6
    )


def test_growing_batches_are_the_large_batches_they_stand_for(x64):
    """Three of 2, two of 4, one of 8: exactly an optimiser that was given these. A batch that was
    begun before the number grows keeps its size."""
    random = np.random.RandomState(2)
    x, y = jnp.asarray(random.normal(size=(24, 3))), jnp.asarray(random.normal(size=24))
    growing = optim.growing(every=3, times=2, most=4)
    counts = jax.vmap(growing)(jnp.arange(10)), optim.growing(1, 10)(10**6)
    assert counts[0].tolist() == [1, 1, 1, 2, 2, 2, 4, 4, 4, 4]
    assert int(counts[1]) == 2**30  # does not overflow

    def end(optimizer, cuts):
        w, state = jnp.zeros(3), optimizer.init(jnp.zeros(3))
        for first, last in itertools.pairwise(cuts):
            g = linear_gradient(w, x[first:last], y[first:last])
            updates, state = optimizer.update(g, state, w)
            w = w + updates
        return w

    w, v = jax.jit(
        lambda: (
            end(optim.accumulate(optim.sgd(0.1), growing), range(0, 25, 2)),
            end(optim.sgd(0.1), (0, 2, 4, 6, 10, 14, 22)),
        )
    )()
    np.testing.assert_allclose(w, v, rtol=1e-13)


def test_a_bad_batch_is_left_out_of_the_sum():
    g = gradients(2)
    optimizer = optim.skip_non_finite(optim.accumulate(optim.sgd(1.0), 2))
    path, _ = follow(optimizer, [g[0], spoilt(g[1], np.nan), g[1]])
    same(path[1], PARAMS)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *g)
    close(path[2], jax.tree.map(lambda p, m: p - m, PARAMS, mean))


def test_accumulation_keeps_dtypes_and_small_gradients(strict_promotion):
    w = jnp.zeros(1, jnp.bfloat16)
    optimizer = optim.accumulate(optim.sgd(1.0), 3)
    state = optimizer.init(w)
    for value in (1.0, 0.001, 0.001):  # in bfloat16 1 + 0.001 is 1
        updates, state = optimizer.update(jnp.full(1, value, jnp.bfloat16), state, w)
    assert updates.dtype == jnp.bfloat16
    assert updates[0] == jnp.bfloat16(-(1 + 0.002) / 3)
    with pytest.raises(ValueError, match="accumulate: steps"):
        optim.accumulate(optim.sgd(1.0), 0)
    with pytest.raises(TypeError, match="accumulate: inner must be an optimiser"):
        optim.accumulate(optim.sgd, 2)


# --- averages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999])
def test_the_moving_average_is_the_weighted_mean_of_the_steps(decay):
    grads = gradients(6)
    path, state = follow(optim.average(optim.adam(0.1), decay), grads)
    plain, _ = follow(optim.adam(0.1), grads)
    same(path, plain)  # training is not changed
    weights = decay ** np.arange(5.0, -1, -1)
    wanted = jax.tree.map(
        lambda *p: np.tensordot(weights, np.asarray(p, np.float64), 1) / weights.sum(), *path
    )
    close(optim.averaged(state), wanted, rtol=2e-6)
    once = follow(optim.average(optim.adam(0.1), decay), grads[:1])
    close(optim.averaged(once[1]), once[0][0])  # the initial parameters have no part in it


def test_swa_is_the_mean_of_the_parameters_at_its_steps():
    grads = gradients(9)
    optimizer = optim.swa(optim.sgd(0.1), start=3, every=2)
    for steps, counted in ((2, [2]), (3, [3]), (4, [3]), (5, [3, 5]), (9, [3, 5, 7, 9])):
        path, state = follow(optimizer, grads[:steps])
        wanted = jax.tree.map(lambda *p: np.mean(p, axis=0), *[path[t - 1] for t in counted])
        close(optim.averaged(state), wanted)
    path, state = follow(optim.swa(optim.sgd(0.1), start=1), grads)
    close(optim.averaged(state), jax.tree.map(lambda *p: np.mean(p, axis=0), *path))


def test_averages_of_bfloat16_do_not_stand_still(strict_promotion):
    w = jnp.zeros(1, jnp.bfloat16)
    grads = [jnp.full(1, -1.0, jnp.bfloat16)] * 20
    _, state = follow(optim.average(optim.sgd(1.0), 0.999), grads, w)
    mean = optim.averaged(state)
    assert mean.dtype == jnp.bfloat16
    weights = 0.999 ** np.arange(19, -1, -1)
    assert mean[0] == jnp.bfloat16((weights @ np.arange(1, 21)) / weights.sum())


def test_averages_under_the_guard_in_groups_and_over_decays():
    g = gradients(3)
    average = functools.partial(optim.average, decay=0.5)
    path, state = follow(
        optim.skip_non_finite(average(optim.sgd(0.1))), [g[0], spoilt(g[1], np.nan)]
    )
    close(optim.averaged(state), path[0])
    with pytest.raises(ValueError, match="inside, found 0"):
        optim.averaged(optim.sgd(0.1).init(PARAMS))
    groups = {"a/kernel": average(optim.sgd(0.1)), "a/bias": average(optim.sgd(0.1))}
    with pytest.raises(ValueError, match="found 2"):
        optim.averaged(train.by_path(groups).init(PARAMS))
    assert len(states_of(average(average(optim.sgd(0.1))).init(PARAMS), AverageState)) == 2
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        optim.average(optim.sgd(0.1), 1)
    with pytest.raises(ValueError, match="update needs the parameters"):
        average(optim.sgd(0.1)).update(g[0], average(optim.sgd(0.1)).init(PARAMS))

    def mean(decay):
        optimizer = optim.average(optim.sgd(1.0), decay)
        w, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
        for _ in range(2):
            updates, state = optimizer.update(jnp.float32(-3.0), state, w)
            w = w + updates
        return optim.averaged(state)

    np.testing.assert_allclose(jax.vmap(mean)(jnp.asarray([0.0, 0.5])), [6.0, 5.0], rtol=1e-6)


@pytest.mark.slow
def test_all_of_them_in_a_compiled_run():
    """The guard, an average, accumulation and clipping around SGD, in a run as one program."""

    def optimizer(learning_rate):
        inner = optax.chain(optim.clip_by_norm(0.5), optim.sgd(optim.warm_up(learning_rate, 3)))
        return optim.skip_non_finite(optim.average(optim.accumulate(inner, 2), 0.9))

    random = np.random.RandomState(0)
    x = random.normal(size=(16, 2)).astype(np.float32)
    y = (x @ [[1.0], [-2.0]]).astype(np.float32)
    run = train.make_run(
        models.linear_regression(), losses.squared_loss, optimizer, epochs=15, batch_size=4
    )
    history = jax.jit(lambda key: run(key, (x, y), {"learning_rate": 0.5})[1])(jax.random.key(0))
    assert history["loss"][-1] < 0.1 * history["loss"][0]
