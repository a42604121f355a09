"""What the gradient would be without quantization: two studies of the rotation paper.

Both take the loss as a function of the decoder's input, `loss([... D]) -> []`, and return its value
at the code, exactly; the parameters that `loss` closes over get the gradient of that value alone.
They cost one more pass through the decoder, or two. The code gets no gradient, as from every
estimator: a learner or a codebook loss moves it. Fifty et al. (ICLR 2025), Table 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def double_forward(loss: Callable[[jax.Array], jax.Array], z: jax.Array, q: jax.Array) -> jax.Array:
  """`loss(q)` in value, with the gradient at `z` itself: `dz = grad loss(z)`, `dq = 0`.

  Deviation: the original adds 1e-6 of the second pass to value and parameters' gradient.
  """
  z32, _ = _fixed(z, q)
  return _with_gradient(loss, z, q, jax.grad(loss)(z32))


def hessian_vector(loss: Callable[[jax.Array], jax.Array], z: jax.Array, q: jax.Array) -> jax.Array:
  """`loss(q)` in value, with the gradient at `z` to first order.

  `dz = grad loss(q) + H(q) (z - q)`, `dq = 0`. Deviation: float32 throughout; the original rounds
  the correction to bfloat16.
  """
  z32, q32 = _fixed(z, q)
  # H is symmetric, so that reverse mode will do: a loss may have no other, as our networks have.
  gradient, pull = jax.vjp(jax.grad(loss), q32)
  (correction,) = pull(z32 - q32)
  return _with_gradient(loss, z, q, gradient + correction)


def _fixed(z: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Both in float32 and without gradient, once their shapes agree."""
  if z.shape != q.shape:  # a loss of one of them would not notice
    raise ValueError(f'q has shape {q.shape}; legal: that of z, {z.shape}.')
  z32, q32 = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z, q))
  return z32, q32


def _with_gradient(
  loss: Callable[[jax.Array], jax.Array], z: jax.Array, q: jax.Array, gradient: jax.Array
) -> jax.Array:
  """`loss(sg q)`, and `gradient` for z. No custom_vjp: `loss` may close over traced parameters."""
  pull = jnp.vdot(z.astype(jnp.float32), jax.lax.stop_gradient(gradient))
  value = loss(jax.lax.stop_gradient(q.astype(jnp.float32)))
  return value + (pull - jax.lax.stop_gradient(pull))
