"""What the checks look at: one pass forwards and backwards over some examples."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.data import Batch, Dataset
from jaxd2l.layers import Layer, apply, walk
from jaxd2l.layers.shapes import array_paths
from jaxd2l.ops.initializers import fan_in_out
from jaxd2l.train.diagnosis.expected import about_loss, labels_fit, softmax
from jaxd2l.train.diagnosis.probes import figures, probed
from jaxd2l.train.step import Loss, per_example

MOST = 256  # examples of a data set that go through the network


class Kernel(NamedTuple):
    """One weight array, one repetition of its layer, with its gradient."""

    path: str
    layer: Layer
    value: np.ndarray
    gradient: np.ndarray
    fan_in: int

    @property
    def gain(self) -> float:
        """By how much the kernel scales independent inputs: rms(W) sqrt(fan in)."""
        return float(np.sqrt(np.mean(np.square(self.value)) * self.fan_in))

    @property
    def relative_gradient(self) -> float:
        """The norm of the gradient over that of the kernel, or of one of gain 1 if that is more."""
        usual = np.sqrt(self.value.size / self.fan_in)
        return float(np.linalg.norm(self.gradient) / max(np.linalg.norm(self.value), usual))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that was measured.

    Attributes:
      steps: the leaves of the network.
      inputs, targets: the examples that went through the network, without padding.
      all_targets: those of the whole data set, or the same.
      dataset: whether a data set was given, not a batch.
      arrays: parameters and statistics by path.
      kernels: in the order of execution.
      activations, kernel_inputs: (where, figures) of the probes.
      outputs, losses: of the network in training mode; (n,), one loss for each example.
      expects: what the loss takes: "logits", "binary logits", "probabilities", or None.
      baseline: the mean loss of outputs that are 0, or of predicting the mean; infinity if unknown.
    """

    steps: tuple[Any, ...]
    inputs: np.ndarray
    targets: np.ndarray
    all_targets: np.ndarray
    dataset: bool
    arrays: dict[str, np.ndarray]
    kernels: tuple[Kernel, ...]
    activations: tuple[tuple[str, dict[str, np.ndarray]], ...]
    kernel_inputs: tuple[tuple[str, dict[str, np.ndarray]], ...]
    outputs: np.ndarray
    losses: np.ndarray
    expects: str | None
    baseline: float

    @property
    def mean_loss(self) -> float:
        return float(self.losses.mean())

    @property
    def classifies(self) -> bool:
        """Whether the targets are labels of the outputs."""
        return labels_fit(self.outputs, self.targets)

    @property
    def regresses(self) -> bool:
        """Whether the targets are numbers to be predicted."""
        return self.targets.dtype.kind == "f" and self.expects is None

    @property
    def labels(self) -> np.ndarray | None:
        """The label of each example, where it has one; not the tokens of sequences."""
        if self.classifies and self.all_targets.ndim == 1:
            return self.all_targets
        if self.expects == "binary logits" and self.all_targets[0].size == 1:
            return self.all_targets.ravel()
        return None

    @property
    def classes(self) -> int:
        return max(self.outputs.shape[-1], 2)

    @property
    def predicted(self) -> np.ndarray | None:
        """The mean probability of each output."""
        if self.expects == "logits":
            return softmax(self.outputs).reshape(-1, self.classes).mean(0)
        if self.expects == "binary logits":
            return (0.5 + 0.5 * np.tanh(self.outputs / 2)).mean(0).ravel()
        return None

    @property
    def frequencies(self) -> np.ndarray | None:
        """The share of each output among the targets."""
        if self.classifies:
            return np.bincount(self.targets.ravel(), minlength=self.classes) / self.targets.size
        if self.targets.shape != self.outputs.shape:
            return None
        if self.expects == "binary logits":
            return self.targets.mean(0).ravel()
        return self.targets.reshape(-1, self.classes).mean(0)

    @property
    def first_input(self) -> tuple[str, dict[str, np.ndarray]]:
        """What the first kernel reads; the inputs themselves where no kernel is known."""
        if self.kernel_inputs:
            return self.kernel_inputs[0]
        size = np.abs(self.inputs).mean(tuple(range(self.inputs.ndim - 1)))
        return "the network", {"size": size, "rms": np.sqrt(np.square(self.inputs).mean())}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(net: Layer, loss: Loss, params: Any, state: Any, x: Any, t: Any, key: Any) -> Any:
    def objective(params: Any) -> Any:
        outputs, left = apply(net, params, state, x, key=key, train=True)
        values = per_example(loss(outputs, t), x.shape[0], "the loss")
        return values.mean(), (outputs, values, left)

    (_, aux), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    return *aux, gradients


def arrays_of(batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs, targets, all targets) of a batch, a pair or a data set; padding is left out.

    Raises:
      TypeError: something else. ValueError: no examples, or unequal lengths.

    Example:
      >>> x, t, every = arrays_of(Dataset(np.zeros((1000, 2)), np.zeros((1000, 1))))
      >>> x.shape, t.shape, every.shape
      ((250, 2), (250, 1), (1000, 1))
    """
    if isinstance(batch, Dataset):
        apart = -(-len(batch) // MOST)
        return batch.inputs[::apart], batch.targets[::apart], batch.targets
    if isinstance(batch, Batch):
        mask = np.asarray(batch.mask, bool)
        inputs, targets = np.asarray(batch.inputs)[mask], np.asarray(batch.targets)[mask]
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, targets = (np.asarray(part) for part in batch)
    else:
        raise TypeError(
            f"diagnose: batch must be (inputs, targets), a data.Batch or a data.Dataset, "
            f"got {type(batch).__name__}"
        )
    if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets) or not len(inputs):
        raise ValueError(
            f"diagnose: inputs and targets must have the same length on their first axis, at "
            f"least 1, got {inputs.shape} and {targets.shape}"
        )
    return inputs, targets, targets


def gather(net: Layer, params: Any, state: Any, batch: Any, loss: Loss, key: Any) -> Evidence:
    """Run the network on the batch and collect what the checks need."""
    inputs, targets, everything = arrays_of(batch)
    tapped, places = probed(net)
    outputs, values, left, gradients = jax.device_get(
        _measure(tapped, loss, params, state, jnp.asarray(inputs), jnp.asarray(targets), key)
    )
    steps = tuple(walk(net, inputs.shape[1:]))
    arrays = array_paths(jax.device_get(params))
    kernels = tuple(_kernels(steps, arrays, array_paths(gradients)))
    readers = {kernel.path.rpartition("/")[0] for kernel in kernels}
    read: dict[str, list[Any]] = {"input": [], "activation": []}
    for place in places:
        if place.kind != "input":
            read["activation"] += figures(place, left)
        else:
            read["input"] += [each for each in figures(place, left) if each[0] in readers]
    expects, baseline = about_loss(loss, outputs, targets)
    return Evidence(
        steps,
        inputs,
        targets,
        everything,
        isinstance(batch, Dataset),
        arrays | array_paths(jax.device_get(state)),
        kernels,
        tuple(read["activation"]),
        tuple(read["input"]),
        outputs,
        values,
        expects,
        baseline,
    )


def _kernels(steps: Any, params: dict[str, Any], slopes: dict[str, Any]) -> Any:
    for step in steps:
        stored, numbers = _without_numbers(step.path)
        for name, declared in step.layer.parameters(step.input_shape).items():
            path = f"{stored}/{name}"
            if "kernel" not in name or path not in params:
                continue
            shape = (-1, *declared.shape)
            at = _position(params[path].shape[: -len(declared.shape)], numbers)
            fan_in, _ = declared.fan or fan_in_out(declared.shape)
            value, slope = (np.reshape(tree[path], shape)[at] for tree in (params, slopes))
            arrays = np.asarray(value, np.float64), np.asarray(slope, np.float64)
            yield Kernel(f"{step.path}/{name}", step.layer, *arrays, fan_in)


def _without_numbers(path: str) -> tuple[str, tuple[int, ...]]:
    """The path of the stored arrays and the numbers of repetitions: "b[2]/a" -> "b/a", (2,)."""
    numbers, parts = [], []
    for part in path.split("/"):
        name, bracket, rest = part.partition("[")
        numbers += [int(n) for n in rest.rstrip("]").split("][")] if bracket else []
        parts += [name] if name else []
    return "/".join(parts), tuple(numbers)


def _position(repeats: tuple[int, ...], numbers: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(numbers, repeats)) if repeats else 0
