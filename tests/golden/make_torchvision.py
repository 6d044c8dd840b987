"""Make torchvision.npz: outputs and statistics of torchvision's networks, in float64.

Run with an interpreter that has PyTorch, NumPy, Pillow and torchvision: python
tests/golden/make_torchvision.py. Only torchvision's definitions are needed; where its compiled
operators are missing, they are declared here without a body.

Weights and inputs come from `weights` and `images`, which the test calls too: they depend on the
names and shapes alone and are exact in float32. Dropout is off. Of every running mean and variance
one projection on random numbers is kept.
"""

import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """Pixels and images of the run; the width of hidden dense layers where it is not torchvision's;
    whether auxiliary heads are on; torchvision's name and options of a smaller network."""

    size: int
    batch: int = 4
    hidden: int | None = None
    heads: bool = False
    smaller: tuple = ()


CLASSES = 10
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 1))
CASES = {
    "alexnet": Case(64, 2),
    "alexnet narrow": Case(64, 2, hidden=32),
    "vgg11 narrow": Case(32, 2, hidden=32),
    "vgg13 narrow": Case(32, 2, hidden=32),
    "vgg16 narrow": Case(32, 2, hidden=32),
    "vgg19 narrow": Case(32, 2, hidden=32),
    "resnet18": Case(64),
    "resnet34": Case(64),
    "resnet50": Case(64),
    "resnet101": Case(64),
    "resnet152": Case(64),
    "resnext50_32x4d": Case(64),
    "wide_resnet50_2": Case(64),
    "densenet small": Case(
        32,
        smaller=("DenseNet", {"growth_rate": 8, "block_config": (2, 3), "num_init_features": 16}),
    ),
    "densenet121": Case(64),
    "densenet161": Case(64),
    "densenet169": Case(64),
    "densenet201": Case(64),
    "googlenet": Case(64),
    "googlenet heads": Case(96, heads=True),
    "inception_v3": Case(107, 2),
    "inception_v3 heads": Case(299, 3, heads=True),
    "mobilenet_v2 small": Case(32, smaller=("mobilenet_v2", {"inverted_residual_setting": BLOCKS})),
    "mobilenet_v2": Case(64),
    "shufflenet_v2_x0_5": Case(64),
    "shufflenet_v2_x1_0": Case(64),
    "shufflenet_v2_x1_5": Case(64),
    "shufflenet_v2_x2_0": Case(64),
    "squeezenet1_0": Case(66),
    "squeezenet1_1": Case(66),
}


def uniform(name, shape):
    """Float32 numbers between -1 and 1, multiples of 2**-15, that depend on `name` alone."""
    random = np.random.RandomState([3, zlib.crc32(name.encode())])
    integers = np.frombuffer(random.bytes(2 * int(np.prod(shape))), "<i2")
    return (integers.astype(np.float32) / 2**15).reshape(shape)


def weight(key, shape):
    """The array of a state_dict: kernels with He's variance, scales and variances around 1.

    So that float32 is exact enough, few ReLUs of the Inceptions are shut and the branches of
    bottlenecks are small beside their shortcuts: else rounding errors grow 10,000-fold.
    """
    kind = key.rsplit(".", 1)[-1]
    draw = uniform(key, shape)
    if len(shape) > 1:
        gain = 6 if len(shape) > 2 else 3
        return draw * np.float32(np.sqrt(gain / np.prod(shape[1:])))
    if kind in ("weight", "running_var"):
        return (1 + draw / 4) * np.float32(0.25 if key.endswith("bn3.weight") else 1)
    return draw / 8 + np.float32(0.5 if key.endswith("bn.bias") else 0)


def weights(shapes):
    """A state_dict for these shapes by key; the counters are 0."""
    counter = "num_batches_tracked"
    return {
        key: np.zeros((), np.int64) if key.endswith(counter) else weight(key, shape)
        for key, shape in shapes.items()
    }


def images(case):
    """(n, h, w, c) between -2 and 2, with large and small structures."""
    n, size = case.batch, case.size
    coarse = uniform("coarse", (n, 8, 8, 3)).repeat(-(-size // 8), 1).repeat(-(-size // 8), 2)
    return coarse[:, :size, :size] + uniform("fine", (n, size, size, 3))


def digest(shapes):
    """Of all keys and shapes."""
    lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def projections(statistics):
    """One number of each running mean and variance, in the order of the keys."""
    return np.array(
        [
            np.dot(uniform(f"{key} projection", value.shape).astype(np.float64), value)
            / np.sqrt(value.size)
            for key, value in sorted(statistics.items())
        ]
    )


def is_statistic(key):
    return key.endswith(("running_mean", "running_var"))


def main():
    import torch

    try:
        import torchvision.models as models
    except RuntimeError:  # its compiled operators are missing
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.models as models
    from torch import nn

    def build(name, case, classes):
        name, options = case.smaller or (name.split(" ")[0], {})
        if name.startswith(("googlenet", "inception")):
            options = {"aux_logits": case.heads, "transform_input": False, "init_weights": False}
        net = getattr(models, name)(num_classes=classes, **options)
        if case.hidden:
            dense = [i for i, m in enumerate(net.classifier) if isinstance(m, nn.Linear)]
            sizes = [net.classifier[dense[0]].in_features, case.hidden, case.hidden, classes]
            for i, a, b in zip(dense, sizes, sizes[1:], strict=False):
                net.classifier[i] = nn.Linear(a, b)
        return net

    def shapes(net):
        return {key: tuple(value.shape) for key, value in net.state_dict().items()}

    out = {}
    for name, case in CASES.items():
        with torch.device("meta"):
            large = shapes(build(name, case._replace(hidden=None), 1000))
        out[f"{name} keys"] = np.array([str(len(large)), digest(large)])
        with torch.device("meta"):
            net = build(name, case, CLASSES).double()
        given = {k: torch.from_numpy(v) for k, v in weights(shapes(net)).items()}
        given = {k: v.double() if v.is_floating_point() else v for k, v in given.items()}
        net.load_state_dict(given, strict=True, assign=True)
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        x = torch.from_numpy(images(case)).double().movedim(-1, 1)
        with torch.no_grad():
            y = net.train()(x)
            trained = (
                [y] if isinstance(y, torch.Tensor) else [y[0], *y[:0:-1]]
            )  # logits, aux1, aux2
            out[f"{name} train"] = np.stack([v.numpy() for v in trained])
            found = {k: v.numpy() for k, v in net.state_dict().items() if is_statistic(k)}
            out[f"{name} statistics"] = projections(found)
            out[f"{name} eval"] = net.eval()(x).numpy()
        print(
            f"{name:20} {np.abs(out[f'{name} train']).max():10.3g} "
            f"{np.abs(out[f'{name} eval']).max():10.3g}"
        )
    np.savez_compressed(Path(__file__).with_name("torchvision.npz"), **out)


if __name__ == "__main__":
    main()
