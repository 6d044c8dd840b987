"""LeNet-5."""

from jaxd2l.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Serial,
)

POOLING = {"max": MaxPool, "avg": AvgPool}


def lenet(
    num_classes: int = 10,
    activation: str = "relu",
    pooling: str = "max",
    batch_norm: bool = False,
) -> Layer:
    """Two convolutional blocks and three dense layers: 6@5x5, 16@5x5, 120-84-classes.

    The default is today's recipe (ReLU, max-pooling). The book's form is
    `lenet(activation="sigmoid", pooling="avg")`, its batch-normalised one adds
    `batch_norm=True`: a norm between every affine map and its activation, whose bias is then
    redundant and left out.

    Raises:
      ValueError: an unknown activation or pooling ("max" or "avg").

    Source: LeCun et al. 1998; D2L 7.6, 8.5. 61,706 parameters on 28x28x1 with 10 classes; feature
    maps 28 -> 14 -> 10 -> 5.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(lenet(), (28, 28, 1)).parameters
      61706
    """
    if pooling not in POOLING:
        raise ValueError(f"lenet: pooling must be one of {sorted(POOLING)}, got {pooling!r}")
    if not isinstance(batch_norm, bool):
        raise TypeError(f"lenet: batch_norm must be True or False, got {batch_norm!r}")
    pool = POOLING[pooling](2)

    def after(name: str) -> list[Layer]:
        norm = [BatchNorm(f"{name}_bn")] if batch_norm else []
        return [*norm, Activation(activation)]

    bias = not batch_norm
    return Serial(
        [
            Conv("conv1", 6, 5, padding=2, bias=bias),  # (28, 28, 6)
            *after("conv1"),
            pool,  # (14, 14, 6)
            Conv("conv2", 16, 5, bias=bias),  # (10, 10, 16)
            *after("conv2"),
            pool,  # (5, 5, 16)
            Flatten(),  # (400,)
            Dense("dense1", 120, bias=bias),
            *after("dense1"),
            Dense("dense2", 84, bias=bias),
            *after("dense2"),
            Dense("output", num_classes),
        ]
    )
