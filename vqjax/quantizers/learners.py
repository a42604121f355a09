"""Who moves the codebook when it is not the gradient: `(init, update)` pairs.

`init(codebook) -> state`; `update(codebook, state, z, indices, mask) -> (codebook, state)`. Any
object with these two methods is a learner; it runs once in every training forward, after the
codes of that forward were taken.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from vqjax.quantizers import ops


@flax.struct.dataclass
class EmaState:
  """Exponential averages behind an EMA codebook."""

  counts: jax.Array  # [K]    rows per code and step
  sums: jax.Array  # [K D]  sum of those rows


@dataclasses.dataclass(frozen=True)
class Ema:
  """Codes as exponential moving averages of the rows that chose them.

  `N <- d N + (1 - d) n`, `M <- d M + (1 - d) s`, `code_k = M_k / N~_k` with the Laplace-smoothed
  count `N~_k = T (N_k + eps) / (T + K eps)`, `T = sum N`; n and s are the count and the sum of
  this forward's rows of code k. van den Oord et al. 2017, appendix A.1.

  Deviation: a code whose count has decayed below 100 eps keeps its place (`hold`); in the
  originals the smoothing pulls it to the origin, where all unused codes pile up.

  Attributes:
    decay: d in [0, 1). The rotation trick's Table 1 uses 0.8, VQ-VAE 0.99.
    epsilon: Laplace smoothing.
    init_count: N at the start. 1 leaves an unused code where it is; 0, as in the rotation trick's
      and taming's code, throws it out by a factor of d / eps at its first update.
    hold: False for the originals' behaviour.
  """

  decay: float = 0.99
  epsilon: float = 1e-5
  init_count: float = 1.0
  hold: bool = True

  def __post_init__(self):
    if not 0 <= self.decay < 1:
      raise ValueError(f'Ema.decay is {self.decay}; legal: 0 <= decay < 1.')
    if self.epsilon <= 0:
      raise ValueError(f'Ema.epsilon is {self.epsilon}; legal: > 0.')

  def init(self, codebook):
    counts = jnp.full(codebook.shape[0], self.init_count, jnp.float32)
    return EmaState(counts=counts, sums=codebook)

  def update(self, codebook, state, z, indices, mask=None):
    num_codes = codebook.shape[0]
    if mask is not None:
      z = jnp.where(mask[:, None], z, 0)
    sums = jnp.zeros_like(codebook).at[indices].add(z)
    fresh = EmaState(ops.code_counts(indices, num_codes, mask), sums)
    mix = lambda old, new: self.decay * old + (1 - self.decay) * new
    state = jax.tree.map(mix, state, fresh)
    total = jnp.sum(state.counts)
    smoothed = (state.counts + self.epsilon) * (total / (total + num_codes * self.epsilon))
    moved = state.sums / smoothed[:, None]
    if self.hold:
      moved = jnp.where((state.counts > 100 * self.epsilon)[:, None], moved, codebook)
    return moved, state
