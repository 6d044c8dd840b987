"""The linear models of the book: regression and classification without a hidden layer."""

from jaxd2l.layers import Dense, Flatten, Layer, Powers, Serial
from jaxd2l.ops import initializers


def linear_regression(outputs: int = 1) -> Layer:
    """y = x W + b, started at N(0, 0.01) with a zero bias.

    Source: D2L 3.5.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(linear_regression(), (2,)).parameters
      3
    """
    return Serial([Dense("linear", outputs, kernel_init=initializers.Normal(0.01))])


def polynomial_regression(degree: int = 3) -> Layer:
    """y = w_1 x + w_2 x^2/2! + w_3 x^3/3! + ... + b for one input x.

    Source: D2L 3.6 (older edition 4.4); the notes fit it with degree 3.

    Example:
      >>> from jaxd2l import output_shape, summarize
      >>> net = polynomial_regression(3)
      >>> output_shape(net, (1,)), summarize(net, (1,)).parameters
      ((1,), 4)
    """
    return Serial([Powers(degree), Dense("linear", 1, kernel_init=initializers.Normal(0.01))])


def softmax_regression(num_classes: int = 10) -> Layer:
    """Logits o = x W + b of a flattened input; trained with softmax cross-entropy.

    Source: D2L 4.5: 784 x 10 + 10 = 7,850 parameters on 28x28 images.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(softmax_regression(), (28, 28, 1)).parameters
      7850
    """
    return Serial([Flatten(), Dense("output", num_classes, kernel_init=initializers.Normal(0.01))])


def logistic_regression() -> Layer:
    """One logit z = x w + b of a flattened input; the probability is sigmoid(z).

    A generalised linear model: the activation is the inverse of the link function.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(logistic_regression(), (4,)).parameters
      5
    """
    return Serial([Flatten(), Dense("output", 1, kernel_init=initializers.Normal(0.01))])
