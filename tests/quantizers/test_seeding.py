import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.quantizers import (
  FSQ,
  Affine,
  Ema,
  Grouped,
  Linear,
  Residual,
  VectorQuantizer,
  kmeans,
  seed_codebooks,
)
from vqjax.quantizers.codebooks import codebook_paths

KEY = jax.random.key(0)


def blobs(width=4, count=16, seed=1):
  means = 10 * jax.random.normal(jax.random.key(seed), (count, width))
  noise = 0.1 * jax.random.normal(jax.random.key(seed + 1), (20, count, width))
  return means, (means[None] + noise).reshape(4, -1, width)


@pytest.mark.parametrize('transform', [None, Affine(2.0, groups=2), Linear(bias=True)], ids=str)
@pytest.mark.parametrize('learner', [None, Ema(0.9)], ids=['gradient', 'ema'])
def test_codes_start_on_the_centres(learner, transform):
  _, z = blobs()
  vq = VectorQuantizer(16, learner=learner, transform=transform)
  variables = vq.init(KEY, z, train=True)
  far = vq.apply(variables, z, train=False)
  seeded = jax.jit(lambda v, z: seed_codebooks(vq, v, z, KEY))(variables, z)
  out = vq.apply(seeded, z, train=False)
  assert far.metrics['commitment'] > 10
  assert out.metrics['commitment'] < 0.1  # 0.01 is the blobs' own variance
  assert out.metrics['usage'] == 1
  described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert described(seeded) == described(variables)
  if learner is not None:
    # The learner starts from the centres: one more batch does not carry them off.
    _, state = vq.apply(seeded, z, train=True, mutable=['vq'])
    after = vq.apply({**seeded, **state}, z, train=False)
    assert after.metrics['commitment'] < 0.1


@pytest.mark.parametrize('share', [True, False])
def test_groups_and_levels_are_seeded_from_their_own_rows(share):
  (_, a), (_, b) = blobs(2, 4, seed=1), blobs(2, 4, seed=5)
  z = jnp.concatenate([a, b + 100], axis=-1)
  vq = Grouped(VectorQuantizer(8), 2, share=share)
  variables = seed_codebooks(vq, vq.init(KEY, z, train=True), z, KEY)
  assert vq.apply(variables, z, train=False).metrics['commitment'] < 0.2

  _, z = blobs(4, 32)
  depth = 2
  vq = Residual(VectorQuantizer(8), depth, share=share)
  variables = seed_codebooks(vq, vq.init(KEY, z, train=True), z, KEY)
  error = lambda z_q: float(jnp.mean(jnp.square(z - z_q)))
  one = VectorQuantizer(8)
  alone = seed_codebooks(one, one.init(KEY, z, train=True), z, KEY)
  first = error(one.apply(alone, z, train=False).z_q)
  if not share:  # levels pooled into one codebook are seeded under a random first level
    assert error(vq.apply(variables, z, train=False).z_q) < 0.5 * first


def test_more_than_ten_levels_are_seeded_in_their_order():
  vq = Residual(VectorQuantizer(2), 12)
  variables = vq.init(KEY, jnp.ones((3, 2)), train=True)
  paths = codebook_paths(vq.core, variables)
  assert paths == [(f'level_{level}',) for level in range(12)]


def test_sphere_and_mask():
  _, z = blobs()
  vq = VectorQuantizer(16, sphere=True, learner=Ema())
  variables = vq.init(KEY, z, train=True)
  mask = jnp.arange(z.shape[1])[None] < 40
  mask = jnp.broadcast_to(mask, z.shape[:-1])
  a, b = (
    seed_codebooks(vq, variables, z.at[:, 40:].set(value), KEY, mask=mask) for value in (1e3, -5.0)
  )
  jax.tree.map(np.testing.assert_array_equal, a, b)
  np.testing.assert_allclose(jnp.linalg.norm(a['vq']['codebook'], axis=-1), 1, rtol=1e-5)


def test_a_quantizer_without_a_codebook_is_named():
  with pytest.raises(ValueError, match=r'FSQ has no codebook to seed; legal: VectorQuantizer'):
    seed_codebooks(Residual(FSQ((5, 5)), 2), {}, jnp.ones((3, 2)), KEY)


def test_one_plain_codebook_is_kmeans():
  _, z = blobs()
  vq = VectorQuantizer(16)
  seeded = seed_codebooks(vq, vq.init(KEY, z, train=True), z, KEY, iters=3)
  expected = kmeans(jax.random.split(KEY, 1)[0], z.reshape(-1, 4), 16, iters=3)
  np.testing.assert_allclose(seeded['params']['codebook'], expected, rtol=1e-5)


class Model(nn.Module):
  """Two layers, and a quantizer between them."""

  quantizer: nn.Module

  @nn.compact
  def __call__(self, x, *, train):
    return nn.Dense(2)(self.quantizer(nn.Dense(4)(x), train=train).z_q)


@pytest.mark.parametrize(
  'vq',
  [
    VectorQuantizer(16),
    VectorQuantizer(16, learner=Ema()),
    Residual(VectorQuantizer(8), 2),
    Grouped(VectorQuantizer(8), 2),
  ],
  ids=['plain', 'ema', 'residual', 'grouped'],
)
def test_a_layer_inside_a_model_is_seeded_as_by_itself(vq):
  z = jax.random.normal(KEY, (64, 4))
  whole = Model(vq).init(KEY, z, train=True)
  own = {name: tree['quantizer'] for name, tree in whole.items() if 'quantizer' in tree}
  alone = seed_codebooks(vq, own, z, KEY, iters=2)
  seeded = seed_codebooks(vq, whole, z, KEY, iters=2)
  for name, tree in alone.items():
    jax.tree.map(np.testing.assert_array_equal, seeded[name]['quantizer'], tree)
  assert seeded['params']['Dense_0'] is whole['params']['Dense_0']


def test_variables_of_something_else_are_refused():
  vq, z = VectorQuantizer(16), jax.random.normal(KEY, (64, 4))
  own = vq.init(KEY, z, train=True)
  two = {'params': {'a': own['params'], 'b': own['params']}}
  with pytest.raises(ValueError, match=r'have 2 codebooks of 16 codes, and the quantizer 1; legal'):
    seed_codebooks(vq, two, z, KEY)
  with pytest.raises(ValueError, match=r'have 0 codebooks of 8 codes, and the quantizer 1; legal'):
    seed_codebooks(VectorQuantizer(8), own, z, KEY)
