"""Outputs of Keras' MobileNet and Xception; run with Keras (any backend) installed.

Weights and images are not stored: tests draw them again, each array from the checksum of its path.
"""

import re
import zlib
from pathlib import Path

import keras
import numpy as np

LEAVES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}


def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    rng, leaf = np.random.RandomState(zlib.crc32(path.encode())), path.rsplit("/")[-1]
    if leaf == "var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf == "kernel":
        return (rng.randn(*shape) * np.sqrt(1 / np.prod(shape[:-1]))).astype(np.float32)
    return (rng.randn(*shape) * 0.1 + (leaf == "scale")).astype(np.float32)


def xception_path(name: str, shortcuts: list[str]) -> str:
    if name in shortcuts:
        number = shortcuts.index(name) // 2 + 1
        block = f"entry{number}" if number < 4 else "exit"
        return f"{block}/shortcut/" + ("conv" if name.startswith("conv") else "bn")
    if name == "predictions":
        return "output"
    if found := re.fullmatch(r"block1_conv(\d)(_bn)?", name):
        return f"conv{found[1]}/" + ("bn" if found[2] else "conv")
    block, number, bn = re.fullmatch(r"block(\d+)_sepconv(\d)(_bn)?", name).groups()
    if int(block) < 5:
        block = f"entry{int(block) - 1}/"
    elif int(block) < 13:
        block = f"middle[{int(block) - 5}]/"
    else:
        block = "exit/" if block == "13" else ""
    return f"{block}bn{number}" if bn else f"{block}separable{number}"


def mobilenet_path(name: str) -> str:
    if name == "conv_preds":
        return "output"
    if found := re.fullmatch(r"conv1(_bn)?", name):
        return "stem/" + ("bn" if found[1] else "conv")
    kind, number, bn = re.fullmatch(r"conv_(dw|pw)_(\d+)(_bn)?", name).groups()
    part = {"dw": "depthwise", "pw": "pointwise"}[kind]
    return f"block{number}/{part}/" + ("bn" if bn else "conv")


def fill(model: keras.Model, path_of) -> None:
    for layer in model.layers:
        values = []
        for weight in layer.weights:
            path, leaf, shape = path_of(layer.name), weight.name, tuple(weight.shape)
            leaf = leaf.replace("depthwise_", "depthwise/").replace("pointwise_", "pointwise/")
            path = f"{path}/{LEAVES.get(leaf, leaf)}"
            drawn = shape
            if "depthwise/" in path and path.endswith("kernel"):
                drawn = (*shape[:2], 1, shape[2])  # Keras has (kh, kw, c, 1)
            elif path == "output/kernel":
                drawn = shape[-2:]  # MobileNet's last layer is a 1x1 convolution
            values.append(draw(path, drawn).reshape(shape))
        if values:
            layer.set_weights(values)


def main() -> None:
    out = {}
    net = keras.applications.MobileNet(
        (64, 64, 3), alpha=0.25, weights=None, classes=10, classifier_activation=None
    )
    fill(net, mobilenet_path)
    x = np.random.RandomState(0).randn(2, 64, 64, 3).astype(np.float32)
    out["mobilenet_v1"] = np.asarray(net(x, training=False))

    net = keras.applications.Xception(
        input_shape=(71, 71, 3), weights=None, classes=10, classifier_activation=None
    )
    names = [layer.name for layer in net.layers if layer.weights]
    shortcuts = sorted(
        (name for name in names if name.startswith(("conv2d", "batch_normalization"))),
        key=names.index,
    )
    fill(net, lambda name: xception_path(name, shortcuts))
    x = np.random.RandomState(0).randn(2, 71, 71, 3).astype(np.float32)
    out["xception"] = np.asarray(net(x, training=False))
    np.savez_compressed(Path(__file__).with_name("keras.npz"), **out)


if __name__ == "__main__":
    main()
