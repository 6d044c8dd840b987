"""Pictures of a trained network: first kernels, feature maps, samples of its augmentation.

    python experiments/pictures.py --out pictures
    python experiments/pictures.py --out pictures --data MNIST_DIR

Trains the batch-normalised LeNet on the digits of scikit-learn (or images of a folder) and writes
kernels.png, feature_maps_conv1.png, feature_maps_conv2.png and augmentations.png.
"""

import argparse
from pathlib import Path

import jax
import optax

from jaxd2l import data, models, plot, train
from jaxd2l.layers import Augment, Serial
from jaxd2l.ops import losses
from jaxd2l.ops.augment import (
    Compose,
    CutOut,
    RandomBrightness,
    RandomResizedCrop,
    RandomShift,
)

STEP = Compose([RandomShift(3), RandomBrightness(0.4), CutOut(6)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="a folder of IDX files or images (default: digits)")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    parts = data.load(arguments.data)
    classes = len(parts.train.classes or ())
    net = Serial([Augment("augment", STEP), models.lenet(classes, batch_norm=True)])
    result = train.fit(
        net,
        parts.train,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(2e-3),
        epochs=arguments.epochs,
        batch_size=64,
        test=parts.test,
    )
    print(f"test accuracy {100 * result.history[-1]['test_accuracy']:.1f} %")
    image = parts.test.inputs[0]
    size = image.shape[:2]
    crop = Compose([RandomResizedCrop(size, area=(0.4, 1.0)), *STEP.steps])
    written = [
        plot.kernels(result.params["conv1"]["kernel"], arguments.out / "kernels.png", "conv1"),
        *(
            plot.feature_maps(
                net,
                result.params,
                result.state,
                image,
                layer,
                arguments.out / f"feature_maps_{layer}.png",
            )
            for layer in ("conv1", "conv2")
        ),
        plot.augmentations(
            jax.random.key(0),
            parts.test.inputs[:5],
            crop,
            arguments.out / "augmentations.png",
            "crop, shift, brightness, cut-out",
        ),
    ]
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
