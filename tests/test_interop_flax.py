"""Arrays to and from Flax, linen and nnx."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxd2l
from jaxd2l import layers
from jaxd2l.interop.flax import export_linen, export_nnx, load_linen, load_nnx

FAST = {"xla_backend_optimization_level": 0}  # every program runs once
PAIR = ((1, 2), (0, 1))  # a padding that is another one on each side


def rngs():
    return nnx.Rngs(0)


# name: (our layer, linen's, nnx's or None, input shape)
SHARED = {
    "dense": (layers.Dense("a", 4), nn.Dense(4), lambda: nnx.Linear(5, 4, rngs=rngs()), (5,)),
    "no_bias": (
        layers.Dense("a", 4, bias=False),
        nn.Dense(4, use_bias=False),
        lambda: nnx.Linear(5, 4, use_bias=False, rngs=rngs()),
        (3, 5),
    ),
    "conv": (
        layers.Conv("a", 4, (3, 2), 2, PAIR),
        nn.Conv(4, (3, 2), 2, PAIR),
        lambda: nnx.Conv(2, 4, (3, 2), 2, padding=PAIR, rngs=rngs()),
        (7, 6, 2),
    ),
    "conv_groups": (
        layers.Conv("a", 4, 3, groups=2, dilation=2, padding="valid"),
        nn.Conv(4, (3, 3), padding="VALID", feature_group_count=2, kernel_dilation=2),
        lambda: nnx.Conv(
            2,
            4,
            (3, 3),
            padding="VALID",
            feature_group_count=2,
            kernel_dilation=2,
            rngs=rngs(),
        ),
        (7, 6, 2),
    ),
    "conv_1d": (
        layers.Conv("a", 4, (3,), padding="same"),
        nn.Conv(4, (3,)),
        lambda: nnx.Conv(2, 4, (3,), rngs=rngs()),
        (7, 2),
    ),
    "conv_3d": (
        layers.Conv("a", 2, (2, 3, 1)),
        nn.Conv(2, (2, 3, 1), padding="VALID"),
        lambda: nnx.Conv(3, 2, (2, 3, 1), padding="VALID", rngs=rngs()),
        (4, 4, 3, 3),
    ),
    "conv_transpose": (
        layers.ConvTranspose("a", 3, (4, 3), 2, dilation=(1, 2)),
        nn.ConvTranspose(3, (4, 3), (2, 2), "VALID", kernel_dilation=(1, 2)),
        lambda: nnx.ConvTranspose(
            2, 3, (4, 3), (2, 2), padding="VALID", kernel_dilation=(1, 2), rngs=rngs()
        ),
        (4, 3, 2),
    ),
    "conv_transpose_same": (  # Flax's SAME of 4 by 2 is our padding of 1
        layers.ConvTranspose("a", 3, 4, 2, padding=1),
        nn.ConvTranspose(3, (4, 4), (2, 2)),
        lambda: nnx.ConvTranspose(2, 3, (4, 4), (2, 2), rngs=rngs()),
        (4, 3, 2),
    ),
    "batch_norm": (
        layers.BatchNorm("a"),
        nn.BatchNorm(use_running_average=True),
        lambda: nnx.BatchNorm(2, use_running_average=True, rngs=rngs()),
        (4, 3, 2),
    ),
    "layer_norm": (
        layers.LayerNorm("a", eps=1e-6),
        nn.LayerNorm(),
        lambda: nnx.LayerNorm(5, rngs=rngs()),
        (3, 5),
    ),
    "layer_norm_image": (
        layers.LayerNorm("a", axes=3, eps=1e-6),
        nn.LayerNorm(reduction_axes=(-3, -2, -1), feature_axes=(-3, -2, -1)),
        None,  # nnx has features on one axis only
        (3, 4, 5),
    ),
    "group_norm": (
        layers.GroupNorm("a", 2, eps=1e-6),
        nn.GroupNorm(2),
        lambda: nnx.GroupNorm(4, 2, rngs=rngs()),
        (3, 5, 4),
    ),
    "instance_norm": (
        layers.InstanceNorm("a", eps=1e-6),
        nn.InstanceNorm(),
        lambda: nnx.InstanceNorm(4, rngs=rngs()),
        (3, 5, 4),
    ),
    "prelu": (layers.PReLU("a"), nn.PReLU(), lambda: nnx.PReLU(), (3, 4)),
}


def batch(shape, n=3, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).normal(size=(n, *shape)), dtype)


def shaken(tree, dtype=jnp.float32):
    """Arrays like these with all values different, so that a transposed one is found out."""
    random = np.random.RandomState(7)
    return jax.tree.map(lambda a: jnp.asarray(random.uniform(0.5, 1.5, jnp.shape(a)), dtype), tree)


def same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def inside(tree, name="a"):
    """{"params": {name: x}} from {"params": x}: a bare Flax layer has no name of its own."""
    return {collection: {name: part} for collection, part in tree.items()}


@pytest.mark.parametrize("case", SHARED)
def test_a_layer_of_both_gives_the_same_output_and_the_arrays_come_back(case, x64):
    net, module, make, shape = SHARED[case]
    x = batch(shape, dtype=jnp.float64)
    variables = shaken(jax.eval_shape(module.init, jax.random.key(0), x), jnp.float64)
    params, state = load_linen(net, inside(variables), shape)
    same(export_linen(net, params, state), inside(variables))
    calls = [lambda: jaxd2l.apply(net, params, state, x)[0], lambda: module.apply(variables, x)]
    if make is not None:
        model = nnx.eval_shape(lambda: nnx.Dict(a=make()))
        exported = export_nnx(net, params, state)
        assert jax.tree.structure(exported) == jax.tree.structure(nnx.state(model))
        nnx.update(model, exported)
        same(load_nnx(net, model, shape), (params, state))
        same(load_nnx(net, nnx.to_pure_dict(exported), shape), (params, state))
        calls.append(lambda: model.a(x))
    ours, *theirs = jax.jit(lambda: [call() for call in calls], compiler_options=FAST)()
    for y in theirs:
        np.testing.assert_allclose(ours, y, rtol=1e-12, atol=1e-12)


def test_an_embedding_of_both():
    net, table = layers.Embedding("words", 6, 3), nn.Embed(6, 3)
    tokens = jnp.array([[0, 5], [2, 2]])
    variables = table.init(jax.random.key(0), tokens)
    params, state = load_linen(net, inside(variables, "words"), (2,))
    same(jaxd2l.apply(net, params, state, tokens)[0], table.apply(variables, tokens))
    module = nnx.Dict(words=nnx.Embed(6, 3, rngs=rngs()))
    params, state = load_nnx(net, module, (2,))
    same(jaxd2l.apply(net, params, state, tokens)[0], module.words(tokens))


NET = layers.Serial(
    [
        layers.Serial(
            [layers.Conv("conv", 4, 3, padding="same", bias=False), layers.BatchNorm("bn")],
            name="stem",
        ),
        layers.Activation("relu"),
        layers.MaxPool(2),
        layers.Flatten(),
        layers.Dense("output", 3),
    ]
)
SHAPE = (4, 4, 2)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.features = nnx.List(
            [
                nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs),
                nnx.BatchNorm(4, momentum=0.9, rngs=rngs),
            ]
        )
        self.drop = nnx.Dropout(0.0, rngs=rngs)
        self.output = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = self.features[1](self.features[0](x))
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return self.drop(self.output(x.reshape(len(x), -1)))


LINEN_NAMES = {"stem/conv": "Conv_0", "stem/bn": "BatchNorm_0", "output": "Dense_0"}
NNX_NAMES = {"stem/conv": "features/0", "stem/bn": "features/1"}


def close(got, want):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)


def test_a_network_trains_as_in_linen():
    x = batch(SHAPE, 6)
    variables = shaken(jax.eval_shape(LinenNet().init, jax.random.key(0), x))
    params, state = load_linen(NET, variables, SHAPE, LINEN_NAMES)

    @functools.partial(jax.jit, compiler_options=FAST)
    def both():
        theirs = LinenNet().apply(variables, x, train=True, mutable=["batch_stats"])
        return jaxd2l.apply(NET, params, state, x, train=True), theirs

    (y, new), (want, updated) = both()
    close(y, want)
    got = export_linen(NET, params, new, LINEN_NAMES)
    close(got["batch_stats"], updated["batch_stats"])
    assert not np.allclose(new["stem"]["bn"]["var"], state["stem"]["bn"]["var"], atol=1e-3)
    same(export_linen(NET, params, state, LINEN_NAMES), variables)


def test_a_network_trains_as_in_nnx():
    x = batch(SHAPE, 6)
    model = nnx.eval_shape(lambda: NnxNet(rngs()))
    nnx.update(model, shaken(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
    params, state = load_nnx(NET, model, SHAPE, NNX_NAMES)
    y, new = jaxd2l.apply(NET, params, state, x, train=True)
    close(y, model(x))  # which updates its statistics
    close(new["stem"]["bn"]["mean"], model.features[1].mean[...])
    close(new["stem"]["bn"]["var"], model.features[1].var[...])
    model.eval()
    nnx.update(model, export_nnx(NET, jax.tree.map(jnp.negative, params), state, NNX_NAMES))
    close(model(x), jaxd2l.apply(NET, jax.tree.map(jnp.negative, params), state, x)[0])


def test_a_repeat_is_what_scan_stacks():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.PReLU()(nn.ConvTranspose(2, (2,), padding=((1, 0),))(x)), None

    stack = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    x = batch((5, 2))
    variables = shaken(jax.eval_shape(stack.init, jax.random.key(0), x, None))
    # Flax pads what our padding crops: of an effective kernel 2, crop (0, 1) is pad (1, 0)
    block = layers.Serial(
        [layers.ConvTranspose("up", 2, (2,), padding=((0, 1),)), layers.PReLU("prelu")]
    )
    net = layers.Repeat(block, 3, name="blocks")
    names = {"blocks/up": "ConvTranspose_0", "blocks/prelu": "PReLU_0"}
    params, state = load_linen(net, variables, (5, 2), names)
    close(jaxd2l.apply(net, params, state, x)[0], stack.apply(variables, x, None)[0])
    same(export_linen(net, params, state, names), variables)


def test_all_that_does_not_fit_is_told_at_once():
    shapes = jax.eval_shape(LinenNet().init, jax.random.key(0), batch(SHAPE))
    variables = shaken(shapes)
    tree = {"params": dict(variables["params"]), "batch_stats": variables["batch_stats"]}
    tree["params"]["Dense_0"] = {"kernel": jnp.zeros((3, 16)), "bias": jnp.zeros(3, jnp.int32)}
    tree["params"]["Dense_1"] = {"bias": jnp.zeros(2)}
    tree["batch_stats"] = {"BatchNorm_0": {"mean": np.zeros(4)}}
    with pytest.raises(ValueError, match="load_linen: the arrays do not fit") as error:
        load_linen(NET, tree, SHAPE, LINEN_NAMES)
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        "batch_stats/BatchNorm_0/mean is float64: call inside jax.enable_x64(True)",
        "batch_stats/BatchNorm_0/var is missing: stem/bn/var needs (4,)",
        "params/Dense_0/bias is int32: output/bias needs floating-point numbers",
        "params/Dense_0/kernel has shape (3, 16): output/kernel needs (16, 3)",
        "params/Dense_1/bias is not expected",
    ]
    with pytest.raises(ValueError, match=r"features/0/kernel is missing: stem/conv/kernel needs"):
        load_nnx(NET, {"output": tree["params"]["Dense_0"]}, SHAPE, NNX_NAMES)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"conv": "Conv_0"}, r"\['conv'\] match no layer; the layers are \['output', 'stem/bn'"),
        ({"stem/.*": "x", "stem/bn": "y"}, "'stem/bn' matches more than one name"),
        (
            {"stem/conv": "x", "output": "x"},
            "output/kernel and stem/conv/kernel are both called params/x/kernel",
        ),
    ],
)
def test_names_must_fit(names, told):
    params, state = jaxd2l.init(NET, jax.random.key(0), SHAPE)
    with pytest.raises(ValueError, match=f"export_linen: .*{told}"):
        export_linen(NET, params, state, names)


@pytest.mark.parametrize(
    ("net", "params", "told"),
    [
        (layers.RBF("r", 2), {"r": {"centres": 1.0}}, "Flax has no layer with r/centres of RBF"),
        (layers.Dense("d", 2), {"e": {"kernel": 1.0}}, "the network has no array e/kernel"),
        (
            layers.ConvTranspose("u", 4, 3, groups=2),
            {"u": {"kernel": jnp.ones((3, 3, 1, 4))}},
            "u/kernel: Flax's ConvTranspose has no groups, this one has 2",
        ),
        (
            layers.PReLU("p"),
            {"p": {"slope": jnp.array([0.1, 0.2])}},
            "p/slope: Flax's PReLU has one slope, these differ",
        ),
    ],
)
def test_what_flax_has_not_is_refused(net, params, told):
    with pytest.raises(ValueError, match=told):
        export_linen(net, params, {})


def test_what_is_no_tree_is_refused():
    with pytest.raises(TypeError, match=r'must be a dict with "params".* got \[\'head\'\]'):
        load_linen(NET, {"head": {}}, SHAPE)
    with pytest.raises(TypeError, match=r"load_nnx: expected an nnx module.* got 3"):
        load_nnx(NET, 3, SHAPE)
    with pytest.raises(ValueError, match="Flax has no layer with"):
        load_linen(layers.RBF("r", 2), {"params": {}}, (3,))
