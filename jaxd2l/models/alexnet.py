"""AlexNet."""

from collections.abc import Sequence

from jaxd2l.layers import AdaptiveAvgPool, Dense, Dropout, Flatten, Layer, Serial
from jaxd2l.models.blocks.basic import RELU
from jaxd2l.models.blocks.plain import alexnet_body


def alexnet(
    num_classes: int = 1000,
    *,
    features: Sequence[int] = (64, 192, 384, 256, 256),
    hidden: int = 4096,
) -> Layer:
    """Five convolutions, three pools and three dense layers; 61,100,840 parameters.

    Args:
      features: of the five convolutions.
      hidden: the width of the two hidden dense layers.

    Source: Krizhevsky 2014 (one weird trick), as torchvision has it: dropout stands before each
    hidden dense layer, and an adaptive pool gives 6x6 whatever the input. The first paper
    (Krizhevsky et al. 2012) has 96-256-384-384-256 features, convolutions in two groups and local
    response norms. D2L 8.1 has its own, `models.d2l.alexnet`.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(alexnet(), (224, 224, 3)).parameters
      61100840
    """
    return Serial(
        [
            alexnet_body(features, padding=2),  # (6, 6, 256) of (224, 224, 3)
            AdaptiveAvgPool(6),
            Flatten(),
            Dropout("dropout1", 0.5),
            Dense("dense1", hidden),
            RELU,
            Dropout("dropout2", 0.5),
            Dense("dense2", hidden),
            RELU,
            Dense("output", num_classes),
        ]
    )
