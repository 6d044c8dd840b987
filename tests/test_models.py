"""The published networks: sizes, options, starting values, and what they refuse."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models
from jaxd2l.ops import initializers


def parameters(net, shape):
    return jaxd2l.summarize(net, shape).parameters


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("net", "shape", "count"),
    [
        (models.softmax_regression(), (28, 28, 1), 7_850),
        (models.mlp(), (28, 28, 1), 203_530),
        (models.mlp((256, 256)), (28, 28, 1), 784 * 256 + 256 + 256 * 257 + 2_570),
        (models.mlp(()), (28, 28, 1), 7_850),
        (models.lenet(), (28, 28, 1), 61_706),
        (models.lenet(10, "sigmoid", "avg"), (28, 28, 1), 61_706),
        (models.lenet(26), (28, 28, 1), 61_706 + 16 * 85),
        (models.lenet(batch_norm=True), (28, 28, 1), 61_706 + 6 + 16 + 120 + 84),
        (models.linear_regression(), (2,), 3),
        (models.linear_regression(3), (4,), 15),
        (models.logistic_regression(), (2, 2), 5),
        (models.polynomial_regression(), (1,), 4),
        (models.polynomial_regression(5), (1,), 6),
    ],
)
def test_parameter_counts(net, shape, count):
    assert parameters(net, shape) == count


def test_feature_maps_of_lenet():
    sizes = [s.output_shape[0] for s in layers.walk(models.lenet(), (28, 28, 1))]
    assert sizes == [28, 28, 14, 10, 10, 5, 400, 120, 120, 84, 84, 10]


def test_batch_normalised_lenet_has_no_redundant_biases():
    # C92: a bias before a batch norm is subtracted again by the mean.
    params, state = jaxd2l.init(models.lenet(batch_norm=True), jax.random.key(0), (16, 16, 1))
    for name in ("conv1", "conv2", "dense1", "dense2"):
        assert set(params[name]) == {"kernel"}
        assert set(params[f"{name}_bn"]) == {"scale", "bias"}
        assert set(state[f"{name}_bn"]) == {"mean", "var"}
    assert set(params["output"]) == {"kernel", "bias"}


def test_lenet_options_choose_the_layers():
    kinds = {type(s.layer) for s in layers.walk(models.lenet(pooling="avg"), (28, 28, 1))}
    assert layers.AvgPool in kinds
    assert layers.MaxPool not in kinds
    acts = [
        s.layer.kind
        for s in layers.walk(models.lenet(activation="sigmoid"), (28, 28, 1))
        if isinstance(s.layer, layers.Activation)
    ]
    assert acts == ["sigmoid"] * 4


def test_mlp_drops_after_each_hidden_layer_with_its_own_rate():
    net = models.mlp((6, 5), dropout=(0.2, 0.5))
    rates = {s.path: s.layer.rate for s in layers.walk(net, (4,)) if "drop" in s.path}
    assert rates == {"dropout1": 0.2, "dropout2": 0.5}
    params, state = jaxd2l.init(net, jax.random.key(0), (4,))
    with pytest.raises(ValueError, match="layer 'dropout1' is random"):
        jaxd2l.apply(net, params, state, jnp.ones((2, 4)), train=True)


def test_how_the_networks_start():
    kernel = jaxd2l.init(models.softmax_regression(), jax.random.key(0), (400,))[0]["output"]
    assert abs(float(kernel["kernel"].std()) - 0.01) < 5e-4
    assert not kernel["bias"].any()
    for net in (
        models.linear_regression(),
        models.logistic_regression(),
        models.polynomial_regression(),
    ):
        assert net.layers[-1].kernel_init == initializers.Normal(0.01)
    limit = np.sqrt(6 / (784 + 256))  # Xavier
    dense = jaxd2l.init(models.mlp(), jax.random.key(0), (784,))[0]["dense1"]["kernel"]
    assert 0.99 * limit < float(jnp.abs(dense).max()) <= limit


def test_polynomial_regression_computes_the_polynomial_of_the_book():
    # D2L: y = 5 + 1.2 x - 3.4 x^2/2! + 5.6 x^3/3!
    net = models.polynomial_regression(3)
    weights = {"kernel": jnp.asarray([[1.2], [-3.4], [5.6]]), "bias": jnp.asarray([5.0])}
    x = np.linspace(-2, 2, 5, dtype=np.float32).reshape(-1, 1)
    y, _ = jaxd2l.apply(net, {"linear": weights}, {}, x)
    np.testing.assert_allclose(y, 5 + 1.2 * x - 3.4 * x**2 / 2 + 5.6 * x**3 / 6, rtol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_every_name_builds_and_describes_itself(name):
    net = models.build(name)
    assert net == models.build(name, **models.options(name))
    assert net == operator.attrgetter(name)(models)()
    assert models.description(name).endswith(".")
    assert "\n" not in models.description(name)


def test_the_norm_stands_before_the_activation_or_after_it():
    def kinds(**options):
        net = models.lenet(batch_norm=True, **options)
        return [type(s.layer).__name__ for s in layers.walk(net, (28, 28, 1))][:3]

    assert kinds() == ["Conv", "BatchNorm", "Activation"]
    assert kinds(norm_position="after") == ["Conv", "Activation", "BatchNorm"]
    table = jaxd2l.summarize(models.lenet(batch_norm=True, norm_position="after"), (28, 28, 1))
    assert table.parameters == 61_706 + 2 * (6 + 16 + 120 + 84)  # the biases stay


def test_names_are_sorted_and_options_have_their_defaults():
    assert list(models.names()) == sorted(models.names())
    assert models.options("lenet") == {
        "num_classes": 10,
        "activation": "relu",
        "pooling": "max",
        "batch_norm": False,
        "norm_position": "before",
    }


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: models.build("resnet"),
            ValueError,
            r"no network 'resnet'; did you mean resnet\d+ or",
        ),
        (lambda: models.options("x"), ValueError, "no network 'x'; there are alexnet, "),
        (lambda: models.description("x"), ValueError, "there is no network 'x'"),
        (lambda: models.build("mlp", width=3), ValueError, "'mlp' has no option 'width'; it has "),
        (lambda: models.lenet(pooling="min"), ValueError, "pooling must be one of .*'min'"),
        (lambda: models.lenet(activation="rleu"), ValueError, "unknown kind 'rleu'"),
        (lambda: models.lenet(norm_position="x"), ValueError, "norm_position must be one of .*'x'"),
        (lambda: models.lenet(num_classes=0), ValueError, "features must be at least 1"),
        (lambda: models.lenet(batch_norm="yes"), TypeError, "batch_norm must be True or False"),
        (lambda: models.mlp((0,)), ValueError, "features must be at least 1"),
        (lambda: models.mlp(256), TypeError, "hidden must be a sequence of widths, got 256"),
        (lambda: models.mlp((8,), dropout=0.5), TypeError, "dropout must be a sequence of rates"),
        (
            lambda: models.mlp((8, 8), dropout=(0.5,)),
            ValueError,
            "one rate per hidden layer, got 1",
        ),
        (lambda: models.mlp((8,), dropout=(2,)), ValueError, "Dropout 'dropout1': rate"),
        (lambda: models.polynomial_regression(0), ValueError, "degree must be at least 1"),
    ],
)
def test_options_that_make_no_sense(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_image_too_small_for_lenet_says_which_layer():
    with pytest.raises(ValueError, match=r"kernel|larger") as excinfo:
        jaxd2l.init(models.lenet(), jax.random.key(0), (8, 8, 1))
    assert "in layer 'conv2'" in " ".join(excinfo.value.__notes__)
