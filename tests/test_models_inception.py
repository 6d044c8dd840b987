"""Inception blocks, GoogLeNet, Inception v3, and their auxiliary heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import apply, data, init, layers, models, output_shape, records, summarize, train
from jaxd2l.geometry import bottleneck_ratio, factorised_ratio
from jaxd2l.layers import AvgPool, BatchNorm, Conv, Dense, Dropout, MaxPool, Serial, walk
from jaxd2l.models import auxiliary, blocks, d2l
from jaxd2l.models.auxiliary import AuxiliaryHead, WithAuxiliary
from jaxd2l.models.googlenet import STAGES
from jaxd2l.ops import metrics
from jaxd2l.ops.losses import softmax_cross_entropy

IMAGENET, BIG, BOOK = (224, 224, 3), (299, 299, 3), (96, 96, 1)
TINY = (4, (3, 5), (2, 3), 2)


def sizes(net, shape):
    """The output shape of each child that changes it."""
    shapes = [shape]
    for layer in net.layers:
        shape = output_shape(layer, shape)
        if shape != shapes[-1]:
            shapes.append(shape)
    return shapes[1:]


def leaves(tree):
    return layers.shapes.array_paths(tree)


def shapes_of(config, shape):
    """(params, state) of a network with heads, shapes only."""
    return jax.eval_shape(lambda k: auxiliary.init(config, k, shape), jax.random.key(0))


def compiled(f):
    """What a generator yields, as one quickly compiled program."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(lambda *args: list(f(*args)), compiler_options=options)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("net", "shape", "parameters"),
    [
        (models.googlenet(), IMAGENET, 6_624_904),
        (models.inception_v3(), BIG, 23_834_568),
        (d2l.googlenet(), BOOK, 5_977_530),
    ],
)
def test_parameters(net, shape, parameters):
    """M12, M18; and once more from the kernels alone."""
    assert summarize(net, shape).parameters == parameters
    total = 0
    for step in walk(net, shape):
        layer, inputs = step.layer, step.input_shape[-1]
        if isinstance(layer, BatchNorm):
            total += 2 * inputs
        elif isinstance(layer, Conv | Dense):
            taps = int(np.prod(getattr(layer, "kernel", 1)))
            total += layer.features * (taps * inputs + layer.bias)
    assert total == parameters


@pytest.mark.parametrize(
    ("config", "shape", "parameters"),
    [
        (models.googlenet_auxiliary(), IMAGENET, 13_004_888),
        (models.inception_v3_auxiliary(), BIG, 27_161_264),
    ],
)
def test_parameters_with_heads(config, shape, parameters):
    """torchvision's figures; the plain network's arrays are among them, at the same paths."""
    params, state = shapes_of(config, shape)
    assert count(params) == parameters
    both = jax.eval_shape(lambda k: init(config.net, k, shape), jax.random.key(0))
    assert leaves(auxiliary.plain(config, params)) == leaves(both[0])
    assert leaves(auxiliary.plain(config, state)) == leaves(both[1])


def test_the_shapes_that_the_book_prints():
    """D2L 8.4: the five blocks for 96 pixels end in 24x24x64, 12x12x192, 6x6x480, 3x3x832, 1024."""
    shapes = sizes(d2l.googlenet(), BOOK)
    for printed in ((24, 24, 64), (12, 12, 192), (6, 6, 480), (3, 3, 832), (1024,), (10,)):
        assert printed in shapes
    assert shapes[-4:] == [(3, 3, 832), (3, 3, 1024), (1024,), (10,)]


def test_the_shapes_of_the_published_networks():
    assert sizes(models.googlenet(), IMAGENET) == [
        (112, 112, 64),
        (56, 56, 64),
        (56, 56, 192),
        (28, 28, 192),
        (28, 28, 256),
        (28, 28, 480),
        (14, 14, 480),
        (14, 14, 512),
        (14, 14, 528),
        (14, 14, 832),
        (7, 7, 832),
        (7, 7, 1024),
        (1024,),
        (1000,),
    ]
    assert sizes(models.inception_v3(), BIG) == [
        (149, 149, 32),
        (147, 147, 32),
        (147, 147, 64),
        (73, 73, 64),
        (73, 73, 80),
        (71, 71, 192),
        (35, 35, 192),
        (35, 35, 256),
        (35, 35, 288),
        (17, 17, 768),
        (8, 8, 1280),
        (8, 8, 2048),
        (2048,),
        (1000,),
    ]


def test_names_are_those_of_torchvision():
    names = [layer.name for layer in models.googlenet().layers if layer.name]
    assert names[3:12] == [
        f"inception{i}{s}" for i, n in ((3, 2), (4, 5), (5, 2)) for s in "abcde"[:n]
    ]
    names = [layer.name for layer in models.inception_v3().layers if layer.name]
    assert names[5:16] == [
        f"mixed_{i}{s}" for i, part in ((5, "bcd"), (6, "abcde"), (7, "abc")) for s in part
    ]
    paths = {row.path for row in summarize(models.inception_v3(), BIG).rows}
    assert {"mixed_5b/branch1x1/conv", "mixed_7c/branch3x3dbl_3b/bn", "output"} <= paths


def test_norms_and_dropout_are_those_of_torchvision():
    for net, shape, rate in (
        (models.googlenet(), IMAGENET, 0.2),
        (models.inception_v3(), BIG, 0.5),
    ):
        norms = [s.layer for s in walk(net, shape) if isinstance(s.layer, BatchNorm)]
        convs = [s.layer for s in walk(net, shape) if isinstance(s.layer, Conv)]
        assert {(n.eps, n.decay, n.unbiased) for n in norms} == {(1e-3, 0.9, True)}
        assert len(convs) == len(norms)
        assert not any(conv.bias for conv in convs)
        rates = [s.layer.rate for s in walk(net, shape) if isinstance(s.layer, Dropout)]
        assert rates == [rate]
    pools = [s.layer for s in walk(models.googlenet(), IMAGENET) if isinstance(s.layer, MaxPool)]
    outer = [pool for pool in pools if pool.stride == (2, 2)]
    assert [pool.kernel[0] for pool in outer] == [3, 3, 3, 2]
    assert all(pool.ceil_mode for pool in outer)
    pools = [s.layer for s in walk(models.inception_v3(), BIG) if isinstance(s.layer, AvgPool)]
    assert len(pools) == 9
    assert all(pool.count_include_pad for pool in pools)


def test_all_four_paths_keep_the_size():
    """C129, M12: only the features are tuned."""
    for shape in ((28, 28, 192), (7, 5, 3)):
        for kernel in (3, 5):
            block = blocks.inception_block("block", TINY, last_kernel=kernel)
            paths = [output_shape(branch, shape) for branch in block.branches]
            assert paths == [(*shape[:2], features) for features in (4, 5, 3, 2)]
            assert output_shape(block, shape) == (*shape[:2], 14)


def test_the_bottleneck_saves_multiplications():
    """F11, C129: 28x28x192 to 32 by 5x5 through 16 features costs 9.68 times less."""
    block = blocks.inception_block("3a", (64, (96, 128), (16, 32), 32))
    third = summarize(block.branches[2], (28, 28, 192)).macs
    direct = summarize(blocks.conv_relu("conv", 32, 5), (28, 28, 192)).macs
    assert round(direct / third, 2) == 9.68
    assert direct / third == float(1 / bottleneck_ratio((5, 5), 192, 16, 32))
    second = summarize(block.branches[1], (28, 28, 192)).macs
    assert direct == 120_422_400
    full = 28 * 28 * 9 * 192 * 128
    assert round(full / second, 2) == 1.71  # 96 features are little of a bottleneck


def test_factorised_convolutions_cost_less():
    """1x7 and 7x1 cost 2/7 of a 7x7, and two 3x3 what 18/25 of a 5x5 does; both see as much."""
    rows = summarize(blocks.inception_c("c", 128), (17, 17, 768)).rows
    macs = {row.path: row.macs for row in rows}
    pair = macs["c/branch7x7dbl_2/conv"] + macs["c/branch7x7dbl_3/conv"]
    whole = summarize(Conv("conv", 128, 7, padding=3), (17, 17, 128)).macs
    assert pair / whole == float(factorised_ratio(7))
    fields = {row.path: row.receptive_field for row in rows}
    assert fields["c/branch7x7_3/conv"] == (7, 7)
    assert fields["c/branch7x7dbl_5/conv"] == (13, 13)

    fields = {
        row.path: row.receptive_field
        for row in summarize(blocks.inception_a("a", 32), (35, 35, 192)).rows
    }
    assert fields["a/branch3x3dbl_3/conv"] == fields["a/branch5x5_2/conv"] == (5, 5)
    fields = {
        row.path: row.receptive_field
        for row in summarize(blocks.inception_e("e"), (8, 8, 1280)).rows
    }
    assert fields["e/branch3x3_2a/conv"] == (1, 3)
    assert fields["e/branch3x3_2b/conv"] == (3, 1)
    assert fields["e/branch3x3dbl_3b/conv"] == (5, 3)


def test_an_inception_block_by_hand(key, strict_promotion):
    """Against lax: paths in the order of the book, biases drawn too."""
    shape = (6, 5, 3)
    net = blocks.inception_block("block", TINY)
    bias = {"*/bias": lambda k, shape, dtype, fan: jax.random.normal(k, shape, dtype)}
    params, state = init(net, key, shape, initializers=bias)
    x = jax.random.normal(key, (2, *shape))

    def conv(x, p):
        y = jax.lax.conv_general_dilated(
            x, p["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.maximum(y + p["bias"][None, None, None], 0)

    p = params["block"]
    pool = (-jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    @compiled
    def paths(x):
        yield conv(x, p["branch1"])
        yield conv(conv(x, p["branch2"]["conv1"]), p["branch2"]["conv2"])
        yield conv(conv(x, p["branch3"]["conv1"]), p["branch3"]["conv2"])
        yield conv(jax.lax.reduce_window(x, *pool), p["branch4"])

    assert p["branch3"]["conv2"]["kernel"].shape == (5, 5, 2, 3)
    y = jax.jit(lambda x: apply(net, params, state, x)[0])(x)
    np.testing.assert_allclose(y, np.concatenate(paths(x), -1), rtol=1e-5, atol=1e-5)


def test_blocks_of_any_width():
    """All features of a narrow Inception are those of the full one times its width."""
    shapes = sizes(models.inception_v3(7, width=1 / 16), BIG)
    full = sizes(models.inception_v3(), BIG)
    assert [s[-1] for s in shapes[:-1]] == [s[-1] // 16 for s in full[:-1]]
    assert shapes[-1] == (7,)
    shapes = sizes(models.inception_v3(a=(32,), c=(128,), e=1), BIG)
    assert shapes[7:] == [
        (35, 35, 256),
        (17, 17, 736),  # 384 + 96 + the 256 that the pool keeps
        (17, 17, 768),
        (8, 8, 1280),
        (8, 8, 2048),
        (2048,),
        (1000,),
    ]


# --- auxiliary heads ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Two layers with norms and dropout, and a head on each."""
    net = Serial(
        [
            blocks.conv_norm("conv1", 4, 3, 2),
            MaxPool(2),
            blocks.conv_norm("conv2", 6, 3),
            layers.GlobalAvgPool(),
            Dropout("dropout", 0.3),
            Dense("output", 3),
        ]
    )

    def head(name):
        parts = [layers.GlobalAvgPool(), Dropout("dropout", 0.5), Dense("output", 3)]
        return Serial(parts, name=name)

    heads = [AuxiliaryHead("conv1", head("aux1")), AuxiliaryHead("conv2", head("aux2"))]
    config = WithAuxiliary(net, heads, 0.3)
    return config, *auxiliary.init(config, jax.random.key(0), (12, 12, 1))


def test_the_plain_network_is_the_same_with_and_without_heads(small):
    """The same arrays, outputs, masks of dropout and statistics, with padding too."""
    config, params, state = small
    own, statistics = init(config.net, jax.random.key(0), (12, 12, 1))
    same = jax.tree.map(np.array_equal, own, auxiliary.plain(config, params))
    assert all(jax.tree.leaves(same))
    mask = jnp.array([True, True, True, False])

    @compiled
    def run(x):
        for call in ({}, {"train": True, "key": jax.random.key(2), "mask": mask}):
            plain = apply(config.net, own, statistics, x, **call)
            (logits, *_), new = auxiliary.apply(config, params, state, x, **call)
            yield plain, (logits, auxiliary.plain(config, new)), new

    results = run(jax.random.normal(jax.random.key(1), (4, 12, 12, 1)))
    for plain, ours, new in results:
        equal = jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), plain, ours)
        assert jax.tree.structure(plain) == jax.tree.structure(ours), equal
        assert new.keys() == state.keys()
    means = [new["conv1"]["bn"]["mean"] for _, _, new in results]
    assert not means[0].any()
    assert means[1].any()


def test_heads_read_the_layer_they_stand_after(small):
    config, params, state = small
    x = jax.random.normal(jax.random.key(1), (4, 12, 12, 1))

    @compiled
    def run(x):
        yield auxiliary.apply(config, params, state, x)[0]
        part = {"conv1": params["conv1"]}
        yield apply(config.net.layers[0], part, {"conv1": state["conv1"]}, x)[0]

    (_, first, second), features = run(x)
    dense = params["aux1"]["output"]
    expected = features.mean((1, 2)) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(first, second)
    assert params["aux2"]["output"]["kernel"].shape == (6, 3)


def test_the_loss_adds_the_heads_by_weight(small):
    config = small[0]
    logits = jax.random.normal(jax.random.key(3), (3, 5, 3))
    labels = jnp.array([0, 2, 1, 1, 0])
    parts = [softmax_cross_entropy(y, labels) for y in logits]
    whole = auxiliary.loss(config, tuple(logits), labels)
    np.testing.assert_allclose(whole, parts[0] + 0.3 * parts[1] + 0.3 * parts[2], rtol=1e-6)
    assert models.inception_v3_auxiliary().weight == 0.4
    assert models.googlenet_auxiliary().weight == 0.3


def test_a_network_with_heads_trains(small):
    """`fit` takes it as a `Model`; afterwards the plain network runs on its part."""
    config = small[0]
    model = train.Model(
        functools.partial(auxiliary.init, config), functools.partial(auxiliary.apply, config)
    )
    labels = np.arange(24) % 3
    noise = np.random.RandomState(0).normal(size=(24, 12, 12, 1))
    dataset = data.Dataset((noise + labels[:, None, None, None]).astype(np.float32), labels)
    result = train.fit(
        model,
        dataset,
        test=dataset,
        loss=functools.partial(auxiliary.loss, config),
        metrics={"accuracy": lambda outputs, targets: metrics.correct(outputs[0], targets)},
        optimizer=optax.adam(0.02),
        epochs=25,
        batch_size=10,  # the last batch is padded
    )
    losses = [record["train_loss"] for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    params, state = (auxiliary.plain(config, t) for t in (result.params, result.state))
    logits, _ = apply(config.net, params, state, jnp.asarray(dataset.inputs))
    share = float((logits.argmax(-1) == labels).mean())
    assert share == pytest.approx(result.history[-1]["test_accuracy"])
    assert share > 0.8
    outputs, _ = auxiliary.apply(config, result.params, result.state, jnp.asarray(dataset.inputs))
    for head in outputs[1:]:  # they learn too: uniform logits would give log 3
        assert softmax_cross_entropy(head, jnp.asarray(labels)).mean() < 0.8 * np.log(3)


@pytest.mark.slow
def test_a_narrow_googlenet_takes_a_step_with_its_heads():
    narrow = [[TINY] * len(stage) for stage in STAGES]
    config = models.googlenet_auxiliary(3, stem=(4, 4, 6), stages=narrow, head=(4, 8))
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params, state = auxiliary.init(config, jax.random.key(1), x.shape[1:])

    @jax.jit
    def gradient(params):
        def loss(params):
            outputs, _ = auxiliary.apply(
                config, params, state, x, train=True, key=jax.random.key(2)
            )
            return auxiliary.loss(config, outputs, jnp.array([0, 2])).mean()

        return jax.grad(loss)(params)

    norms = jax.tree.map(jnp.linalg.norm, jax.tree.map(jnp.ravel, gradient(params)))
    for name in ("conv1", "inception4a", "inception4e", "aux1", "aux2", "output"):
        assert max(float(n) for n in jax.tree.leaves(norms[name])) > 0
    assert all(np.isfinite(n) for n in jax.tree.leaves(norms))


def test_a_network_with_heads_is_a_record(small):
    config = small[0]
    assert records.load(records.dump(config)) == config
    assert hash(models.googlenet_auxiliary()) == hash(models.googlenet_auxiliary())
    assert models.googlenet_auxiliary() != models.googlenet_auxiliary(10)


def test_what_cannot_be_put_together_is_refused(small):
    config, params, state = small
    net, head = config.net, config.heads[0]
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        WithAuxiliary(net, [AuxiliaryHead("conv9", head.layer)], 0.3)
    with pytest.raises(ValueError, match="two layers are named 'aux1'"):
        WithAuxiliary(net, [head, head], 0.3)
    with pytest.raises(ValueError, match="two layers are named 'output'"):
        WithAuxiliary(net, [AuxiliaryHead("conv1", Dense("output", 3))], 0.3)
    with pytest.raises(TypeError, match="layer with a name"):
        AuxiliaryHead("conv1", Serial([Dense("dense", 3)]))
    with pytest.raises(TypeError, match="unnamed Serial"):
        WithAuxiliary(Dense("dense", 3), [], 0.3)
    with pytest.raises(TypeError, match="must be AuxiliaryHeads"):
        WithAuxiliary(net, [head.layer], 0.3)
    with pytest.raises(ValueError, match="weight must be >= 0"):
        WithAuxiliary(net, [head], -1.0)
    with pytest.raises(ValueError, match="params has 'aux3'"):
        auxiliary.apply(config, params | {"aux3": {}}, state, jnp.zeros((1, 12, 12, 1)))
    with pytest.raises(ValueError, match="layer 'aux1/dropout' is random"):
        auxiliary.apply(config, params, state, jnp.zeros((1, 12, 12, 1)), train=True)
    with pytest.raises(ValueError, match="no layer 'inception4d'"):
        models.googlenet_auxiliary(stages=[[TINY]] * 3)
