"""Inception against the reference, with random weights and with the real ones on photographs."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from flax import traverse_util
from golden_data import OUTSIDE, checkpoint, load

from vqjax import weights
from vqjax.data.photos import Photos
from vqjax.errors import UserError
from vqjax.networks import Inception
from vqjax.networks.inception import (
  SPATIAL_FEATURES,
  _Conv,
  prepared,
  resized_as_by_tensorflow_1,
)
from vqjax.weights import inception

# Made for this repository, so in no other folder of golden files.
PHOTOS = pathlib.Path(__file__).parents[1] / 'golden/metrics/inception_photos.npz'
TRUNK = 21_802_784  # values of kernels and of BatchNorm's offsets, means and variances
# Every n-th pixel of a photograph's largest tile, to this height and width.
CROPS = {
  'train': {'astronaut.png': (64, 64), 'coffee.png': (120, 96), 'motorcycle_left.png': (256, 256)},
  'eval': {'chelsea.png': (150, 200)},
}


def close(a, b, tolerance=1e-4):
  assert a.shape == b.shape
  assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def photographs():
  crops = []
  for split, sizes in CROPS.items():
    tiles = Photos(split)
    largest = {}
    for i in range(len(tiles)):  # the largest tile of each photograph comes first
      largest.setdefault(tiles[i]['name'].split('@')[0], tiles[i]['image'])
    for name, (height, width) in sizes.items():
      step = min(largest[name].shape[0] // height, largest[name].shape[1] // width)
      crops.append(largest[name][: height * step : step, : width * step : step])
  return crops


def test_sizes_and_parameter_counts():
  features, variables = jax.eval_shape(
    lambda: Inception().init_with_output(jax.random.key(0), jnp.zeros((2, 40, 50, 3), jnp.uint8))
  )
  assert (features.shape, features.dtype) == ((2, 2048), jnp.float32)
  arrays = traverse_util.flatten_dict(variables['params'], sep='/')
  assert {x.dtype for x in arrays.values()} == {jnp.dtype('float32')}
  # A bias is what an offset, a mean and a variance became.
  count = sum(x.size * (3 if path.endswith('bias') else 1) for path, x in arrays.items())
  assert count == TRUNK


@pytest.mark.parametrize('window', [(1, 1), (3, 3), (1, 7), (5, 5)])
@pytest.mark.parametrize(
  ('border', 'stride', 'padding'), [('', 1, 'SAME'), ('v', 1, 'VALID'), ('/2', 2, 'VALID')]
)
def test_convolutions_are_those_of_flax(window, border, stride, padding):
  if window == (1, 1) and border:
    pytest.skip('no such layer')
  conv = nn.Conv(6, window, stride, padding)
  x = jax.random.normal(jax.random.key(0), (2, 9, 12, 5))
  expected, variables = conv.init_with_output(jax.random.key(1), x)
  variables['params']['bias'] = jnp.arange(6.0)
  expected = nn.relu(conv.apply(variables, x))
  got = _Conv(window, border, 6).apply(variables, x)
  assert got.shape == expected.shape
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_photographs_are_resized_as_by_pytorch():
  expected = np.load(PHOTOS)['out_resized_sample']
  for image, sample in zip(photographs(), expected, strict=True):
    x = prepared(image[None])
    assert x.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(x[0, ::23, ::23], sample, atol=1e-6)
  np.testing.assert_array_equal(prepared((image[None] / 255).astype(np.float32)), x)


def test_larger_images_are_not_smoothed():
  """Pixels between those that are looked at count for nothing."""
  image = np.random.default_rng(0).uniform(size=(1, 299, 3 * 299, 3)).astype(np.float32)
  np.testing.assert_allclose(prepared(image), 2 * image[:, :, 1::3] - 1, atol=1e-6)


def test_pretrained_features_of_photographs():
  """Those of PyTorch with the same weights; a mirror image stays near, noise is far."""
  if not weights.available('inception'):
    pytest.skip('needs: python -m vqjax.weights inception')
  data, photos = np.load(PHOTOS), photographs()
  # Else the photographs themselves are others than they were.
  np.testing.assert_array_equal([p.sum((0, 1), np.int64) for p in photos], data['in_sums'])
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  images = [*photos, photos[0][:, ::-1], noise]

  @jax.jit
  def run(params, images):
    # Of 299 pixels already, the images are not resized again, so that one batch has all sizes.
    resized = jnp.concatenate([prepared(image[None]) for image in images]) / 2 + 0.5
    return Inception().apply({'params': params}, resized)

  params = weights.load('inception')
  params.pop('fc', None)  # features need no classes
  features = np.asarray(run(params, images))
  assert (features >= 0).all()
  close(features[:4], data['out_pool3'])  # relative to the largest
  np.testing.assert_allclose(features[:4], data['out_pool3'], rtol=0, atol=1e-4)

  unit = features / np.linalg.norm(features, axis=1, keepdims=True)
  to_first = unit @ unit[0]
  photo, flipped, noisy = to_first[1:4].max(), to_first[4], to_first[5]
  assert flipped > 0.9 > photo > to_first[1:4].min() > noisy


@pytest.mark.parametrize('i', range(4))
def test_resized_as_by_tensorflow_1(i):
  _, arrays, sidecar = checkpoint('tf1_resize_a', 'generation')
  expected, image = arrays[f'out_{i}'], arrays[f'in_{i}'].astype(np.float32)
  size, stride = {0: ((13, 11), 1), 2: ((29, 31), 1)}.get(i, ((299, 299), 13))
  resized = resized_as_by_tensorflow_1(jnp.asarray(image)[None], size)
  atol = sidecar['arrays'][f'out_{i}']['atol']
  np.testing.assert_allclose(resized[0, ::stride, ::stride], expected, rtol=0, atol=atol)


def test_what_adm_looks_at():
  """From -1 to 127 / 128, floating-point as bytes, and not what pytorch-fid looks at."""
  image = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), np.uint8)
  image[:, :2, :2] = 0
  x = np.asarray(prepared(image, 'adm'))
  assert x.shape == (1, 299, 299, 3)
  assert (x[0, 0, 0] == -1).all()
  np.testing.assert_allclose(prepared((image / 255).astype(np.float32), 'adm'), x, atol=1e-6)
  assert 2 / 128 < np.abs(x - prepared(image)).mean() < 40 / 128


@pytest.fixture(scope='module')
def random_params(tmp_path_factory):
  """Weights of the reference's tests, and what goes with them."""
  if not OUTSIDE:
    pytest.skip('the repository does not keep golden files of full width')
  data = load('metrics/inception_fid')
  state = {
    **{key[3:]: value for key, value in data.items() if key.startswith('sd/')},
    **{key[2:]: q * data[f'scale/{key[2:]}'] for key, q in data.items() if key.startswith('q/')},
  }
  path = tmp_path_factory.mktemp('inception') / 'x.pth'
  torch_files.write_zip(path, torch_files.state_dict(state), state)
  return traverse_util.unflatten_dict(inception.from_pytorch_fid(path), sep='/'), data


def test_random_weights_equal_the_reference(random_params):
  params, data = random_params

  @jax.jit
  def run(params, x):
    features = Inception().apply({'params': params}, x)
    probabilities = Inception().apply({'params': params}, features, method='probabilities')
    return prepared(x)[:, ::23, ::23], features, probabilities

  for i in range(2):
    resized, features, probabilities = run(params, data[f'in_x_{i}'])
    np.testing.assert_allclose(resized, data[f'out_resized_sample_{i}'], atol=1e-6)
    close(features, data[f'out_pool3_{i}'])
    close(probabilities, data[f'out_probs_{i}'])


@pytest.mark.parametrize('i', range(2))
def test_features_of_the_adm_evaluator(random_params, i):
  _, arrays, sidecar = checkpoint('adm_features_a', 'generation')
  net = Inception('adm')

  @jax.jit
  def run(params, x):
    pool, spatial = net.apply({'params': params}, x, method='pooled_and_spatial')
    return pool, spatial, net.apply({'params': params}, pool, method='probabilities')

  pool, spatial, probabilities = run(random_params[0], arrays[f'in_{i}'])
  assert spatial.shape == (len(pool), SPATIAL_FEATURES)
  logits = arrays[f'logits_{i}'].astype(np.float64)
  odds = np.exp(logits - logits.max(axis=1, keepdims=True))
  expected = {'pool': arrays[f'pool_{i}'], 'spatial': arrays[f'spatial_{i}'].reshape(len(pool), -1)}
  for name, got in (('pool', pool), ('spatial', spatial)):
    atol = sidecar['arrays'][f'{name}_{i}']['atol']
    np.testing.assert_allclose(got, expected[name], rtol=0, atol=atol)
  close(probabilities, odds / odds.sum(axis=1, keepdims=True))


def test_probabilities_need_classes():
  features = np.random.default_rng(0).normal(size=(2, 2048)).astype(np.float32)
  kernel = np.random.default_rng(1).normal(size=(2048, 1008)).astype(np.float32) / 50
  apply = lambda params: Inception().apply({'params': params}, features, method='probabilities')
  odds = np.exp(features @ kernel)
  np.testing.assert_allclose(
    apply({'fc': {'kernel': kernel}}), odds / odds.sum(1, keepdims=True), rtol=1e-4
  )
  with pytest.raises(UserError, match=r"no classes \('fc'\), .*; run: python -m vqjax.weights inc"):
    apply({'Conv2d_1a_3x3': {}})


@pytest.mark.parametrize(
  'images', [np.zeros((1, 8, 8, 3), np.int32), np.zeros((8, 8, 3), np.uint8)], ids=['type', 'shape']
)
def test_what_is_no_batch_of_images_is_refused(images):
  with pytest.raises(UserError, match=f'Inception got {images.dtype} of shape .*; legal: images'):
    prepared(images)
