"""The rotation paper's two studies of the gradient that straight-through only stands for.

Both take the loss as a function of the decoder's input, `loss([... D]) -> []`, and return its value
at the code, exactly; the parameters that `loss` closes over get the gradient of that value alone.
They cost one more pass through the decoder, or two. Fifty et al. (ICLR 2025), appendix.
"""

import jax
import jax.numpy as jnp


def double_forward(loss, z, q):
  """`loss(q)` in value, with the gradient at `z` itself: `dz = grad loss(z)`, `dq = 0`.

  Deviation: the original adds 1e-6 of the second pass to value and parameters' gradient.
  """
  z32 = jax.lax.stop_gradient(z.astype(jnp.float32))
  return _with_gradient(loss, z, q, jax.grad(loss)(z32))


def hessian_vector(loss, z, q):
  """`loss(q)` in value, with the gradient at `z` to first order.

  `dz = grad loss(q) + H(q) (z - q)`, `dq = 0`. Deviation: float32 throughout; the original rounds the correction to bfloat16.
  """
  z32, q32 = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z, q))
  gradient, correction = jax.jvp(jax.grad(loss), (q32,), (z32 - q32,))
  return _with_gradient(loss, z, q, gradient + correction)


def _with_gradient(loss, z, q, gradient):
  """`loss(sg q)`, and `gradient` for z. No custom_vjp: `loss` may close over traced parameters."""
  pull = jnp.vdot(z.astype(jnp.float32), jax.lax.stop_gradient(gradient))
  value = loss(jax.lax.stop_gradient(q.astype(jnp.float32)))
  return value + (pull - jax.lax.stop_gradient(pull))
