"""Seeding codebooks by k-means from the first features, before step 0."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from vqjax.quantizers.codebooks import CodebookLayer, Path, at, codebook_paths, put
from vqjax.quantizers.kmeans import kmeans
from vqjax.quantizers.quantizer import Quantizer
from vqjax.quantizers.vector import COUNTED, ROWS


def seed_codebooks(
  quantizer: Quantizer,
  variables: Mapping[str, Any],
  z: jax.Array,
  key: jax.Array,
  *,
  mask: jax.Array | None = None,
  iters: int = 10,
  farthest_first: bool = False,
) -> Mapping[str, Any]:
  """Puts the codes of every codebook on the k-means centres of the rows that it sees.

  `quantizer` may have any wrappers; each codebook is seeded from its own rows: of its group, and
  of the residual that the levels before it, already seeded, leave over; a shared one from those
  of all. Centres are found by k-means++ and Lloyd's iterations (kmeans.py). Under a
  transform the weights become those whose codes are the centres; a learner starts from there. Fewer
  rows than codes still give K codes.

  Args:
    quantizer: the quantizer whose codebooks to seed.
    variables: {'params': ..., 'vq': ...}, its own or those of a model that it is a part of.
    z: features to seed from, as they reach the quantizer [... D].
    key: of the sampling.
    mask: rows that count [...], or None.
    iters: Lloyd's iterations.
    farthest_first: the deterministic start that vqtorch calls k-means++.

  Returns:
    variables with codebooks and learners' states replaced.

  Raises:
    ValueError: a quantizer without a codebook, or variables with none of it or of several such.
  """
  if not quantizer.has_codebook:
    kind = type(quantizer.core).__name__
    raise ValueError(f'{kind} has no codebook to seed; legal: VectorQuantizer.')
  core = cast(CodebookLayer, quantizer.core)
  owner = core.codebook_owner
  place, paths = _place(quantizer, core, variables, z)
  whole, variables = variables, {name: at(tree, place) for name, tree in variables.items()}
  variables = {name: tree for name, tree in variables.items() if tree is not None}
  for path, path_key in zip(paths, jax.random.split(key, len(paths)), strict=True):
    # Anew for each: the rows of a level depend on the levels before it.
    _, seen = quantizer.apply(variables, z, train=False, mask=mask, mutable=['intermediates'])
    node = at(seen['intermediates'], path)
    centres = kmeans(
      path_key,
      jnp.concatenate(node[ROWS], axis=0),
      core.num_codes,
      iters=iters,
      mask=jnp.concatenate(node[COUNTED], axis=0),
      sphere=core.sphere,
      farthest_first=farthest_first,
    )
    own = {name: at(tree, path) for name, tree in variables.items()}
    weights = core.space(own).inverse(centres, jnp.arange(core.num_codes))
    edited = {owner: own[owner] | {'codebook': weights}}
    if core.learner is not None:
      edited['vq'] |= {'learner': core.learner.init(weights)}
    if core.replacement is not None:  # no seeded code is dead
      edited['vq'] = edited.get('vq', own['vq']) | {
        'replacement': core.replacement.init(*weights.shape)
      }
    variables = {**variables, **{n: put(variables[n], path, node) for n, node in edited.items()}}
  return {**whole, **{name: put(whole[name], place, tree) for name, tree in variables.items()}}


def _place(
  quantizer: Quantizer, core: CodebookLayer, variables: Mapping[str, Any], z: jax.Array
) -> tuple[Path, list[Path]]:
  """Where in the variables of a model the quantizer is, and its codebooks, counted from there."""
  key = jax.random.key(0)
  alone = jax.eval_shape(lambda rows: quantizer.fresh().init(key, rows, train=True), z)
  paths = codebook_paths(core, alone)
  found = codebook_paths(core, variables)
  place = found[0][: len(found[0]) - len(paths[0])] if found else ()
  if found != [(*place, *path) for path in paths]:
    raise ValueError(
      f'variables have {len(found)} codebooks of {core.num_codes} codes, and the quantizer '
      f'{len(paths)}; legal: its own variables, or those of a model with it alone.'
    )
  return place, paths
