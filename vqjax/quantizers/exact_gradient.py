"""The rotation paper's two studies of the gradient that straight-through only stands for.

Both take the loss as a function of the decoder's input, `loss([... D]) -> []`, and return its value
at the code, exactly; the parameters that `loss` closes over get the gradient of that value alone.
They cost one more pass through the decoder, or two. The code gets no gradient, as from every
estimator: a learner or a codebook loss moves it. Fifty et al. (ICLR 2025), Table 1.
"""

import jax
import jax.numpy as jnp


def double_forward(loss, z, q):
  """`loss(q)` in value, with the gradient at `z` itself: `dz = grad loss(z)`, `dq = 0`.

  Deviation: the original adds 1e-6 of the second pass to value and parameters' gradient.
  """
  z32, _ = _fixed(z, q)
  return _with_gradient(loss, z, q, jax.grad(loss)(z32))


def hessian_vector(loss, z, q):
  """`loss(q)` in value, with the gradient at `z` to first order.

  `dz = grad loss(q) + H(q) (z - q)`, `dq = 0`. Deviation: float32 throughout; the original rounds
  the correction to bfloat16.
  """
  z32, q32 = _fixed(z, q)
  gradient, correction = jax.jvp(jax.grad(loss), (q32,), (z32 - q32,))
  return _with_gradient(loss, z, q, gradient + correction)


def _fixed(z, q):
  """Both in float32 and without gradient, once their shapes agree."""
  if z.shape != q.shape:  # a loss of one of them would not notice
    raise ValueError(f'q has shape {q.shape}; legal: that of z, {z.shape}.')
  return tuple(jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z, q))


def _with_gradient(loss, z, q, gradient):
  """`loss(sg q)`, and `gradient` for z. No custom_vjp: `loss` may close over traced parameters."""
  pull = jnp.vdot(z.astype(jnp.float32), jax.lax.stop_gradient(gradient))
  value = loss(jax.lax.stop_gradient(q.astype(jnp.float32)))
  return value + (pull - jax.lax.stop_gradient(pull))
