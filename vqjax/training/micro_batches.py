"""Gradient accumulation: the micro-batches of a step, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (carry, a micro-batch) -> (gradient, carry, (metrics by name, *arrays)).
Phase = Callable[[Any, Any], tuple[Any, Any, Any]]


def split(batch: Any, count: int) -> Any:
  """[B ...] -> [A B/A ...]; every micro-batch takes from all devices, so none moves data."""
  return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)


def accumulate(phase: Phase, carry: Any, xs: Any, count: int, *, sum_gradients: bool) -> Any:
  """Runs `phase` over micro-batches [A ...]: (summed or mean gradient, last carry, outputs).

  Of the outputs (metrics, *arrays) metrics are averaged, code counts summed, arrays stacked.
  """
  if count == 1:  # no loop: XLA runs convolutions inside loops without its fast kernels on a CPU
    gradient, carry, (scalars, *arrays) = phase(carry, jax.tree.map(lambda x: x[0], xs))
    return gradient, carry, (scalars, *(a[None] for a in arrays))

  def body(state, x):
    total, carry = state
    gradient, carry, outputs = phase(carry, x)
    return (jax.tree.map(jnp.add, total, gradient), carry), outputs

  gradient_like, *_ = jax.eval_shape(phase, carry, jax.tree.map(lambda x: x[0], xs))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), gradient_like)
  # Unrolled, there is no loop on a CPU: see above.
  unroll = jax.default_backend() == 'cpu'
  (total, carry), (scalars, *arrays) = jax.lax.scan(body, (zeros, carry), xs, unroll=unroll)
  if not sum_gradients:
    total = jax.tree.map(lambda g: g / count, total)
  join = lambda name, x: x.sum(0) if name == 'code_counts' else x.mean(0)
  return total, carry, ({name: join(name, x) for name, x in scalars.items()}, *arrays)
