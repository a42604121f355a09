"""The collapse that everybody meets, and its cures, on patches of real photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import skimage.data

from vqjax.quantizers import (
  Ema,
  LeastRecent,
  Linear,
  NormalCodebook,
  RarelyUsed,
  Sinkhorn,
  VectorQuantizer,
  replace_dead_codes,
  rotation,
  seed_codebooks,
)

# Codes start normal, as in vqtorch, OptVQ and ViT-VQGAN.
NUM_CODES, STEPS, START = 256, 1500, NormalCodebook()


def features(seed=0):
  """Patches of 4 x 4 colour pixels, on their 8 principal axes: [16384 8], deviation about 1."""
  rows = []
  for image in (skimage.data.astronaut(), skimage.data.coffee()):
    h, w = (n // 4 * 4 for n in image.shape[:2])
    patches = image[:h, :w].reshape(h // 4, 4, w // 4, 4, 3).swapaxes(1, 2).reshape(-1, 48)
    rows.append(patches / 255)
  rows = np.concatenate(rows)
  _, _, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
  rows = rows @ axes[:8].T
  rows = np.random.default_rng(seed).permutation(rows)[:16384]
  return jnp.asarray(rows / rows.std(), jnp.float32)


def usage_after_training(vq, seeded=False):
  """Fraction of codes that all rows together use after training on batches of 1024."""
  z, key = features(), jax.random.key(0)
  optimizer = optax.adam(1e-2)
  variables = vq.init({'params': key, 'vq': key}, z[:8], train=True)
  if seeded:
    variables = seed_codebooks(vq, variables, z[:4096], key)
  params = variables.pop('params', {})

  def step(carry, key):
    params, state, opt_state = carry
    batch_key, vq_key, dead_key = jax.random.split(key, 3)
    batch = z[jax.random.randint(batch_key, (1024,), 0, len(z))]

    def loss(params):
      out, moved = vq.apply(
        {'params': params, **state}, batch, train=True, mutable=['vq'], rngs={'vq': vq_key}
      )
      return out.loss, moved

    gradient, state = jax.grad(loss, has_aux=True)(params)
    with jax.numpy_dtype_promotion('standard'):
      updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    if vq.replacement is not None:
      now, opt_state = replace_dead_codes(
        vq, {'params': params, **state}, dead_key, opt_state=opt_state
      )
      params = now.pop('params')
      state = now
    return (params, state, opt_state), None

  carry = params, variables, optimizer.init(params)
  run = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(key, STEPS))[0])
  params, state, _ = run(carry)
  return float(vq.apply({'params': params, **state}, z, train=False).metrics['usage'])


@pytest.mark.parametrize(
  'fields', [{}, {'estimator': rotation}], ids=['straight-through', 'rotation']
)
def test_plain_codebooks_collapse(fields):
  assert usage_after_training(VectorQuantizer(NUM_CODES, codebook_init=START, **fields)) < 0.2


@pytest.mark.parametrize(
  ('fields', 'seeded'),
  [
    ({}, True),
    ({'learner': Ema(0.9)}, True),
    ({'replacement': RarelyUsed(decay=0.9)}, False),
    ({'learner': Ema(0.9), 'replacement': LeastRecent(10)}, False),
    ({'assign': Sinkhorn(20.0, 10), 'transform': Linear(bias=True)}, False),
  ],
  ids=['seed', 'seed-ema', 'rarely-used', 'least-recent-ema', 'sinkhorn-linear'],
)
def test_cures_bring_all_codes_into_use(fields, seeded):
  assert (
    usage_after_training(VectorQuantizer(NUM_CODES, codebook_init=START, **fields), seeded) >= 0.95
  )
