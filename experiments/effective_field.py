"""What Luo et al. (NIPS 2016, arXiv:1701.04128) say of the effective receptive field, measured:
that it is Gaussian, grows as the root of the depth, by training, by dilation and by strides, and
that skip connections make it smaller.

    python experiments/effective_field.py --out pictures

Random networks of 3x3 convolutions with 8 channels, five of them for each of five seeds, and a
network of eight convolutions trained on the digits. The width is four standard deviations of the
gradient map.
Found: Gaussian (overlaps of 0.97 to 0.98; of a flat field 0.80). From 8 to 32 layers the width goes
from 12 to 26 pixels, the power 0.54 of the depth, the theoretical field from 17 to 65. Twelve
layers: 15.4 pixels, dilated 39, strided 35, with skips 11.3. Training widens it from 12.0 to 13.2
pixels, with skips from 9.1 to 12.5; these two have batch norm. A few runs without it, which learn
slowly here, showed no clear growth.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from trials import settled, wrong

from jaxd2l import data, layers, plot, train
from jaxd2l.analysis import (
    EffectiveReceptiveField,
    effective_receptive_field,
    receptive_field,
)
from jaxd2l.geometry import ReceptiveField
from jaxd2l.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    GlobalAvgPool,
    Identity,
    Layer,
    Parallel,
    Serial,
)
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import HeNormal, XavierNormal

CHANNELS = 8
NETWORKS = 5  # random networks for each seed
SIZE = 65  # of the input of the variants
DIGITS = 32  # where a digit is 23 pixels high


def block(
    number: int, kind: str, stride: int = 1, dilation: int = 1, norm: bool = False
) -> list[Layer]:
    """A norm if asked, an activation unless linear, and a 3x3 convolution that keeps the size (or
    divides it by the stride)."""
    before: list[Layer] = [BatchNorm(f"norm{number}")] if norm else []
    before += [] if kind == "linear" else [Activation(kind)]
    conv = Conv(
        f"conv{number}",
        CHANNELS,
        3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        kernel_init=XavierNormal() if kind == "tanh" else HeNormal(),
    )
    return [*before, conv]


def stack(depth: int, kind: str) -> Layer:
    """Equal blocks, one compiled once."""
    return layers.Repeat(Serial(block(1, kind)), depth)


def variants(depth: int, norm: bool = False) -> dict[str, Layer]:
    """Networks of three equal parts that differ in what the parts do."""
    part = [3 * i // depth for i in range(depth)]  # 0, 0, .., 1, 1, .., 2
    first = [i > 0 and part[i] > part[i - 1] for i in range(depth)]
    steps = {  # (stride, dilation) of each
        "plain": [(1, 1)] * depth,
        "dilated": [(1, 2**p) for p in part],
        "strided": [(1 + f, 1) for f in first],
    }
    blocks = {
        name: [block(i, "relu", *step, norm) for i, step in enumerate(each)]
        for name, each in steps.items()
    }
    blocks["with skips"] = [[Parallel([Identity(), Serial(one)], "add")] for one in blocks["plain"]]
    return {name: Serial([layer for one in each for layer in one]) for name, each in blocks.items()}


def measured(net: Layer, size: int, seed: int) -> EffectiveReceptiveField:
    """The mean over random networks; the batch axis holds one input for each of them."""
    shape = (size, size, CHANNELS)
    keys = jax.random.split(jax.random.key(seed), NETWORKS + 1)
    drawn = [layers.init(net, key, shape)[0] for key in keys[1:]]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)

    def f(x: jax.Array) -> jax.Array:
        def one(case: tuple[Any, jax.Array]) -> jax.Array:
            return layers.apply(net, case[0], {}, case[1][None])[0][0]

        return jax.lax.map(one, (params, x))

    inputs = jax.random.normal(keys[0], (4, NETWORKS, *shape))
    return effective_receptive_field(f, inputs.shape[1:], inputs=inputs)


def theoretical(net: Layer, shape: Sequence[int]) -> tuple[ReceptiveField, ReceptiveField]:
    """The theoretical fields of the rows and of the columns."""
    params, state = layers.init(net, jax.random.key(0), shape)
    rows, columns = receptive_field(lambda x: layers.apply(net, params, state, x)[0], (1, *shape))
    return rows, columns


def mean_width(field: EffectiveReceptiveField) -> float:
    return float(np.mean(field.width))


def gaussian_overlap(field: EffectiveReceptiveField) -> float:
    """How much of the map's profile lies under the Gaussian of the same mean and width."""
    found = []
    for axis in (0, 1):
        profile = field.map.sum(1 - axis)
        deviation = field.width[axis] / 4
        z = (np.arange(len(profile)) - field.mean[axis]) / deviation
        gaussian = np.exp(-(z**2) / 2) / (deviation * math.sqrt(2 * math.pi))
        found.append(np.minimum(profile, gaussian).sum())
    return float(np.mean(found))


def flat(size: int) -> EffectiveReceptiveField:
    """The map of a unit that is moved by all of its theoretical field alike."""
    return EffectiveReceptiveField(np.full((size, size), size**-2.0), None)


def depth(depths: Sequence[int], seeds: int) -> None:
    """Gaussian, and as wide as the root of the depth."""
    shapes, growth, shape_gains, growth_gains = {}, {}, {}, {}
    for kind in ("linear", "relu", "tanh"):
        maps = [[measured(stack(n, kind), 2 * n + 1, s) for s in range(seeds)] for n in depths]
        overlap = np.array([gaussian_overlap(field) for field in maps[-1]])
        shapes[f"{kind}, {depths[-1]} layers: overlap with a Gaussian"] = overlap
        shape_gains[f"{kind}: overlap - 0.95"] = overlap - 0.95
        widths = np.array([[mean_width(field) for field in row] for row in maps])
        for n, row in zip(depths, widths, strict=True):
            growth[f"{kind}, {n} layers: width, where the theoretical field is {2 * n + 1}"] = row
        slopes = np.polyfit(np.log(depths), np.log(widths), 1)[0]
        growth[f"{kind}: exponent of the depth"] = slopes
        growth_gains[f"{kind}: 0.1 - |exponent - 1/2|"] = 0.1 - np.abs(slopes - 0.5)
    size = 2 * depths[-1] + 1
    shapes["a flat field of that size: overlap"] = np.full(seeds, gaussian_overlap(flat(size)))
    print_claim("ERF1", "The effective field of random networks is Gaussian.", shapes, shape_gains)
    print()
    print_claim(
        "ERF2", "Its width grows as the root of the depth, not as the depth.", growth, growth_gains
    )


def kinds(image: np.ndarray, number: int, seeds: int, out: Path) -> list[Path]:
    """Dilation and strides widen it, skip connections do not let it grow."""
    figures, widths, written = {}, {}, []
    for name, net in variants(number).items():
        maps = [measured(net, SIZE, seed) for seed in range(seeds)]
        widths[name] = np.array([mean_width(field) for field in maps])
        fields = theoretical(net, (SIZE, SIZE, CHANNELS))
        figures[f"{name}: width, theoretical field {fields[0].size}"] = widths[name]
        place = out / f"effective_{name.replace(' ', '_')}.png"
        title = f"{number} layers, {name}"
        written.append(plot.effective_field(image, maps[0], place, title, fields=fields))
    gains = {
        "log2 of how many times as wide, dilated": np.log2(widths["dilated"] / widths["plain"]),
        "log2 of how many times as wide, strided": np.log2(widths["strided"] / widths["plain"]),
        "log2 of how many times narrower, with skips": np.log2(
            widths["plain"] / widths["with skips"]
        ),
    }
    claim = "Dilation and strides widen it, skip connections make it smaller."
    print_claim("ERF3", claim, figures, gains)
    return written


def training(number: int, seeds: int, epochs: int, out: Path) -> list[Path]:
    """It grows by training."""
    parts = data.train_test_split(data.load_digits(DIGITS), 0.2)
    shape = parts.train.inputs.shape[1:]
    figures, gains, written = {}, {}, []
    for name in ("plain", "with skips"):
        stem = Conv("stem", CHANNELS, 3, padding=1)
        body = Serial([stem, variants(number - 1, norm=True)[name]])
        head = [BatchNorm("norm"), Activation("relu"), GlobalAvgPool(), Dense("output", 10)]
        net = Serial([body, *head])
        one = jax.jit(before_and_after(net, parts, epochs))
        widths: dict[str, list[float]] = {"before": [], "after": []}
        accuracy = []
        fields = theoretical(body, shape)
        for seed in range(seeds):
            *both, right = one(jax.random.key(seed))
            accuracy.append(100 * float(right))
            for when, (params, state) in zip(widths, both, strict=True):
                found = seen_by(body, params, state, parts.test.inputs)
                widths[when].append(mean_width(found))
                if seed == 0:
                    place = out / f"effective_{name.replace(' ', '_')}_{when}_training.png"
                    title = f"{number} layers, {name}, {when} training"
                    image = parts.test.inputs[0]
                    written.append(plot.effective_field(image, found, place, title, fields=fields))
        for when, values in widths.items():
            figures[f"{name}, {when}: width, theoretical field {fields[0].size}"] = np.array(values)
        figures[f"{name}, after: test accuracy, %"] = np.array(accuracy)
        gains[f"log2 of how many times as wide, {name}"] = np.log2(
            np.array(widths["after"]) / np.array(widths["before"])
        )
    print_claim("ERF4", "It grows by training.", figures, gains)
    return written


def before_and_after(
    net: Layer, parts: data.Parts, epochs: int
) -> Callable[[jax.Array], tuple[Any, Any, jax.Array]]:
    """From a key: (params, state) before and after training, and the share right in the test."""
    run = train.make_run(
        net, losses.softmax_cross_entropy, optax.adam, epochs=epochs, batch_size=32
    )

    def one(key: jax.Array) -> tuple[Any, Any, jax.Array]:
        start = layers.init(net, key, parts.train.inputs.shape[1:])
        hyper = {"learning_rate": 4e-3}
        end, _ = run(key, parts.train, hyper, start)
        before, after = ((params, settled(net, params, parts.train)) for params in (start[0], end))
        return before, after, 1 - wrong(net, *after, parts.test)

    return one


def seen_by(body: Layer, params: Any, state: Any, images: np.ndarray) -> EffectiveReceptiveField:
    """The field of the body's last feature map, over ten batches of real images."""
    batches = jnp.asarray(images[:320]).reshape(10, -1, *images.shape[1:])
    own, its = (
        {name: leaves for name, leaves in tree.items() if name not in ("norm", "output")}
        for tree in (params, state)
    )
    return effective_receptive_field(
        lambda x: layers.apply(body, own, its, x)[0], batches.shape[1:], inputs=batches
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    options = parser.parse_args(arguments)
    image = data.load_digits(SIZE).inputs[0]
    depth(options.depths, options.seeds)
    print()
    written = kinds(image, 12, options.seeds, options.out)
    print()
    written += training(8, options.seeds, options.epochs, options.out)
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
