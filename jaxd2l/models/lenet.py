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
POSITIONS = ("before", "after")  # of a norm, seen from the activation


def lenet(
    num_classes: int = 10,
    activation: str = "relu",
    pooling: str = "max",
    batch_norm: bool = False,
    norm_position: str = "before",
) -> Layer:
    """Two convolutional blocks and three dense layers: 6@5x5, 16@5x5, 120-84-classes.

    The default is today's recipe (ReLU, max-pooling). The book's form is
    `lenet(activation="sigmoid", pooling="avg")`, its batch-normalised one adds
    `batch_norm=True`: a norm between every affine map and its activation, whose bias is then
    redundant and left out. With `norm_position="after"` the norm follows the activation instead.

    Raises:
      ValueError: an unknown activation, pooling ("max" or "avg") or position ("before" or "after").

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
    if norm_position not in POSITIONS:
        raise ValueError(f"lenet: norm_position must be one of {POSITIONS}, got {norm_position!r}")
    pool = POOLING[pooling](2)

    def after(name: str) -> list[Layer]:
        parts: list[Layer] = [Activation(activation)]
        if batch_norm:
            parts.insert(POSITIONS.index(norm_position), BatchNorm(f"{name}_bn"))
        return parts

    bias = not batch_norm or norm_position == "after"
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
