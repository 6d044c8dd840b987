"""cuDNN's fused attention for the value, and the tiles for its derivatives.

The kernel that `jax.nn.dot_product_attention(implementation="cudnn")` calls comes with a reverse
rule of its own, which forbids jvp and second derivatives. So only its output is taken, and tangents
and gradients are those of `tiles`. The logarithms of the sums that they need are made there too:
jax returns cuDNN's rounded to half precision, which puts the weights off by percents.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.ops.attention.pattern import Pattern
from jaxd2l.ops.attention.tiles import attend, pad, prepare, tangent

Array = jax.Array


def fits(q: Array, v: Array) -> bool:
    """Whether cuDNN takes such arrays here: bfloat16 or float16, heads of one size, a multiple of 8
    up to 128, and an NVIDIA GPU (Ampere or later) as the default device."""
    size = q.shape[-1]
    if q.dtype not in (jnp.bfloat16, jnp.float16) or v.shape[-1] != size:
        return False
    return size % 8 == 0 and size <= 128 and _has_kernel()


def _has_kernel() -> bool:
    if jax.default_backend() != "gpu":
        return False
    device = jax.devices()[0]
    if "cuda" not in device.client.platform_version:
        return False
    return int(device.compute_capability.split(".")[0]) >= 8


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def fused_attention(
    causal: bool,
    scale: float,
    q: Array,
    k: Array,
    v: Array,
    lengths: Array | None,
    pattern: Pattern,
) -> Array:
    """Attention (n, q, heads, d) by cuDNN; `pattern` says the same as `causal` and `lengths`.

    Shapes:
      lengths: (n,) int32 in [0, k], or None.
    """
    o = jax.nn.dot_product_attention(
        q, k, v, scale=scale, is_causal=causal, key_value_seq_lengths=lengths,
        implementation="cudnn",
    )  # fmt: skip
    if lengths is None:
        return o
    return jnp.where(lengths[:, None, None, None] > 0, o, jnp.zeros_like(o))


@fused_attention.defjvp
def _fused_attention_jvp(causal: bool, scale: float, primals: Any, tangents: Any) -> Any:
    q, k, v, lengths, pattern = primals
    o = fused_attention(causal, scale, q, k, v, lengths, pattern)
    settings, padded = prepare(q, k, pattern, scale, 0.0)
    rows, columns = settings.queries, settings.keys
    args = pad(q, rows), pad(k, columns), pad(v, columns), padded
    _, log_sum = attend(settings, *args)  # its output is not used and is not computed under jit
    dq, dk, dv = (pad(t, size) for t, size in zip(tangents, (rows, columns, columns), strict=False))
    do, _ = tangent(settings, *args, pad(o, rows), log_sum, dq, dk, dv)
    return o, do[:, : q.shape[1]]
