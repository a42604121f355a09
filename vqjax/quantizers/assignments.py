"""Which code each row takes."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from vqjax.quantizers import lookup

HIGHEST = jax.lax.Precision.HIGHEST


class Assignment(Protocol):
  """A rule by which rows take codes: `(z [N D], codes [K D], *, key, mask, step) -> indices [N]`.

  No gradient flows through it. A plain function will do. A class can declare, by attributes or
  properties that are True; what it does not declare is False:

    uses_key: it draws, and so needs the RNG stream `vq`; not for evaluation.
    uses_step: it wants the number of training forwards; the quantizer then counts them.
    whole_batch: a row's code depends on other rows.
    relaxes: it brings a gradient of its own, by a method `relaxed`, see `Relaxed`.

  Equal settings must be equal and hash equal, as those of a frozen dataclass are: a field of a
  quantizer is static under jit.
  """

  def __call__(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None,
    mask: jax.Array | None,
    step: jax.Array | None,
  ) -> jax.Array:
    """Codes of the rows, int32 [N] in [0, K).

    Args:
      z: rows, float32 [N D].
      codes: float32 [K D].
      key: for a draw; None where there is no RNG stream `vq`, and while evaluating.
      mask: rows that count [N], or None for all; others must not matter to those.
      step: training forwards so far, int32 []; None where `uses_step` is not declared, and while
        evaluating.
    """


class Relaxed(Assignment, Protocol):
  """An assignment that declares `relaxes`: a drawn code in value, a mixture's gradient."""

  def relaxed(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None,
    mask: jax.Array | None,
    step: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    """(indices [N], the mixture of codes [N D] whose gradient reaches `z` and `codes`)."""


@dataclasses.dataclass(frozen=True)
class Nearest:
  """The nearest code in Euclidean distance; on unit vectors that is the largest cosine.

  Attributes:
    block: codes scored at a time, see `lookup.nearest_code`.
    kernel: on NVIDIA GPUs search by a kernel, likewise.
  """

  block: int | None = None
  kernel: bool = False

  def __call__(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    step: jax.Array | None = None,
  ) -> jax.Array:
    del key, mask, step  # deterministic, row by row
    return lookup.nearest_code(z, codes, block=self.block, kernel=self.kernel)


@dataclasses.dataclass(frozen=True)
class _Sampled:
  """What assignments by a random draw share.

  Attributes:
    temperature: above 0, or a schedule `step -> temperature` such as optax has them, of the
      number of training forwards.
  """

  temperature: float | Callable[[jax.Array], Any] = 1.0
  uses_key: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if not callable(self.temperature) and self.temperature <= 0:
      raise ValueError(
        f'{type(self).__name__}.temperature is {self.temperature}; legal: above 0, or a schedule.'
      )

  @property
  def uses_step(self) -> bool:
    return callable(self.temperature)

  def _temperature(self, step: jax.Array | None) -> jax.Array:
    if not callable(self.temperature):
      return jnp.asarray(self.temperature, jnp.float32)
    assert step is not None  # because `uses_step`
    with jax.numpy_dtype_promotion('standard'):
      return jnp.asarray(self.temperature(step), jnp.float32)

  def _noise(self, key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
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

  def __call__(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    step: jax.Array | None = None,
  ) -> jax.Array:
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

  relaxes: ClassVar[bool] = True

  def __call__(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    step: jax.Array | None = None,
  ) -> jax.Array:
    return self.relaxed(*jax.lax.stop_gradient((z, codes)), key=key, mask=mask, step=step)[0]

  def relaxed(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    step: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """(indices [N], mixture of codes [N D] that carries the gradient)."""
    del mask
    logits = -squared_distances(z, codes)
    noisy = logits + self._noise(key, logits.shape)
    weights = jax.nn.softmax(noisy / self._temperature(step), axis=-1)
    mixture = jnp.matmul(weights, codes, precision=HIGHEST)
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32), mixture


def squared_distances(z: jax.Array, codes: jax.Array) -> jax.Array:
  """`|z_n - c_k|^2`, never below 1e-12: [N D], [K D] -> [N K]; its root has a finite gradient."""
  z_sq, code_sq = (jnp.sum(x * x, axis=-1) for x in (z, codes))
  products = jnp.matmul(z, codes.T, precision=HIGHEST)
  return jnp.maximum(z_sq[:, None] + code_sq[None] - 2 * products, 1e-12)
