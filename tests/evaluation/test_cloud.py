"""Latents beside codes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqjax import sharding
from vqjax.evaluation.cloud import cloud
from vqjax.quantizers import VectorQuantizer

K = 16


class Pixels(nn.Module):
  """A tokenizer whose latents are the pixels."""

  quantizer: VectorQuantizer
  normalize = staticmethod(lambda images: images.astype(jnp.float32))

  def latents(self, x):
    return x

  def encode(self, x, mask=None):
    return self.quantizer(x, train=False)


def test_a_cloud_is_of_one_space_and_has_no_padding():
  rng = np.random.default_rng(0)
  images, mask = rng.integers(0, 256, (8, 4, 4, 3), np.uint8), np.arange(8) % 3 > 0
  model = Pixels(VectorQuantizer(K, sphere=True))
  x = model.normalize(images)
  variables = dict(model.init(jax.random.key(0), x, method='encode'))
  mesh = sharding.make_mesh({'data': -1, 'fsdp': 1})
  look = functools.partial(cloud, model, mesh, variables.pop('params'), variables)
  found = look({'image': images, 'mask': mask, 'label': np.zeros(8)})
  rows = images[mask].reshape(-1, 3).astype(np.float32)
  expected = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
  np.testing.assert_allclose(found.latents, expected, atol=1e-6)
  assert found.codes.shape == (K, 3)
  nearest = found.codes[np.argmax(expected @ found.codes.T, axis=-1)]
  np.testing.assert_allclose(found.quantized, nearest, atol=1e-6)
  assert look({'image': images, 'mask': mask & False}) is None
