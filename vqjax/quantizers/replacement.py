"""Which codes are dead. The layer watches its codes; `reviving.py` replaces them between steps.

In every training forward the layer notes which codes were taken, and keeps a pool of rows drawn at
random from those that this codebook saw: in a group, slices of the rows; in a level of a residual,
what the levels before left over; under a transform or on a sphere, rows as codes are compared with
them.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

Watched = dict[str, jax.Array]  # {'state': [K], 'pool': [P D], 'pool_size': []}


class Replacement(Protocol):
  """A policy of what dead means; pure functions of what the layer has watched.

  Attributes:
    noise: a revived code is its row plus normal noise of this fraction of the row's length per
      element.
    start: the state of a code at its start, and of one just revived.
  """

  @property
  def noise(self) -> float: ...

  @property
  def start(self) -> float: ...

  def init(self, num_codes: int, width: int) -> Watched:
    """At the start, for K codes of width D: {'state': [K], 'pool': [P D], 'pool_size': []}."""

  def observe(
    self, now: Watched, key: jax.Array, counts: jax.Array, rows: jax.Array, mask: jax.Array
  ) -> Watched:
    """After a training forward.

    Args:
      now: as `init` or the last `observe` made it.
      key: for the draw of rows.
      counts: rows that took each code [K].
      rows: as codes are compared with them [N D].
      mask: rows that count [N].
    """

  def dead(self, state: jax.Array) -> jax.Array:
    """Which codes are dead: [K] -> bool [K]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Policy:
  """What all policies share.

  Attributes:
    noise: a revived code is its row plus normal noise of this fraction of the row's length per
      element (vqtorch has 0.01).
    max_per_step: rows kept in the pool, and so codes replaced at a time, at the most; None: K.
      Never more than there are rows in a batch: further dead codes wait for the next.
  """

  noise: float = 0.01
  max_per_step: int | None = None

  # What this policy keeps of each code at its start, and for a code just revived.
  start: ClassVar[float]

  def __post_init__(self) -> None:
    if self.noise < 0:
      raise ValueError(f'{type(self).__name__}.noise is {self.noise}; legal: at least 0.')
    if self.max_per_step is not None and self.max_per_step < 1:
      raise ValueError(
        f'{type(self).__name__}.max_per_step is {self.max_per_step}; legal: at least 1, or None.'
      )

  def init(self, num_codes: int, width: int) -> Watched:
    pool = min(num_codes, self.max_per_step or num_codes)
    return {
      'state': jnp.full(num_codes, self.start, jnp.float32),
      'pool': jnp.zeros((pool, width), jnp.float32),
      'pool_size': jnp.zeros((), jnp.int32),
    }

  def observe(
    self, now: Watched, key: jax.Array, counts: jax.Array, rows: jax.Array, mask: jax.Array
  ) -> Watched:
    some = jnp.any(mask)
    size = min(now['pool'].shape[0], rows.shape[0])
    draw = jnp.where(mask, jax.random.uniform(key, mask.shape), -1)
    _, chosen = jax.lax.top_k(draw, size)
    fresh = jnp.where(mask[chosen][:, None], rows[chosen], 0)
    valid = jnp.minimum(jnp.sum(mask, dtype=jnp.int32), size)
    return {
      'state': jnp.where(some, self.update(now['state'], counts), now['state']),
      'pool': jnp.where(some, now['pool'].at[:size].set(fresh), now['pool']),
      'pool_size': jnp.where(some, valid, now['pool_size']),
    }

  def update(self, state: jax.Array, counts: jax.Array) -> jax.Array:
    """The state [K] after a forward whose rows took the codes `counts` [K] times."""
    raise NotImplementedError

  def dead(self, state: jax.Array) -> jax.Array:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LeastRecent(_Policy):
  """A code is dead once `timeout` training forwards in a row did not take it.

  State: the age, in forwards since the code was taken. vqtorch's `replace_freq`.
  """

  timeout: int = 100
  start: ClassVar[float] = 0.0

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.timeout < 1:
      raise ValueError(f'LeastRecent.timeout is {self.timeout}; legal: at least 1.')

  def update(self, state: jax.Array, counts: jax.Array) -> jax.Array:
    return jnp.where(counts > 0, 0, state + 1)

  def dead(self, state: jax.Array) -> jax.Array:
    return state >= self.timeout


@dataclasses.dataclass(frozen=True)
class RarelyUsed(_Policy):
  """A code is dead once its moving average of use falls below a fraction of the fair share.

  State: `s_k <- d s_k + (1 - d) n_k K / N`, 1 at the start, where N rows over K codes make a fair
  share of N / K. As SoundStream's expiry (vector-quantize-pytorch's `threshold_ema_dead_code`),
  with a threshold that means the same whatever batch and codebook: theirs is in rows a step, so
  that a step with fewer rows than codes times threshold kills nearly all of them.

  Attributes:
    threshold: fraction of the fair share, in (0, 1).
    decay: d of the average. Unused, a code lives log(threshold) / log(decay) forwards.
  """

  threshold: float = 0.1
  decay: float = 0.98
  start: ClassVar[float] = 1.0

  def __post_init__(self) -> None:
    super().__post_init__()
    for field in ('threshold', 'decay'):
      if not 0 < getattr(self, field) < 1:
        raise ValueError(f'RarelyUsed.{field} is {getattr(self, field)}; legal: 0 < {field} < 1.')

  def update(self, state: jax.Array, counts: jax.Array) -> jax.Array:
    share = counts * (counts.shape[0] / jnp.maximum(jnp.sum(counts), 1))
    return self.decay * state + (1 - self.decay) * share

  def dead(self, state: jax.Array) -> jax.Array:
    return state < self.threshold
