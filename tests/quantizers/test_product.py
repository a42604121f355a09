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
  replace_dead_codes,
  rotation,
  straight_through,
  tangent_rotation,
)

SGD = optax.sgd(0.5, momentum=0.9)
CHOICES = {
  'assign': [Nearest(), Sinkhorn(), Stochastic(0.5), Gumbel(optax.linear_schedule(2.0, 0.5, 100))],
  'estimator': [
    *(straight_through, rotation, tangent_rotation, Sync(rotation, 0.5), Directional()),
  ],
  'learner': [None, Ema(0.8), Alternating(SGD), Frozen()],
  'transform': [None, Linear(bias=True), Affine(2.0, groups=4), RunningAffine(groups=2)],
  'structure': [
    lambda base: base,
    lambda base: Grouped(base, 2),
    lambda base: Grouped(base, 2, share=False),
    lambda base: Residual(base, 2, share=True),
    lambda base: Residual(Grouped(base, 2, share=False), 2, level_loss='total'),
    lambda base: Grouped(Residual(base, 2, min_depth=1), 2),
  ],
  'sphere': [False, True],
  'replacement': [None, LeastRecent(2), RarelyUsed(0.5, 0.5, max_per_step=3)],
}
# Drawn for each combination, without a claim to all pairs.
MORE = {
  'loss': ['l2', 'l1', 'cross_entropy'],
  'regularizers': [(), (Entropy(0.1), Orthogonality(0.1))],
}


def build(choice):
  """The quantizer of a choice {field: index}, or None where it is refused."""
  fields = {name: (CHOICES | MORE)[name][i] for name, i in choice.items()}
  structure = fields.pop('structure')
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', '.*known to diverge')
    try:
      normal = jax.nn.initializers.normal(1.0)
      return structure(VectorQuantizer(16, codebook_init=normal, **fields))
    except ValueError:
      return None


def all_pairs():
  """Choices such that every legal pair of values of two fields occurs; and pairs that do not."""
  pairs = {
    frozenset([(a, i), (b, j)])
    for a, b in itertools.combinations(CHOICES, 2)
    for i in range(len(CHOICES[a]))
    for j in range(len(CHOICES[b]))
  }
  covered = lambda choice: {frozenset(p) for p in itertools.combinations(choice.items(), 2)}
  random, found = np.random.default_rng(0), []
  every = (CHOICES | MORE).items()
  draw = lambda: {name: int(random.integers(len(values))) for name, values in every}
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
    sync = isinstance(pair.get('estimator'), Sync | Directional) and pair.get('learner') is not None
    running = isinstance(pair.get('transform'), RunningAffine) and 'structure' in pair
    assert gumbel or sync or running, pair
  assert len(MISSING) < 14


# Each combination is compiled to run a few times: the time goes into the compiler.
quick = functools.partial(
  jax.jit,
  compiler_options={'xla_llvm_disable_expensive_passes': True, 'xla_backend_optimization_level': 0},
)


def make(choice):
  """(quantizer, variables, rows [16 6 8], the same with some that are degenerate).

  Every third combination is in bfloat16.
  """
  vq = build(choice)
  z = jax.random.normal(jax.random.key(2), (16, 6, 8))
  out, variables = quick(lambda z: vq.init_with_output(RNGS, z, train=True))(z)
  code = out.z_q[3, 3]
  # An antipodal row, a zero row, a row that is its code.
  hard = z.at[0, 0].set(-code).at[0, 1].set(0).at[0, 2].set(code)
  dtype = jnp.bfloat16 if FOUND.index(choice) % 3 == 0 else jnp.float32
  return vq, variables, z.astype(dtype), hard.astype(dtype)


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
    return (out.loss + jnp.mean(jnp.cos(seen.astype(jnp.float32)))), (out, state)

  grads, (out, state) = jax.grad(objective, (0, 1), has_aux=True)(variables.get('params', {}), z)
  return grads, out, state


def when_codes_were_taken(vq, before, after):
  """Variables that the codes of a training forward came from."""
  running = isinstance(vq.core.transform, RunningAffine)
  moved = {'transform'} if running else set()
  if isinstance(vq.core.learner, Alternating):
    moved |= {'codebook'}
  pick = lambda path, old, new: new if moved & {getattr(key, 'key', None) for key in path} else old
  vq_now = jax.tree_util.tree_map_with_path(pick, before.get('vq', {}), after.get('vq', {}))
  return {**before, 'vq': vq_now}


equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)
described = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
finite = lambda tree: all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def almost_equal(a, b, atol=1e-6):
  def compare(a, b):
    rtol = 1e-2 if a.dtype == jnp.bfloat16 else 1e-5
    wide = (np.asarray(x, np.float32) for x in (a, b))
    np.testing.assert_allclose(*wide, rtol=rtol, atol=atol)

  jax.tree.map(compare, a, b)


@every
def test_properties(choice):
  vq, variables, z, hard = make(choice)
  run = quick(functools.partial(step, vq))
  lookup = quick(lambda v, tokens: vq.apply(v, tokens, method='lookup').astype(z.dtype))
  ones = jnp.ones(z.shape[:-1], bool)
  grads, out, state = run(variables, hard, ones)

  # Gradients are finite and reach the encoder, and trees keep their shape and types.
  assert out.z_q.dtype == grads[1].dtype == z.dtype
  assert out.indices.dtype == jnp.int32
  assert out.indices.ndim == z.ndim - 1 + vq.token_axes
  assert finite((grads, out, state))
  assert (grads[1] != 0).any()
  assert described(state.get('vq', {})) == described(variables.get('vq', {}))

  # The value is the gathered code, bit for bit where two programs compute the same bits.
  then = when_codes_were_taken(vq, variables, state)
  stored = vq.core.transform is None and not vq.core.sphere
  same = equal if stored else almost_equal
  same(out.z_q, lookup(then, out.indices))
  still = quick(lambda v, z: vq.apply(v, z, train=False))(variables, hard)
  same(still.z_q, lookup(variables, still.indices))
  assert (still.indices >= 0).all()

  # What stands in masked rows changes nothing, be it NaN.
  mask = ones.at[:, 4:].set(False)
  a, b = (run(variables, z.at[:, 4:].set(value), mask) for value in (3.0, jnp.nan))
  front = lambda r: (r[0][1][:, :4], r[1].z_q[:, :4], r[1].indices[:, :4])
  equal(
    (a[0][0], a[1].loss, a[1].metrics, a[2], front(a)),
    (b[0][0], b[1].loss, b[1].metrics, b[2], front(b)),
  )
  assert (a[0][1][:, 4:] == 0).all()

  # Eight devices without a mask give what one gives with a mask of ones.
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
  grads, out, state = run(variables, z, ones)
  many = run(put(variables, PartitionSpec()), put(z, PartitionSpec('data')))
  equal(out.indices, many[1].indices)
  almost_equal((state, out.loss), (many[2], many[1].loss))
  almost_equal(grads, many[0], atol=1e-5)

  # Dead codes are replaced where they live.
  if vq.core.replacement is None:
    with pytest.raises(ValueError, match='replacement is None; set it to LeastRecent'):
      replace_dead_codes(vq, variables, RNGS['vq'])
    return
  for _ in range(3):
    variables = {**variables, **run(variables, z[:1, 3:4] + 0.01 * z, ones)[2]}
  states = [v for k, v in jax.tree_util.tree_leaves_with_path(variables) if "'state'" in str(k[-1])]
  dead = any(vq.core.replacement.dead(state).any() for state in states)
  assert dead or isinstance(vq.core.assign, Stochastic | Gumbel | Sinkhorn)
  revived, _ = quick(functools.partial(replace_dead_codes, vq))(variables, RNGS['vq'])
  owner = 'params' if vq.core.learner is None else 'vq'
  changed = jax.tree.map(lambda a, b: (a != b).any(), variables[owner], revived[owner])
  assert any(jax.tree.leaves(changed)) == dead
  assert described(revived) == described(variables)
  assert finite(revived)


@pytest.mark.parametrize('choice', FOUND[:4], ids=lambda c: '-'.join(map(str, c.values())))
def test_bit_for_bit(choice):
  """Not under jit, where two programs may round differently."""
  vq, variables, _, z = make(choice)
  plain = step(vq, variables, z)
  equal(plain, step(vq, variables, z, jnp.ones(z.shape[:-1], bool)))
  then = when_codes_were_taken(vq, variables, plain[2])
  codes = vq.apply(then, plain[1].indices, method='lookup')
  equal(plain[1].z_q, codes.astype(z.dtype))
