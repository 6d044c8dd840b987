"""Fine-tuning: what is copied, what is trained at which rate, and what stays to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxd2l
from jaxd2l import data, models, records, train
from jaxd2l.layers import (
    BatchNorm,
    Dense,
    FixedBatchNorm,
    Identity,
    Parallel,
    Repeat,
    Serial,
    Split,
)
from jaxd2l.layers.shapes import array_paths
from jaxd2l.ops import losses

FEATURES, CLASSES = 3, 2


def network(classes=CLASSES, width=4):
    return Serial(
        [
            Dense("hidden", width),
            BatchNorm("bn"),
            Dense("middle", width),
            Dense("output", classes),
        ]
    )


def arrays(seed, **changes):
    params, state = jaxd2l.init(network(**changes), jax.random.key(seed), (FEATURES,))
    return params, jax.tree.map(lambda a: a + seed, state)  # statistics that differ by the seed


@pytest.fixture(scope="module")
def few():
    random = np.random.RandomState(0)
    x = random.randn(10, FEATURES).astype(np.float32)
    return data.Dataset(x, (x[:, 0] > 0).astype(np.int32))


def same(a, b):
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def changed(before, after):
    """The paths at which two trees differ in a bit."""
    old, new = array_paths(before), array_paths(after)
    assert set(old) == set(new)
    return {path for path in old if not same(old[path], new[path])}


# transfer


@pytest.mark.smoke
def test_all_but_the_head_is_copied():
    trained, fresh = arrays(1, classes=5), arrays(2)
    start = train.transfer(trained, fresh, leave=["output/*"])
    head = {"output/kernel", "output/bias"}
    assert set(start.left) == head
    everything = set(array_paths(fresh[0])) | set(array_paths(fresh[1]))
    assert set(start.copied) == everything - head
    assert changed(start.params["hidden"], trained[0]["hidden"]) == set()
    assert changed(start.params["output"], fresh[0]["output"]) == set()
    assert changed(start.state, trained[1]) == set()
    assert changed(trained[1], fresh[1]) == {"bn/mean", "bn/var"}  # so the line above says much
    assert jax.tree.structure(start.params) == jax.tree.structure(fresh[0])


def test_a_pattern_leaves_statistics_too():
    trained, fresh = arrays(1), arrays(2)
    start = train.transfer(trained, fresh, leave=["bn/*"])
    assert set(start.left) == {"bn/scale", "bn/bias", "bn/mean", "bn/var"}
    assert changed(start.state, fresh[1]) == set()
    everything = train.transfer(trained, fresh, leave=[])
    assert everything.left == ()
    assert changed(everything.params, trained[0]) == set()


def test_what_only_one_side_has_must_be_named():
    params, state = arrays(1)
    more = params | {"aux": {"kernel": jnp.ones(2)}}
    assert "aux" not in train.transfer((more, state), (params, state), ["aux/*"]).params
    into = train.transfer((params, state), (more, state), ["aux/*"])
    assert into.left == ("aux/kernel",)
    with pytest.raises(ValueError, match="aux/kernel: the trained network has it, the new one"):
        train.transfer((more, state), (params, state), [])
    with pytest.raises(ValueError, match="aux/kernel: the new network has it, the trained one"):
        train.transfer((params, state), (more, state), [])


def test_everything_wrong_is_listed_at_once():
    params, _ = arrays(1, classes=5)
    params["hidden"] = {"kernel": params["hidden"]["kernel"].astype(jnp.bfloat16)}
    with pytest.raises(ValueError, match="transfer: these do not fit") as error:
        train.transfer((params, {}), arrays(2), leave=["head/*", "conv*"])
    lines = str(error.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines[:-2]] == [
        "hidden/bias",
        "hidden/kernel",
        "output/bias",
        "output/kernel",
        "bn/mean",
        "bn/var",
    ]
    assert "needs float32 (3, 4), the trained one has bfloat16 (3, 4)" in lines[1]
    assert "needs float32 (4, 2), the trained one has float32 (4, 5)" in lines[3]
    assert "'head/*' matches no array; the paths are ['bn/bias'" in lines[-2]
    assert "'conv*' matches no array" in lines[-1]


@pytest.mark.parametrize("leave", ["output/*", None, [3]])
def test_leave_is_a_list_of_patterns(leave):
    with pytest.raises(TypeError, match="transfer: leave: "):
        train.transfer(arrays(1), arrays(2), leave)


def test_both_sides_are_pairs():
    with pytest.raises(TypeError, match="trained must be the pair"):
        train.transfer(arrays(1)[0], arrays(2), ["output/*"])


# by_path


def optimizer(rate=0.1):
    return train.by_path({"output/*": optax.adam(rate)}, rest=train.freeze())


def quick(few, **changes):
    settings = {"epochs": 2, "batch_size": 4, "optimizer": optimizer(), **changes}
    net = settings.pop("net", network())
    return train.fit(net, few, loss=losses.softmax_cross_entropy, **settings)


@pytest.mark.smoke
def test_each_group_is_trained_by_its_own_optimiser():
    params, _ = arrays(0)
    grads = jax.tree.map(lambda p: 2 * p + 1, params)
    whole = train.by_path(
        {"output/*": optax.adam(0.1), "*/bias": optax.sgd(0.5), "hidden/kernel": optax.sgd(0.25)}
        | {"middle/kernel": train.freeze(), "bn/scale": optax.adamw(0.1)}
    )
    with pytest.raises(ValueError, match=r"output/bias matches \['output/\*', '\*/bias'\]"):
        whole.init(params)
    groups = {"output/*": optax.adam(0.1), "hidden/*": optax.sgd(0.5)}
    whole = train.by_path(groups, rest=optax.adamw(0.01))
    state = whole.init(params)
    now = params
    for _ in range(3):
        updates, state = whole.update(grads, state, now)
        now = optax.apply_updates(now, updates)
    for name, alone in {**groups, "bn/*": optax.adamw(0.01), "middle/*": optax.adamw(0.01)}.items():
        part = name.split("/")[0]
        own, memory = params[part], alone.init(params[part])
        for _ in range(3):
            updates, memory = alone.update(grads[part], memory, own)
            own = optax.apply_updates(own, updates)
        assert changed(own, now[part]) == set(), name


def test_frozen_parameters_stay_to_the_bit_and_take_no_memory(few):
    params, state = arrays(1)
    params["middle"]["kernel"] = params["middle"]["kernel"].at[0, 0].set(-0.0)
    result = quick(few, initial=(params, state))
    assert changed(params, result.params) == {"output/kernel", "output/bias"}
    sizes = [a.size for a in jax.tree.leaves(result.train_state.opt_state)]
    head = sum(a.size for a in jax.tree.leaves(params["output"]))
    assert sum(sizes) == 2 * head + 1  # Adam's two moments and its count
    assert changed(state, result.state) == {"bn/mean", "bn/var"}  # as in PyTorch
    again = quick(few, initial=(params, state))  # what was given in is still there
    assert changed(result.params, again.params) == set()


def test_freezing_outlasts_gradients_that_are_not_finite():
    w = {"a": jnp.array([1.0, -0.0, jnp.inf])}
    updates, _ = train.freeze().update({"a": jnp.full(3, jnp.nan)}, train.freeze().init(w), w)
    for add in (optax.apply_updates, jax.jit(optax.apply_updates)):
        assert same(add(w, updates)["a"], w["a"])
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), w)
    assert train.freeze().update(half, None)[0]["a"].dtype == jnp.bfloat16


def test_a_path_in_no_group_or_in_two_or_a_pattern_without_paths():
    params, _ = arrays(0)
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match="every path must match exactly one pattern") as error:
        train.by_path({"*/kernel": sgd, "output/*": sgd, "conv/*": sgd}).init(params)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert lines[0] == "output/kernel matches ['*/kernel', 'output/*']"
    assert lines[1:-1] == [
        f"{path} matches none" for path in ("bn/bias", "bn/scale", "hidden/bias", "middle/bias")
    ]
    assert lines[-1].startswith("the pattern 'conv/*' matches no parameter; the paths are")
    covering = train.by_path({"*/kernel": sgd, "*/bias": sgd, "bn/scale": sgd})
    assert covering.update(params, covering.init(params))[0]["bn"]["scale"].shape == (4,)


def test_what_by_path_is_given_is_checked(few):
    sgd = optax.sgd(0.1)
    for wrong in ({}, [("*", sgd)], {3: sgd}):
        with pytest.raises(TypeError, match="by_path"):
            train.by_path(wrong)
    with pytest.raises(TypeError, match=r"'output/\*': optimizer must be an Optax transformation"):
        train.by_path({"output/*": optax.sgd}, rest=sgd)
    with pytest.raises(TypeError, match="'rest': optimizer must be an Optax"):
        train.by_path({"output/*": sgd}, rest=0.1)
    with pytest.raises(ValueError, match=r"as rest=\.\.\."):
        train.by_path({"rest": sgd}, rest=sgd)
    with pytest.raises(ValueError, match="by_path: every path"):  # fit says it as well
        quick(few, optimizer=train.by_path({"head/*": sgd}, rest=sgd))


def test_a_norm_is_clipped_by_group_or_over_all():
    params = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    clip = optax.clip_by_global_norm(1.0)
    grouped = train.by_path({"a": clip}, rest=clip)
    around = optax.chain(clip, train.by_path({"a": optax.identity()}, rest=optax.identity()))
    for transformation, wanted in ((grouped, (1.0, 1.0)), (around, (0.6, 0.8))):
        updates, _ = transformation.update(params, transformation.init(params), params)
        np.testing.assert_allclose([updates["a"][0], updates["b"][0]], wanted, rtol=1e-6)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(few, tmp_path):
    start = arrays(1)
    whole = quick(few, initial=start, epochs=4)
    quick(few, initial=start, folder=tmp_path)
    resumed = quick(few, initial=start, folder=tmp_path, resume=True, epochs=4)
    assert changed(whole.train_state.params, resumed.params) == set()
    assert changed(whole.train_state.opt_state, resumed.train_state.opt_state) == set()
    assert changed(start[0], resumed.params) == {"output/kernel", "output/bias"}
    loaded = train.load(tmp_path)
    assert loaded.net == network()
    assert changed(loaded.params, resumed.params) == set()


def test_a_whole_run_mapped_over_rates_and_starts(few):
    """The optimiser as a function of the rate; one program for all."""
    run = train.make_run(network(), losses.softmax_cross_entropy, optimizer, epochs=2, batch_size=5)
    starts = jax.tree.map(lambda *a: jnp.stack(a), arrays(1), arrays(2))
    mapped = jax.jit(
        jax.vmap(lambda rate, start: run(jax.random.key(0), few, {"rate": rate}, start))
    )
    params, _ = mapped(jnp.array([0.1, 0.2]), starts)
    head = {"output/kernel", "output/bias"}
    assert changed(starts[0], params) == head
    one, _ = jax.jit(run)(jax.random.key(0), few, {"rate": 0.2}, arrays(2))
    for path, leaf in array_paths(one).items():
        np.testing.assert_allclose(array_paths(params)[path][1], leaf, atol=1e-6)


def kinds_of_work(optimizer, net):
    """How many products are left in the compiled step."""
    first = train.start(net, optimizer, jax.random.key(0), (FEATURES,), {})
    update = train.make_update(net, losses.softmax_cross_entropy, optimizer, {}, padded=False)
    x, y = jnp.ones((8, FEATURES)), jnp.zeros(8, jnp.int32)
    batch = data.Batch(x, y, jnp.ones(8, bool), jnp.arange(8))
    text = jax.jit(update).lower(first, batch).compile().as_text()
    return sum(" dot(" in line or "matmul" in line for line in text.splitlines())


def test_the_backward_pass_of_a_frozen_body_is_not_computed():
    net = models.mlp((5, 6), num_classes=CLASSES)
    sgd = optax.sgd(0.1)
    head = train.by_path({"output/*": sgd}, rest=train.freeze())
    clip = optax.clip_by_global_norm(1.0)
    inside = train.by_path({"output/*": optax.chain(clip, sgd)}, rest=train.freeze())
    # forward 3; weights 3, inputs of the second and third 2
    assert kinds_of_work(sgd, net) == 8
    assert kinds_of_work(head, net) == 4
    assert kinds_of_work(inside, net) == 4
    assert kinds_of_work(optax.chain(clip, head), net) == 8


# fix_statistics


def test_fixed_statistics_stay_and_are_used(few):
    net = train.fix_statistics(network(), ["bn/*"])
    assert net.layers[1] == FixedBatchNorm("bn")
    params, state = arrays(1)
    x = jnp.asarray(few.inputs)
    trained, new = jaxd2l.apply(net, params, state, x, train=True)
    plain, same_state = jaxd2l.apply(network(), params, state, x)
    assert changed(state, new) == set()
    assert same_state is state
    np.testing.assert_array_equal(trained, plain)
    batch, _ = jaxd2l.apply(network(), params, state, x, train=True)
    assert not np.allclose(batch, plain, atol=1e-2)
    result = quick(few, net=net, initial=(params, state))
    assert changed(state, result.state) == set()
    assert changed(params, result.params) == {"output/kernel", "output/bias"}
    # a frozen body of fixed statistics gives the same features in training and afterwards
    everything = quick(few, net=net, initial=(params, state), optimizer=optax.sgd(0.1))
    assert {"bn/scale", "bn/bias"} <= changed(params, everything.params)


def test_fixed_statistics_reach_into_composites_by_pattern():
    def norms(cls=BatchNorm):
        wide = cls("bn", decay=0.5, unbiased=True, axis_name="devices")
        return [
            Repeat(Serial([Dense("dense", 4), wide]), 2, name="blocks"),
            Parallel([cls("a"), Serial([cls("bn")], name="b"), Identity()], "add"),
            Split([Identity(), cls("half")]),
        ]

    net = Serial(norms())
    fixed = train.fix_statistics(net, ["*"])
    assert fixed == Serial(norms(FixedBatchNorm))
    assert records.load(records.dump(fixed)) == fixed
    assert train.fix_statistics(fixed, ["*"]) == fixed
    init = lambda n: jax.eval_shape(lambda k: jaxd2l.init(n, k, (4,)), jax.random.key(0))  # noqa: E731
    assert init(fixed) == init(net)
    some = train.fix_statistics(net, ["b*/*"])
    assert some.layers[0] == fixed.layers[0]
    assert some.layers[1].branches == (BatchNorm("a"), *fixed.layers[1].branches[1:])
    assert some.layers[2] == net.layers[2]
    with pytest.raises(ValueError, match="'c' matches no statistics of a batch norm; the paths"):
        train.fix_statistics(net, ["a/*", "c"])
    with pytest.raises(TypeError, match="list of path patterns"):
        train.fix_statistics(net, "*")
