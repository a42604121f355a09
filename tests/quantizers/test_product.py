"""Properties that hold for every combination of choices; every pair of choices occurs."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import (
  Affine,
  Alternating,
  Directional,
  Ema,
  Entropy,
  Frozen,
  Grouped,
  Gumbel,
  LeastRecent,
  Linear,
  Nearest,
  Orthogonality,
  RarelyUsed,
  Residual,
  RunningAffine,
  Sinkhorn,
  Stochastic,
  Sync,
  VectorQuantizer,
  reflection,
  replace_dead_codes,
  rotation,
  straight_through,
  tangent_rotation,
)

SGD = optax.sgd(0.5, momentum=0.9)
CHOICES = {
  'assign': [Nearest(), Sinkhorn(), Stochastic(0.5), Gumbel(optax.linear_schedule(2.0, 0.5, 100))],
  'estimator': [
    *(straight_through, rotation, tangent_rotation, reflection),
    *(Sync(rotation, 0.5), Directional()),
  ],
  'learner': [None, Ema(0.8), Alternating(SGD), Frozen()],
  'transform': [None, Linear(bias=True), Affine(2.0, groups=4), RunningAffine(groups=2)],
  'structure': [
    lambda base: base,
    lambda base: Grouped(base, 2),
    lambda base: Grouped(base, 2, share=False),
    lambda base: Residual(base, 3, share=True),
    lambda base: Residual(base, 3),
    lambda base: Residual(Grouped(base, 2, share=False), 2, level_loss='total'),
    lambda base: Grouped(Residual(base, 2, min_depth=1), 2),
  ],
  'sphere': [False, True],
  'loss': ['l2', 'l1', 'cross_entropy'],
  'replacement': [None, LeastRecent(2), RarelyUsed(0.5, 0.5, max_per_step=3)],
  'regularizers': [(), (Entropy(0.1), Orthogonality(0.1))],
}


def build(choice):
  """The quantizer of a choice {field: index}, or None where it is refused."""
  fields = {name: CHOICES[name][i] for name, i in choice.items()}
  structure = fields.pop('structure')
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Rotation|Reflection')
    try:
      normal = jax.nn.initializers.normal(1.0)
      return structure(VectorQuantizer(16, codebook_init=normal, **fields))
    except ValueError:
      return None


def all_pairs():
  """Choices such that every legal pair of values of two fields occurs in at least one."""
  pairs = {
    frozenset([(a, i), (b, j)])
    for a, b in itertools.combinations(CHOICES, 2)
    for i in range(len(CHOICES[a]))
    for j in range(len(CHOICES[b]))
  }
  covered = lambda choice: {frozenset(p) for p in itertools.combinations(choice.items(), 2)}
  random, found = np.random.default_rng(0), []
  draw = lambda: {name: int(random.integers(len(values))) for name, values in CHOICES.items()}
  misses = 0
  while pairs and misses < 40:
    candidates = [choice for choice in (draw() for _ in range(60)) if build(choice)]
    best = max(candidates, key=lambda choice: len(covered(choice) & pairs))
    misses = misses + 1 if not covered(best) & pairs else 0
    if covered(best) & pairs:
      found.append(best)
      pairs -= covered(best)
  return found, pairs


FOUND, MISSING = all_pairs()
every = pytest.mark.parametrize('choice', FOUND, ids=lambda c: '-'.join(map(str, c.values())))
RNGS = {'params': jax.random.key(0), 'vq': jax.random.key(1)}


def test_only_impossible_pairs_are_missing():
  values = [{name: CHOICES[name][i] for name, i in pair} for pair in MISSING]
  for pair in values:
    gumbel = isinstance(pair.get('assign'), Gumbel) and pair.get('estimator') != straight_through
    sync = isinstance(pair.get('estimator'), Sync) and pair.get('learner') is not None
    total = pair.get('loss') == 'cross_entropy' and 'structure' in pair
    running = isinstance(pair.get('transform'), RunningAffine) and 'structure' in pair
    assert gumbel or sync or total or running, pair
  assert len(MISSING) < 12


def make(choice, batch=2):
  vq = build(choice)
  z = jax.random.normal(jax.random.key(2), (batch, 6, 8))
  return vq, vq.init(RNGS, z, train=True), z


def step(vq, variables, z, mask=None):
  """((gradients for params and z), Quantized, state)."""

  def objective(params, z):
    out, state = vq.apply(
      {**variables, 'params': params},
      z,
      train=True,
      mask=mask,
      mutable=['vq'],
      rngs={'vq': jax.random.key(3)},
    )
    seen = out.z_q if mask is None else jnp.where(mask[..., None], out.z_q, 0)
    return (out.loss + jnp.sum(jnp.cos(seen.astype(jnp.float32)))), (out, state)

  grads, (out, state) = jax.grad(objective, (0, 1), has_aux=True)(variables.get('params', {}), z)
  return grads, out, state


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@every
def test_value_is_the_gathered_code_and_tokens_round_trip(choice):
  vq, variables, z = make(choice)
  _, out, state = step(vq, variables, z)
  now = {**variables, **state} if moves_before_the_codes_are_taken(vq) else variables
  assert (out.z_q == vq.apply(now, out.indices, method='lookup')).all()
  assert out.indices.dtype == jnp.int32
  assert out.indices.shape == z.shape[:-1] + out.indices.shape[z.ndim - 1 :]
  assert out.indices.ndim == z.ndim - 1 + vq.token_axes
  still = vq.apply(variables, z, train=False)
  assert (still.z_q == vq.apply(variables, still.indices, method='lookup')).all()
  assert (still.indices >= 0).all()
  _, frozen = vq.apply(variables, z, train=False, mutable=['vq'])
  equal(frozen.get('vq', {}), variables.get('vq', {}))


def moves_before_the_codes_are_taken(vq):
  return isinstance(vq.core.learner, Alternating) or isinstance(vq.core.transform, RunningAffine)


@every
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
def test_gradients_are_finite_and_trees_are_kept(choice, dtype):
  vq, variables, z = make(choice)
  code = vq.apply(
    variables, jnp.zeros((1, *[n for n in token_shape(vq)]), jnp.int32), method='lookup'
  )[0]
  z = z.at[0, 0].set(-code).at[0, 1].set(0).at[0, 2].set(code).astype(dtype)
  grads, out, state = jax.jit(functools.partial(step, vq))(variables, z)
  assert out.z_q.dtype == grads[1].dtype == dtype
  finite = lambda tree: all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
  assert finite((grads, out, state))
  assert (grads[1] != 0).any()
  described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert described(state.get('vq', {})) == described(variables.get('vq', {}))
  assert all(leaf.dtype in (jnp.float32, jnp.int32, bool) for leaf in jax.tree.leaves(state))


def token_shape(vq):
  """Shape of one row's tokens."""
  sizes, node = [], vq
  while node is not vq.core:
    sizes.append(node.groups if isinstance(node, Grouped) else node.depth)
    node = node.base
  return sizes


@every
def test_a_mask_of_ones_is_no_mask_and_padding_changes_nothing(choice):
  vq, variables, z = make(choice)
  run = jax.jit(functools.partial(step, vq))
  equal(run(variables, z), run(variables, z, jnp.ones(z.shape[:-1], bool)))
  mask = jnp.zeros(z.shape[:-1], bool).at[:, :4].set(True)
  a, b = (run(variables, z.at[:, 4:].set(value), mask) for value in (3.0, jnp.nan))
  equal((a[0][0], a[1].loss, a[1].metrics, a[2]), (b[0][0], b[1].loss, b[1].metrics, b[2]))
  front = lambda r: (r[0][1][:, :4], r[1].z_q[:, :4], r[1].indices[:, :4])
  equal(front(a), front(b))
  assert (a[0][1][:, 4:] == 0).all()


@every
def test_eight_devices_give_what_one_gives(choice):
  vq, variables, z = make(choice, batch=16)
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  run = jax.jit(functools.partial(step, vq))
  put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
  one = run(variables, z)
  many = run(put(variables, PartitionSpec()), put(z, PartitionSpec('data')))
  assert (one[1].indices == many[1].indices).all()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), one, many)


@every
def test_dead_codes_are_replaced_where_they_live(choice):
  vq, variables, z = make(choice)
  if vq.core.replacement is None:
    with pytest.raises(ValueError, match='replacement is None; set it to LeastRecent'):
      replace_dead_codes(vq, variables, RNGS['vq'])
    return
  z = jnp.tile(z[:1, :1], (2, 6, 1)) + 0.01 * z  # few codes are enough for these
  owner = 'params' if vq.core.learner is None else 'vq'
  for _ in range(3):
    _, _, state = step(vq, variables, z)
    variables = {**variables, **state}
  revived, _ = replace_dead_codes(vq, variables, RNGS['vq'])
  before, after = variables[owner], revived[owner]
  changed = jax.tree.map(lambda a, b: (a != b).any(), before, after)
  assert any(jax.tree.leaves(changed))
  described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert described(revived) == described(variables)
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(revived))
