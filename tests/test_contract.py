"""The contract that every layer and model keeps, as one table.

Layers of sequences and tokens are in `test_contract_sequences.py`, the published networks in
`test_contract_models.py`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models, records
from jaxd2l.ops import augment

Case = tuple[str, layers.Layer, tuple[int, ...]]

CASES: list[Case] = [
    ("activation", layers.Activation("gelu"), (5,)),
    ("adaptive_avg_pool", layers.AdaptiveAvgPool((2, 3)), (5, 6, 2)),
    (
        "augment",
        layers.Augment("augment", [augment.RandomFlip(), augment.RandomResizedCrop((4, 5))]),
        (6, 7, 3),
    ),
    ("avg_pool", layers.AvgPool(3, stride=2, padding=1, ceil_mode=True), (6, 5, 2)),
    ("batch_norm", layers.BatchNorm("bn"), (4, 3, 2)),
    ("batch_norm_dense", layers.BatchNorm("bn", unbiased=True, scale=False), (5,)),
    ("channel_shuffle", layers.ChannelShuffle(3), (4, 3, 6)),
    ("color_spaces", layers.ColorSpaces(), (3, 2, 3)),
    ("constant_dense", layers.ConstantDense(4, seed=3), (5,)),
    ("conv", layers.Conv("conv", 4, 3, stride=2, padding="same", groups=2), (7, 6, 2)),
    ("conv_1d", layers.Conv("conv", 4, (3,), dilation=2), (9, 2)),
    ("conv_3d", layers.Conv("conv", 2, (2, 3, 1), bias=False), (4, 4, 3, 2)),
    ("conv_transpose", layers.ConvTranspose("up", 3, 4, stride=2, padding=1), (4, 3, 2)),
    ("cosine_dense", layers.CosineDense("cosine", 4), (5,)),
    ("dense", layers.Dense("dense", 4), (5,)),
    ("dense_positions", layers.Dense("dense", 4, bias=False), (3, 2, 5)),
    ("dropout", layers.Dropout("dropout", 0.5), (5,)),
    ("dropout_classic", layers.Dropout("dropout", 0.5, classic=True), (5,)),
    ("flax", layers.FlaxModule("flax", nn.Conv(3, (2, 2))), (4, 4, 2)),
    ("fixed_batch_norm", layers.FixedBatchNorm("bn"), (4, 3, 2)),
    ("flatten", layers.Flatten(), (3, 2, 2)),
    ("function", layers.Function(functools.partial(jnp.sum, axis=1)), (3, 4)),
    ("gaussian_noise", layers.GaussianNoise("noise", 0.5), (5,)),
    ("gaussian_noise_relative", layers.GaussianNoise("noise", 0.5, multiplicative=True), (5,)),
    ("global_avg_pool", layers.GlobalAvgPool(), (3, 2, 4)),
    ("global_max_pool", layers.GlobalMaxPool(), (3, 4)),
    ("group_norm", layers.GroupNorm("gn", 2), (3, 3, 4)),
    ("identity", layers.Identity(), (3,)),
    ("instance_norm", layers.InstanceNorm("in"), (3, 3, 2)),
    ("k_max_pool", layers.KMaxPool(2), (5, 3)),
    ("layer_norm", layers.LayerNorm("ln"), (3, 5)),
    ("layer_norm_conv", layers.LayerNorm("ln", axes=3), (3, 3, 2)),
    ("locally_connected", layers.LocallyConnected("local", 3, 2, stride=2), (5, 4, 2)),
    ("local_response_norm", layers.LocalResponseNorm(), (2, 2, 7)),
    ("max_pool", layers.MaxPool(2), (5, 4, 3)),
    ("maxout", layers.Maxout("maxout", 3, pieces=2), (5,)),
    ("min_pool", layers.MinPool((2,)), (6, 3)),
    ("powers", layers.Powers(3), (1,)),
    ("prelu", layers.PReLU("prelu"), (3, 4)),
    ("rbf", layers.RBF("rbf", 3, sigma=2.0), (5,)),
    ("reshape", layers.Reshape((2, 3)), (6,)),
    ("tiled_conv", layers.TiledConv("tiled", 3, 2, tiles=(2, 1), padding=1), (4, 3, 2)),
    ("weight_norm", layers.WeightNorm(layers.Conv("conv", 4, 3)), (5, 5, 2)),
    (
        "parallel_add",
        layers.Parallel([layers.Dense("a", 5), layers.Identity()], "add", name="block"),
        (5,),
    ),
    (
        "parallel_gate",
        layers.Parallel(
            [
                layers.Dense("value", 5),
                layers.Serial([layers.Dense("gate", 5), layers.Activation("sigmoid")]),
            ],
            "multiply",
        ),
        (5,),
    ),
    (
        "split",
        layers.Split([layers.Identity(), layers.Conv("conv", 3, 3, padding="same")]),
        (4, 4, 4),
    ),
    (
        "repeat",
        layers.Repeat(
            layers.Serial([layers.Dense("dense", 5), layers.BatchNorm("bn")]), 3, name="blocks"
        ),
        (5,),
    ),
    (
        "tied",
        layers.Serial(
            [
                layers.Dense("hidden", 5),
                layers.Activation("tanh"),
                layers.Tied("again", layers.Dense("hidden", 5), to="hidden"),
            ]
        ),
        (5,),
    ),
    ("lenet", models.lenet(), (16, 16, 1)),
    ("lenet_book", models.lenet(activation="sigmoid", pooling="avg"), (16, 16, 1)),
    ("lenet_bn", models.lenet(batch_norm=True), (16, 16, 1)),
    ("linear_regression", models.linear_regression(), (3,)),
    ("logistic_regression", models.logistic_regression(), (3,)),
    ("mlp", models.mlp((6, 5), dropout=(0.2, 0.5)), (3, 3, 1)),
    ("polynomial_regression", models.polynomial_regression(), (1,)),
    ("softmax_regression", models.softmax_regression(), (3, 3, 1)),
]
FAST = {"xla_backend_optimization_level": 0}  # to compile: every program runs once
IDS = [name for name, _, _ in CASES]
N = 4


@functools.lru_cache
def made(index: int):
    """One case: the network, its parameters and state, a batch."""
    _, net, shape = CASES[index]
    init = jax.jit(lambda key: jaxd2l.init(net, key, shape), compiler_options=FAST)
    params, state = init(jax.random.key(1, impl="unsafe_rbg"))  # quicker to compile
    x = jnp.asarray(np.random.RandomState(2).normal(size=(N, *shape)), jnp.float32)
    return net, params, state, x


def run(net, params, state, x, **call):
    return jaxd2l.apply(net, params, state, x, **call)


traced = []


def everything(net, params, state, x):
    """All that is compared, as one program: one compilation for each case."""
    traced.append(net)

    def loss(params, x):
        y, new = run(net, params, state, x, train=True, key=jax.random.key(3))
        return (y**2).sum(), new

    grads, new = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return {
        "batch": run(net, params, state, x)[0],
        "vmap": jax.vmap(lambda x: run(net, params, state, x[None])[0][0])(x),
        "gradients": grads,
        "new": new,
    }


compiled = jax.jit(everything, static_argnums=0, compiler_options=FAST)


@functools.lru_cache
def results(index: int):
    return compiled(*made(index))


@pytest.mark.parametrize("index", range(len(CASES)), ids=IDS)
class TestContract:
    def test_declared_shape_is_the_real_one(self, index):
        net, params, state, x = made(index)
        y, _ = jax.eval_shape(functools.partial(run, net), params, state, x)
        assert y.shape == (N, *jaxd2l.output_shape(net, x.shape[1:]))

    def test_jit_equals_eager_and_eval_leaves_state_alone(self, index):
        net, params, state, x = made(index)
        y, same = run(net, params, state, x)
        assert same is state
        np.testing.assert_allclose(y, results(index)["batch"], rtol=2e-5, atol=2e-5)

    def test_vmap_over_examples_equals_the_batch(self, index):
        result = results(index)
        np.testing.assert_allclose(result["vmap"], result["batch"], rtol=2e-5, atol=2e-5)

    def test_training_keeps_structure_and_gives_finite_gradients(self, index):
        _, params, state, x = made(index)
        new, (grads, grad_x) = results(index)["new"], results(index)["gradients"]
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
        assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
        assert grad_x.shape == x.shape
        assert all(bool(np.isfinite(g).all()) for g in jax.tree.leaves((grads, grad_x)))

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bf16", "f64"])
    def test_dtype_is_kept(self, index, dtype, strict_promotion):
        net, _, _, x = made(index)
        if isinstance(net, layers.FlaxModule):  # gives float32 unless it is told a dtype
            net = layers.FlaxModule("flax", nn.Conv(3, (2, 2), dtype=dtype))
        with jax.enable_x64(dtype == jnp.float64):
            shapes = jax.eval_shape(
                lambda key: jaxd2l.init(net, key, x.shape[1:], dtype=dtype), jax.random.key(0)
            )
            assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} <= {jnp.dtype(dtype)}
            batch = jax.ShapeDtypeStruct(x.shape, dtype)
            call = functools.partial(run, net, train=True, key=jax.random.key(0))
            y, new = jax.eval_shape(call, *shapes, batch)
            assert y.dtype == dtype
            assert jax.tree.map(lambda a: a.dtype, new) == jax.tree.map(
                lambda a: a.dtype, shapes[1]
            )

    def test_an_equal_record_is_equal_hashes_equal_and_is_not_traced_again(self, index):
        net, params, state, x = made(index)
        first = results(index)["batch"]
        twin = net
        if IDS[index] not in ("function", "flax"):
            twin = records.load(records.dump(net))
            assert twin == net
            assert hash(twin) == hash(net)
        before = len(traced)
        again = compiled(twin, params, state, x)["batch"]
        assert len(traced) == before
        np.testing.assert_array_equal(again, first)

    def test_repr_names_the_type(self, index):
        net = made(index)[0]
        assert repr(net).startswith(type(net).__name__ + "(")

    def test_summary_counts_what_init_makes(self, index):
        net, params, state, x = made(index)
        table = jaxd2l.summarize(net, x.shape[1:])
        assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert table.statistics == sum(leaf.size for leaf in jax.tree.leaves(state))
        assert table.rows[-1].output_shape == jaxd2l.output_shape(net, x.shape[1:])


def test_the_table_has_every_layer_and_model():
    def kinds(layer):
        yield type(layer).__name__
        for field in ("layers", "branches"):
            for child in getattr(layer, field, ()):
                yield from kinds(child)
        if isinstance(getattr(layer, "layer", None), layers.Layer):
            yield from kinds(layer.layer)

    seen = {kind for _, net, _ in CASES for kind in kinds(net)}
    public = {
        name
        for name, value in vars(layers).items()
        if isinstance(value, type) and issubclass(value, layers.Layer) and value is not layers.Layer
    }
    elsewhere = {"jaxd2l.layers." + name for name in ("attention", "recurrent", "sequence")}
    for name in public - seen:  # in test_contract_sequences.py
        module = vars(layers)[name].__module__
        assert module in elsewhere or name in ("Embedding", "Padded"), name
    small = {n for n in models.names() if n in ("lenet", "mlp") or n.endswith("regression")}
    assert small <= set(IDS)  # the others are in test_contract_models.py
