"""Which code each row takes: `(z [N D], codes [K D], *, key, mask, step) -> indices [N]`.

`key` is None where there is no RNG stream `vq` and while evaluating; rows where `mask` [N] is
false must not matter to others; `step` counts training forwards and is there for assignments that
have a true `uses_step`. No gradient flows, except through `relaxed`, which see.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqjax.quantizers import lookup

HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Nearest:
  """The nearest code in Euclidean distance; on unit vectors that is the largest cosine.

  Attributes:
    block: codes scored at a time, see `lookup.nearest_code`.
  """

  block: int | None = None

  def __call__(self, z, codes, *, key=None, mask=None, step=None):
    del key, mask, step  # deterministic, row by row
    return lookup.nearest_code(z, codes, block=self.block)


@dataclasses.dataclass(frozen=True)
class _Sampled:
  """What assignments by a random draw share.

  Attributes:
    temperature: above 0, or a schedule `step -> temperature` such as optax has them, of the
      number of training forwards.
  """

  temperature: float | Callable = 1.0

  def __post_init__(self):
    if not callable(self.temperature) and self.temperature <= 0:
      raise ValueError(
        f'{type(self).__name__}.temperature is {self.temperature}; legal: above 0, or a schedule.'
      )

  @property
  def uses_step(self):
    return callable(self.temperature)

  def _temperature(self, step):
    if not callable(self.temperature):
      return jnp.asarray(self.temperature, jnp.float32)
    with jax.numpy_dtype_promotion('standard'):
      return jnp.asarray(self.temperature(step), jnp.float32)

  def _noise(self, key, shape):
    if key is None:
      raise ValueError(
        f"{type(self).__name__} draws codes and has no key; apply with rngs={{'vq': key}}, and "
        'leave eval_assign to Nearest().'
      )
    return jax.random.gumbel(key, shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Stochastic(_Sampled):
  """A code drawn with probability `softmax_k(-|z - c_k| / T)`.

  vector-quantize-pytorch's `stochastic_sample_codes`; RQ-VAE (arXiv 2203.01941) with
  `squared=True`. Holds N x K numbers. With a rotation estimator it is known to diverge, because
  the drawn code may lie anywhere: a quantizer built so warns.

  Attributes:
    squared: squared distances in place of distances.
  """

  squared: bool = False

  def __call__(self, z, codes, *, key=None, mask=None, step=None):
    del mask
    z, codes = jax.lax.stop_gradient((z, codes))
    cost = squared_distances(z, codes)
    cost = cost if self.squared else jnp.sqrt(cost)
    scores = self._noise(key, cost.shape) - cost / self._temperature(step)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Gumbel(_Sampled):
  """The Gumbel-softmax quantizer: a drawn code in value, the relaxation's gradient.

  `k = argmax(l + n)`, `l_k = -|z - c_k|^2`, `n` Gumbel noise; the gradient is that of
  `sum_k softmax((l + n) / T)_k c_k`, for `z` and for all codes, and the quantizer's estimator is
  not used. Jang et al., arXiv 1611.01144; DALL-E's and taming's GumbelQuantize, with the tied
  logits of enhancing-transformers. Holds N x K numbers, in the backward pass too. Deviation: no
  noise in evaluation, where the originals' tokens are random.
  """

  def __call__(self, z, codes, *, key=None, mask=None, step=None):
    return self.relaxed(*jax.lax.stop_gradient((z, codes)), key=key, mask=mask, step=step)[0]

  def relaxed(self, z, codes, *, key=None, mask=None, step=None):
    """(indices [N], mixture of codes [N D] that carries the gradient)."""
    del mask
    logits = -squared_distances(z, codes)
    noisy = logits + self._noise(key, logits.shape)
    weights = jax.nn.softmax(noisy / self._temperature(step), axis=-1)
    mixture = jnp.matmul(weights, codes, precision=HIGHEST)
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32), mixture


def squared_distances(z, codes):
  """`|z_n - c_k|^2`, never below 1e-12: [N D], [K D] -> [N K]; its root has a finite gradient."""
  z_sq, code_sq = (jnp.sum(x * x, axis=-1) for x in (z, codes))
  products = jnp.matmul(z, codes.T, precision=HIGHEST)
  return jnp.maximum(z_sq[:, None] + code_sq[None] - 2 * products, 1e-12)
