"""Who moves the codebook when it is not the gradient."""

import dataclasses
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vqjax.quantizers import ops
from vqjax.quantizers.optimizers import Optimizer
from vqjax.quantizers.transforms import Space

TINY = float(np.finfo(np.float32).tiny)


class Learner(Protocol):
  """Who moves the codebook: pure functions of the weights [K D] and a state of any pytree.

  Equal settings must be equal and hash equal, as those of a frozen dataclass are.

  Attributes:
    regather: whether a training forward returns the moved codes, in place of those before.
  """

  @property
  def regather(self) -> bool: ...

  def init(self, weights: jax.Array) -> Any:
    """The state at the start."""

  def update(
    self,
    weights: jax.Array,
    state: Any,
    z: jax.Array,
    indices: jax.Array,
    mask: jax.Array,
    space: Space,
  ) -> tuple[jax.Array, Any]:
    """(weights, state) after a training forward.

    Args:
      weights: [K D].
      state: as `init` or the last `update` made it.
      z: the rows, as codes are compared with them [N D].
      indices: the codes that they took [N].
      mask: rows that count [N].
      space: the quantizer's transform: `space.codes(weights)`, `space.inverse(rows, indices)`.
    """

  def reset(self, state: Any, weights: jax.Array, replaced: jax.Array) -> Any:
    """The state after the codes `replaced` [K] were overwritten in `weights`."""


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
  this forward's rows of code k. van den Oord et al. 2017, appendix A.1. Under a transform the
  rows are those of the weights' side.

  Deviation: a code whose count has decayed below 100 eps keeps its place (`hold`); in the
  originals the smoothing pulls it to the origin, where all unused codes pile up.

  Attributes:
    decay: d in [0, 1). The rotation trick's Table 1 uses 0.8, VQ-VAE 0.99.
    epsilon: Laplace smoothing.
    init_count: N at the start, with M = N code: how many rows a step the start stands for. With
      0, as in the rotation trick's and taming's code, M is the code all the same: the first update
      multiplies an unused code by d / eps, and carries a used one beyond the mean of its rows.
    hold: False for the originals' behaviour.
  """

  decay: float = 0.99
  epsilon: float = 1e-5
  init_count: float = 1.0
  hold: bool = True
  regather: ClassVar[bool] = False

  def __post_init__(self) -> None:
    if not 0 <= self.decay < 1:
      raise ValueError(f'Ema.decay is {self.decay}; legal: 0 <= decay < 1.')
    if self.init_count < 0:
      raise ValueError(f'Ema.init_count is {self.init_count}; legal: at least 0.')
    if self.epsilon <= 0:
      raise ValueError(f'Ema.epsilon is {self.epsilon}; legal: > 0.')

  def init(self, weights: jax.Array) -> EmaState:
    counts = jnp.full(weights.shape[0], self.init_count, jnp.float32)
    return EmaState(counts=counts, sums=weights * (self.init_count or 1.0))

  def update(
    self,
    weights: jax.Array,
    state: EmaState,
    z: jax.Array,
    indices: jax.Array,
    mask: jax.Array,
    space: Space,
  ) -> tuple[jax.Array, EmaState]:
    num_codes = weights.shape[0]
    z = jnp.where(mask[:, None], space.inverse(z, indices), 0)
    sums = jnp.zeros_like(weights).at[indices].add(z)
    fresh = EmaState(ops.code_counts(indices, num_codes, mask), sums)
    mix = lambda old, new: self.decay * old + (1 - self.decay) * new
    state = jax.tree.map(mix, state, fresh)
    total = jnp.sum(state.counts)
    smoothed = (state.counts + self.epsilon) * (total / (total + num_codes * self.epsilon))
    moved = state.sums / jnp.maximum(smoothed, TINY)[:, None]
    if self.hold:
      moved = jnp.where((state.counts > 100 * self.epsilon)[:, None], moved, weights)
    return moved, state

  def reset(self, state: EmaState, weights: jax.Array, replaced: jax.Array) -> EmaState:
    # A revived code weighs as much as an average one: lighter, it would be dead again at once;
    # and its sum must go with it, or the next update would carry it back.
    counts = jnp.where(replaced, jnp.maximum(jnp.mean(state.counts), self.epsilon), state.counts)
    sums = jnp.where(replaced[:, None], weights * counts[:, None], state.sums)
    return EmaState(counts, sums)


@dataclasses.dataclass(frozen=True)
class Alternating:
  """One step of the codebook's own optimizer in every forward, before its codes are handed on.

  Minimises `mean((c_i - sg z)^2)` over the weights with the assignment held fixed, then gathers
  the same indices from the moved codebook: inner and outer problem take turns. Huh et al. (ICML
  2023), section 4.3; vqtorch's `inplace_optimizer`. Under a transform the gradient goes through
  it; in groups and levels each codebook has its own state. Deviation: vqtorch's fails under its
  affine map, and moves nothing in groups and levels.

  Attributes:
    optimizer: any optax transformation, such as `optax.sgd(50.0, momentum=0.9)`; by name,
      `NamedOptimizer.of('sgd', learning_rate=50.0, momentum=0.9)`, it can be written in a config
      and does not compile again where it is built again.
  """

  optimizer: Optimizer
  regather: ClassVar[bool] = True

  def init(self, weights: jax.Array) -> Any:
    return self.optimizer.init(weights)

  def update(
    self,
    weights: jax.Array,
    state: Any,
    z: jax.Array,
    indices: jax.Array,
    mask: jax.Array,
    space: Space,
  ) -> tuple[jax.Array, Any]:
    def distortion(weights: jax.Array) -> jax.Array:
      return ops.masked_mean(jnp.square(space.codes(weights)[indices] - z), mask)

    gradient = jax.grad(distortion)(weights)
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes
      updates, state = self.optimizer.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state

  def reset(self, state: Any, weights: jax.Array, replaced: jax.Array) -> Any:
    def anew(leaf: Any) -> Any:
      return jnp.where(replaced[:, None], 0, leaf) if jnp.shape(leaf) == weights.shape else leaf

    return jax.tree.map(anew, state)


@dataclasses.dataclass(frozen=True)
class Frozen:
  """Moves nothing: weights stay as they were drawn, and only a learned transform moves codes.

  SimVQ (arXiv 2411.02038) with `transform=Linear()`; a random projection quantizer without.
  """

  regather: ClassVar[bool] = False

  def init(self, weights: jax.Array) -> dict[str, Any]:
    del weights
    return {}

  def update(
    self,
    weights: jax.Array,
    state: dict[str, Any],
    z: jax.Array,
    indices: jax.Array,
    mask: jax.Array,
    space: Space,
  ) -> tuple[jax.Array, dict[str, Any]]:
    del z, indices, mask, space
    return weights, state

  def reset(self, state: dict[str, Any], weights: jax.Array, replaced: jax.Array) -> dict[str, Any]:
    del weights, replaced
    return state
