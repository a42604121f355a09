"""Further terms of a codebook's loss."""

import dataclasses
import math
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.assignments import squared_distances


class Regularizer(Protocol):
  """A further term of the loss: `(z [N D], codes [K D], mask [N]) -> []`, unweighted.

  The quantizer adds `weight` times the value to its loss and reports the value under `name`. A
  class can declare `codes_only = True`: its gradient reaches the codes alone, so that it is refused
  where none can move them.

  Attributes:
    weight: in the loss.
    name: in the metrics.
  """

  @property
  def weight(self) -> float: ...

  @property
  def name(self) -> str: ...

  def __call__(self, z: jax.Array, codes: jax.Array, mask: jax.Array | None, /) -> jax.Array:
    """The term, float32 []; rows `z` where `mask` is false must not matter."""


@dataclasses.dataclass(frozen=True)
class Entropy:
  """Rows sure of their code, all codes in use: `mean_n H(p_n) - gamma H(mean_n p_n)`, in nats.

  `p_n = softmax_k(-|z_n - c_k|^2 / T)`. MaskGIT, LlamaGen and MAGVIT-v2 (arXiv 2310.05737,
  equation 5). `Entropy(diversity_only=True, squared=False)` is vector-quantize-pytorch's
  `codebook_diversity_loss`. Holds N x K numbers, so `max_rows` takes evenly spread rows.

  Attributes:
    weight: MaskGIT has 0.1.
    gamma: weight of the second term.
    temperature: T; MaskGIT and LlamaGen have 0.01.
    max_rows: at most so many rows.
    diversity_only: leaves out the first term.
    squared: squared distances; False: distances.
  """

  weight: float = 0.1
  gamma: float = 1.0
  temperature: float = 0.01
  max_rows: int = 16384
  diversity_only: bool = False
  squared: bool = True
  name: ClassVar[str] = 'entropy'

  def __post_init__(self) -> None:
    if self.temperature <= 0:
      raise ValueError(f'Entropy.temperature is {self.temperature}; legal: above 0.')
    if self.max_rows < 1:
      raise ValueError(f'Entropy.max_rows is {self.max_rows}; legal: at least 1.')

  def __call__(self, z: jax.Array, codes: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    every = _stride(z.shape[0], self.max_rows)
    z, mask = z[::every], None if mask is None else mask[::every]
    cost = squared_distances(_counted(z, mask), codes)
    cost = cost if self.squared else jnp.sqrt(cost)
    log_p = jax.nn.log_softmax(-cost / self.temperature, axis=-1)
    p = jnp.exp(log_p)
    row = ops.masked_mean(-jnp.sum(p * log_p, axis=-1, keepdims=True), mask)
    diversity = self.gamma * ops.entropy(ops.mean_row(p, mask))
    return -diversity if self.diversity_only else row - diversity


@dataclasses.dataclass(frozen=True)
class Orthogonality:
  """Codes that point in different directions: `sum_jk cos(c_j, c_k)^2 / K^2 - 1 / K`.

  0 for orthogonal codes. Arxiv 2112.00384, equation 2; vector-quantize-pytorch's
  `orthogonal_reg_weight`. Holds K x K numbers.

  Attributes:
    weight: the paper has 10 for small codebooks.
    max_codes: at most so many, evenly spread.
  """

  weight: float = 1.0
  max_codes: int = 8192
  name: ClassVar[str] = 'orthogonality'
  codes_only: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if self.max_codes < 1:
      raise ValueError(f'Orthogonality.max_codes is {self.max_codes}; legal: at least 1.')

  def __call__(self, z: jax.Array, codes: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    del z, mask
    codes = ops.unit(codes[:: -(-codes.shape[0] // self.max_codes)])
    cosines = jnp.matmul(codes, codes.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.mean(jnp.square(cosines)) - 1 / codes.shape[0]


@dataclasses.dataclass(frozen=True)
class KLToUniform:
  """`mean_n KL(p_n || uniform)`, `p_n = softmax_k(-|z_n - c_k|^2)`: the prior term of Gumbel codes.

  DALL-E and taming's GumbelQuantize (weight 5e-4 there), with tied logits. Holds N x K numbers.
  """

  weight: float = 5e-4
  name: ClassVar[str] = 'kl_to_uniform'

  def __call__(self, z: jax.Array, codes: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    return kl_to_uniform(-squared_distances(_counted(z, mask), codes), mask)


def kl_to_uniform(logits: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """`mean_n sum_k p log(K p + 1e-10)`, `p = softmax(logits)`: [N K] -> [], at least 0."""
  p = jax.nn.softmax(logits, axis=-1)
  return ops.masked_mean(
    jnp.sum(p * jnp.log(logits.shape[-1] * p + 1e-10), axis=-1, keepdims=True), mask
  )


def _stride(rows: int, most: int) -> int:
  """The smallest stride that leaves at most `most` rows and has no divisor with their number.

  Rows are pixels of B x H x W grids: a stride that divides W would see some columns only.
  """
  stride = -(-rows // most)
  while stride > 1 and math.gcd(stride, rows) > 1:
    stride += 1
  return stride


def _counted(z: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Masked rows as zeros: a NaN there would reach the gradient of the codes."""
  return z if mask is None else jnp.where(mask[:, None], z, 0)
