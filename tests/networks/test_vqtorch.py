import functools
import math

import jax
import numpy as np
from random_params import QUICK, compiled, random_params

from vqjax.networks import VQTorchClassifier, VQTorchDecoder, VQTorchEncoder

CENTRE = np.zeros((3, 3, 1, 1), np.float32)
CENTRE[1, 1] = 1


def gelu(x):
  return np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)


def pool(x):
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def test_encoder_pools_before_an_exact_gelu():
  """With convolutions that copy: below -0.75 GELU falls, so the order matters."""
  x = np.random.default_rng(0).normal(-2, 2, (2, 8, 8, 1)).astype(np.float32)
  params = {
    'layers_0': {'kernel': CENTRE, 'bias': np.zeros(1, np.float32)},
    'layers_3': {'kernel': np.repeat(CENTRE, 2, axis=-1), 'bias': np.float32([0, 3])},
  }
  z = compiled(VQTorchEncoder(channels=1))(params, x)
  expected = pool(gelu(pool(x)))
  np.testing.assert_allclose(z, np.concatenate([expected, expected + 3], -1), atol=1e-6)
  assert np.abs(pool(pool(gelu(x))) - expected).max() > 0.01


def test_decoder_clamps_and_gives_no_gradient_outside():
  decoder = VQTorchDecoder(channels=1)
  first = {'kernel': CENTRE, 'bias': np.zeros(1, np.float32)}
  z = np.float32([[[0.5, 3.0], [-0.5, 0.1]]])[..., None]

  @functools.partial(jax.jit, compiler_options=QUICK)
  def run(z, bias):
    params = {'layers_7': first, 'layers_10': {'kernel': CENTRE, 'bias': bias}}
    forward = lambda z: decoder.apply({'params': params}, z)
    return forward(z), jax.grad(lambda z: forward(z).sum())(z)

  y, gradient = run(z, np.float32([0]))
  np.testing.assert_allclose(y, np.clip(gelu(z), -1, 1).repeat(4, 1).repeat(4, 2), atol=1e-6)
  assert gradient[0, 0, 1] == 0
  assert gradient[0, 0, 0] > 1
  y, gradient = run(z, np.float32([-5]))
  assert (y == -1).all()
  assert not gradient.any()


def test_classifier_takes_the_largest_over_all_positions():
  classifier = VQTorchClassifier(channels=1)
  z = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
  params = random_params(classifier, z)
  kernel = np.zeros((3, 3, 4, 4), np.float32)
  kernel[1, 1] = np.eye(4)
  params['layers_6']['kernel'] = kernel
  head = params['layers_9']
  expected = (z.max((1, 2)) + params['layers_6']['bias']) @ head['kernel'] + head['bias']
  np.testing.assert_allclose(compiled(classifier)(params, z), expected, atol=1e-5)
