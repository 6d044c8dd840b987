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
      inputs, targets: the examples that went through the network, without padding.
      all_targets: those of the whole data set, or the same.
      dataset: whether a data set was given, not a batch.
      outputs: of the network in training mode.
      losses: (n,), one for each example.
      loss: the function.
      kernels: in the order of execution.
      activations, kernel_inputs: (where, figures) of the probes.
      steps: the leaves of the network.
    """

    net: Layer
    inputs: np.ndarray
    targets: np.ndarray
    all_targets: np.ndarray
    dataset: bool
    outputs: np.ndarray
    losses: np.ndarray
    loss: Loss
    params: dict[str, np.ndarray]
    kernels: tuple[Kernel, ...]
    activations: tuple[tuple[str, dict[str, np.ndarray]], ...]
    kernel_inputs: tuple[tuple[str, dict[str, np.ndarray]], ...]
    steps: tuple[Any, ...]


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
    flat, slopes = array_paths(jax.device_get(params)), array_paths(gradients)
    read: dict[str, list[Any]] = {"input": [], "activation": []}
    for place in places:
        read["input" if place.kind == "input" else "activation"] += figures(place, left)
    return Evidence(
        net,
        inputs,
        targets,
        everything,
        isinstance(batch, Dataset),
        outputs,
        values,
        loss,
        flat,
        tuple(_kernels(steps, flat, slopes)),
        tuple(read["activation"]),
        tuple(read["input"]),
        steps,
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
            yield Kernel(f"{step.path}/{name}", step.layer, value, slope, fan_in)


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
