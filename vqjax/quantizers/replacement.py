"""Reviving dead codes: the layer watches its codes, a pure edit between steps replaces them.

A policy, `VectorQuantizer.replacement`, says what dead means. In every training forward the layer
notes which codes were taken and keeps a pool of random rows of its own: of its group, of its
level's residual, in the space of its codes. `replace_dead_codes` then writes pool rows over dead
codes, whoever owns the codebook, on the weights' side of a transform, and starts counts and
optimizer moments of those codes anew.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vqjax.quantizers.codebooks import at, codebook_paths, put


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

  def __post_init__(self):
    if self.noise < 0:
      raise ValueError(f'{type(self).__name__}.noise is {self.noise}; legal: at least 0.')
    if self.max_per_step is not None and self.max_per_step < 1:
      raise ValueError(
        f'{type(self).__name__}.max_per_step is {self.max_per_step}; legal: at least 1, or None.'
      )

  def init(self, num_codes, width):
    """State of K codes of width D: {'state': [K], 'pool': [P D], 'pool_size': []}."""
    pool = min(num_codes, self.max_per_step or num_codes)
    return {
      'state': jnp.full(num_codes, self.start, jnp.float32),
      'pool': jnp.zeros((pool, width), jnp.float32),
      'pool_size': jnp.zeros((), jnp.int32),
    }

  def observe(self, now, key, counts, rows, mask):
    """After a forward: counts [K] of its codes, its rows [N D], those with `mask` [N] true."""
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

  def update(self, state, counts):
    raise NotImplementedError

  def dead(self, state):
    """Which codes are dead: [K] -> bool [K]."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LeastRecent(_Policy):
  """A code is dead once `timeout` training forwards in a row did not take it.

  State: the age, in forwards since the code was taken. vqtorch's `replace_freq`.
  """

  timeout: int = 100
  start: ClassVar[float] = 0.0

  def __post_init__(self):
    super().__post_init__()
    if self.timeout < 1:
      raise ValueError(f'LeastRecent.timeout is {self.timeout}; legal: at least 1.')

  def update(self, state, counts):
    return jnp.where(counts > 0, 0, state + 1)

  def dead(self, state):
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

  def __post_init__(self):
    super().__post_init__()
    for field in ('threshold', 'decay'):
      if not 0 < getattr(self, field) < 1:
        raise ValueError(f'RarelyUsed.{field} is {getattr(self, field)}; legal: 0 < {field} < 1.')

  def update(self, state, counts):
    share = counts * (counts.shape[0] / jnp.maximum(jnp.sum(counts), 1))
    return self.decay * state + (1 - self.decay) * share

  def dead(self, state):
    return state < self.threshold


def replace_dead_codes(quantizer, variables, key, *, opt_state=None):
  """Overwrites dead codes by rows of the last training forward: a pure edit between two steps.

  Args:
    quantizer: the quantizer, with whatever wrappers, whose `replacement` is set.
    variables: {'params': ..., 'vq': ...}, its own or those of a model that it is a part of.
    key: of the noise.
    opt_state: of any optax optimizer of `params`, to start moments of replaced codes anew: arrays
      of the codebook's shape under its path. Factored statistics are left as they are.

  Returns:
    (variables, opt_state).

  Raises:
    ValueError: the quantizer has no `replacement`, or the variables none of its state.
  """
  core = quantizer.core
  if not hasattr(core, 'replacement'):
    raise ValueError(f'{type(core).__name__} has no codes to replace; legal: VectorQuantizer.')
  if core.replacement is None:
    raise ValueError(
      f'{type(core).__name__}.replacement is None; set it to LeastRecent() or RarelyUsed().'
    )
  watched = variables.get('vq', {})
  paths = codebook_paths(core, variables)
  paths = [path for path in paths if 'replacement' in (at(watched, path) or {})]
  if not paths:
    raise ValueError(
      "variables have no 'replacement' under 'vq'; initialise with the replacement in place."
    )
  edited = dict(variables)
  for path, path_key in zip(paths, jax.random.split(key, len(paths)), strict=True):
    own = {name: at(tree, path) for name, tree in edited.items()}
    own, replaced = _revive(core, own, path_key)
    edited |= {n: put(edited[n], path, node) for n, node in own.items() if node is not None}
    if core.learner is None and opt_state is not None:
      shape = own['params']['codebook'].shape
      opt_state = _reset_moments(opt_state, (*path, 'codebook'), shape, replaced)
  return edited, opt_state


def _reset_moments(opt_state, path, shape, replaced):
  """Zeros in the rows `replaced` [K] of all arrays of that shape [K D] that stand at `path`."""

  def reset(leaf_path, leaf):
    names = tuple(entry.key for entry in leaf_path if isinstance(entry, jax.tree_util.DictKey))
    if names[-len(path) :] != path or jnp.shape(leaf) != shape:
      return leaf
    return jnp.where(replaced[:, None], 0, leaf)

  return jax.tree_util.tree_map_with_path(reset, opt_state)


def _revive(core, own, key):
  """Replaces the dead codes of one codebook; returns (its variables, replaced [K])."""
  policy, owner = core.replacement, core.codebook_owner
  now, weights = own['vq']['replacement'], own[owner]['codebook']
  dead = policy.dead(now['state'])
  rank = jnp.cumsum(dead) - 1  # the r-th dead code takes the r-th row of the pool
  replaced = dead & (rank < now['pool_size'])
  rows = now['pool'][jnp.clip(rank, 0, now['pool'].shape[0] - 1)]  # [K D]
  length = jnp.linalg.norm(rows, axis=-1, keepdims=True)
  rows = rows + policy.noise * length * jax.random.normal(key, rows.shape, jnp.float32)
  fresh = core.space(own).inverse(rows, jnp.arange(core.num_codes))
  weights = jnp.where(replaced[:, None], fresh, weights)
  state = jnp.where(replaced, policy.start, now['state'])
  own = own | {'vq': own['vq'] | {'replacement': now | {'state': state}}}
  own[owner] = own[owner] | {'codebook': weights}
  if core.learner is not None:
    learner = core.learner.reset(own['vq']['learner'], weights, replaced)
    own['vq'] = own['vq'] | {'learner': learner}
  return own, replaced
