"""Reviving dead codes: a pure edit of the variables, between two steps.

Rows that the layer kept while training (`replacement.py`) are written over the codes that its
policy calls dead, whoever moves the codebook otherwise; under a transform, as the weights whose
codes they are.
"""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from vqjax.quantizers.codebooks import CodebookLayer, Path, at, codebook_paths, put
from vqjax.quantizers.quantizer import Quantizer
from vqjax.quantizers.replacement import Replacement


def replace_dead_codes(
  quantizer: Quantizer, variables: Mapping[str, Any], key: jax.Array, *, opt_state: Any = None
) -> tuple[dict[str, Any], Any]:
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
  kind = type(quantizer.core).__name__
  if not quantizer.has_codebook:
    raise ValueError(f'{kind} has no codes to replace; legal: VectorQuantizer.')
  if not quantizer.replaces_codes:
    raise ValueError(f'{kind}.replacement is None; set it to LeastRecent() or RarelyUsed().')
  core = cast(CodebookLayer, quantizer.core)
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


def _reset_moments(opt_state: Any, path: Path, shape: tuple[int, ...], replaced: jax.Array) -> Any:
  """Zeros in the rows `replaced` [K] of all arrays of that shape [K D] that stand at `path`."""

  def reset(leaf_path: Any, leaf: Any) -> Any:
    names = tuple(entry.key for entry in leaf_path if isinstance(entry, jax.tree_util.DictKey))
    if names[-len(path) :] != path or jnp.shape(leaf) != shape:
      return leaf
    return jnp.where(replaced[:, None], 0, leaf)

  return jax.tree_util.tree_map_with_path(reset, opt_state)


def _revive(
  core: CodebookLayer, own: dict[str, Any], key: jax.Array
) -> tuple[dict[str, Any], jax.Array]:
  """Replaces the dead codes of one codebook; returns (its variables, replaced [K])."""
  policy, owner = cast(Replacement, core.replacement), core.codebook_owner
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
