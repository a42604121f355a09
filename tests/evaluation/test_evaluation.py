"""The streaming evaluation: real networks on photographs, its bookkeeping on made-up batches."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vqjax import quantizers, sharding
from vqjax.data.photos import Photos
from vqjax.errors import UserError
from vqjax.evaluation import metrics, scoring, totals
from vqjax.evaluation.cloud import cloud
from vqjax.evaluation.statistics import FeatureStatistics
from vqjax.evaluation.step import make_pair_step
from vqjax.quantizers import VectorQuantizer

K = 16


def inception_score(p):
  """The definition, of all rows at once: exp of the mean divergence from their mean."""
  p = np.asarray(p, np.float64)
  return np.exp(scipy.special.rel_entr(p, p.mean(axis=0)[None]).sum(axis=1).mean())


class Batches:
  """An iterator of dicts that can be closed, as data sources give."""

  def __init__(self, *batches):
    self._batches, self.closed = iter(batches), False

  def __iter__(self):
    return self._batches

  def close(self):
    self.closed = True


def photographs(count, size=32):
  tiles = Photos('train')
  pick = [tiles[i]['image'][:: 256 // size, :: 256 // size][:size, :size] for i in range(count)]
  return np.stack(pick)


def noisy(images, scale=20):
  noise = np.random.default_rng(0).normal(0, scale, images.shape)
  return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def in_batches(images, others, size):
  """Pairs in batches of `size`, the last one filled up."""
  for start in range(0, len(images), size):
    chosen = slice(start, start + size)
    x, y = images[chosen], others[chosen]
    pad = [(0, size - len(x)), (0, 0), (0, 0), (0, 0)]
    yield {
      'original': np.pad(x, pad),
      'reconstruction': np.pad(y, pad),
      'mask': np.arange(size) < len(x),
    }


def on(devices):
  return sharding.make_mesh({'data': -1, 'fsdp': 1}, jax.devices()[:devices])


def test_numbers_of_photographs_depend_on_neither_devices_nor_batches():
  x = photographs(5, 64)
  y = noisy(x)
  network_params = scoring.load_network_params()
  if missing := {'lpips_alex', 'lpips_vgg', 'inception'} - set(network_params):
    pytest.skip(f'needs the weights {", ".join(sorted(missing))}: python -m vqjax.weights')
  found = {}
  for devices, size in ((8, 8), (1, 2)):
    step = make_pair_step(on(devices), network_params)
    batches = Batches(*in_batches(x, y, size))
    found[devices] = totals.collect(step, batches, samples=totals.spread(5, 3))
  one, eight = found[1].metrics, found[8].metrics
  assert one.keys() == eight.keys() >= {*scoring.PIXELS, *scoring.LPIPS_NETS, 'rfid'}
  for name in one:
    np.testing.assert_allclose(one[name], eight[name], rtol=1e-6, err_msg=name)
  np.testing.assert_array_equal(found[1].samples.originals, x[[0, 1, 3]])
  # And they are those of the functions that peers are compared with.
  np.testing.assert_allclose(one['psnr'], np.mean(metrics.psnr(x, y)), rtol=1e-6)
  assert 0.05 < one['lpips'] < 1
  assert one['rfid'] > 10

  again = totals.collect(step, Batches(*in_batches(x, x, 2)), reference=found[8].statistics).metrics
  assert again['rfid'] < 1e-3
  assert abs(again['lpips']) < 1e-6
  assert again['ssim'] == pytest.approx(1)
  assert again['psnr'] == np.inf


def made_up(count, width=6, seed=0):
  """What a step finds on `count` images, each its own batch position."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, 2, 2, 3), np.uint8)
  p = rng.dirichlet(np.ones(5), count).astype(np.float32)
  return {
    'mask': np.ones(count, bool),
    'values': {'psnr': rng.uniform(10, 30, count).astype(np.float32)},
    'tokens': rng.integers(0, K, (count, 4), np.int32),
    'images': (images, 255 - images),
    'features': rng.normal(3, 1, (2, count, width)).astype(np.float32),
    'probabilities': p,
  }


def rows(found, chosen):
  """The part of `made_up` at these rows."""
  pick = lambda key, x: x[:, chosen] if key == 'features' else x[chosen]
  return {key: jax.tree.map(functools.partial(pick, key), value) for key, value in found.items()}


def evaluate(*parts, **options):
  return totals.collect(lambda found: found, Batches(*parts), num_codes=K, **options)


@pytest.mark.parametrize('size', [1, 7, 40])
def test_sums_are_those_of_the_whole(size, monkeypatch):
  monkeypatch.setattr(totals, 'WINDOWS', {'usage_65536_tokens': 24, 'usage_256_images': 10})
  whole = made_up(40)
  found = evaluate(*(rows(whole, slice(i, i + size)) for i in range(0, 40, size)))
  got, tokens = found.metrics, whole['tokens']
  counts = np.bincount(tokens.reshape(-1), minlength=K)
  np.testing.assert_array_equal(found.code_counts, counts)
  expected = {
    'psnr': whole['values']['psnr'].mean(dtype=np.float64),
    'usage': np.mean(counts > 0),
    'usage_65536_tokens': metrics.windowed_usage(tokens.reshape(-1), K, 24),
    'usage_256_images': metrics.windowed_usage(tokens, K, 10),
    'perplexity': quantizers.perplexity(np.float32(counts)),
    'token_entropy': metrics.token_entropy(counts),
    'bits_per_pixel': 4 * 4 / 4,
    'rfid': metrics.frechet_distance(
      *(f(x) for x in whole['features'] for f in (lambda x: x.mean(0), lambda x: np.cov(x.T)))
    ),
    'inception_score': inception_score(whole['probabilities']),
    'num_images': 40,
  }
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=2e-6, err_msg=name)
  assert not found.missing


def test_best_worst_and_samples_are_the_right_ones():
  whole = made_up(40)
  whole['mask'][[3, 20]] = False
  parts = [rows(whole, slice(i, i + 8)) for i in range(0, 40, 8)]
  found = evaluate(*parts, samples={0, 3, 39})
  order = [i for i in np.argsort(whole['values']['psnr']) if whole['mask'][i]]
  np.testing.assert_array_equal(found.worst.positions, order[: totals.EXTREMES])
  np.testing.assert_array_equal(found.best.positions, order[::-1][: totals.EXTREMES])
  np.testing.assert_array_equal(found.samples.positions, [0, 39])
  for kept in (found.samples, found.best, found.worst):
    np.testing.assert_array_equal(kept.originals, whole['images'][0][kept.positions])
    np.testing.assert_array_equal(kept.reconstructions, whole['images'][1][kept.positions])
    np.testing.assert_allclose(kept.psnr, whole['values']['psnr'][kept.positions])


def test_what_cannot_be_known_says_what_it_needs():
  found = evaluate(made_up(1))
  assert found.missing == {
    'usage_65536_tokens': 'needs 65,536 tokens or more',
    'usage_256_images': 'needs 256 images or more',
    'rfid': 'needs 2 images or more',
  }
  assert all(found.metrics[name] is None for name in found.missing)


def test_missing_networks_are_named_with_their_command():
  needed = scoring.missing({}, (64, 64))
  assert needed['lpips'] == 'needs the weights lpips_alex: python -m vqjax.weights lpips'
  assert needed['rfid'] == 'needs the weights inception: python -m vqjax.weights inception'
  assert set(needed) == {'lpips', 'lpips_vgg', 'rfid', 'inception_score'}
  networks = {'lpips_alex': {}, 'lpips_vgg': {}, 'inception': {}}
  assert '--file=pt_inception' in scoring.missing(networks, (64, 64))['inception_score']
  networks['inception'] = {'fc': {}}
  assert scoring.missing(networks, (64, 64)) == {}
  assert scoring.missing(networks, (16, 64)) == {'lpips': 'needs images of 31 x 31 pixels or more'}
  small = scoring.missing(networks, (64, 10))
  assert small.keys() == {'ssim', 'ssim_luma', 'lpips', 'lpips_vgg'}
  assert small['ssim'] == 'needs images of 11 x 11 pixels or more'
  x = np.zeros((1, 64, 10, 3), np.uint8)
  assert scoring.score({}, x, x)[0].keys() == {'psnr', 'psnr_luma', 'l1', 'l2'}


def test_few_images_for_a_covariance_are_warned_of(caplog):
  evaluate(made_up(6))
  assert 'rfid of 6 images is far above' in caplog.text
  caplog.clear()
  evaluate(made_up(7))
  assert not caplog.records


def test_a_reference_takes_the_place_of_the_originals():
  whole = made_up(40)
  other = FeatureStatistics(6)
  other.add(whole['features'][1])
  assert evaluate(whole, reference=other).metrics['rfid'] < 1e-9
  assert evaluate(whole).metrics['rfid'] > 0.01


def test_no_image_or_a_broken_one_is_an_error_and_data_are_closed():
  whole = made_up(8)
  batches = Batches(whole)
  whole['features'][1, 3] = np.nan
  with pytest.raises(UserError, match=r'features of 1 of 8 images are not finite'):
    totals.collect(lambda found: found, batches, num_codes=K)
  assert batches.closed
  whole = made_up(8)
  whole['mask'][:] = False
  with pytest.raises(UserError, match='no image could be read'):
    evaluate(whole)


class Pixels(nn.Module):
  """A tokenizer whose latents are the pixels."""

  quantizer: VectorQuantizer
  normalize = staticmethod(lambda images: images.astype(jnp.float32))

  def latents(self, x):
    return x

  def encode(self, x, mask=None):
    return self.quantizer(x, train=False)


def test_a_cloud_is_of_one_space_and_has_no_padding():
  images, mask = photographs(8, 4), np.arange(8) % 3 > 0
  model = Pixels(VectorQuantizer(K, sphere=True))
  x = model.normalize(images)
  variables = dict(model.init(jax.random.key(0), x, method='encode'))
  look = functools.partial(cloud, model, on(8), variables.pop('params'), variables)
  found = look({'image': images, 'mask': mask, 'label': np.zeros(8)})
  rows = images[mask].reshape(-1, 3).astype(np.float32)
  expected = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
  np.testing.assert_allclose(found.latents, expected, atol=1e-6)
  assert found.codes.shape == (K, 3)
  nearest = found.codes[np.argmax(expected @ found.codes.T, axis=-1)]
  np.testing.assert_allclose(found.quantized, nearest, atol=1e-6)
  assert look({'image': images, 'mask': mask & False}) is None


def test_roundings():
  y = np.float32([-0.01, 0.0, 0.4999, 0.5001, 1.0, 1.01])
  expected = {
    'uint8': np.uint8([0, 0, 127, 128, 255, 255]),
    'none': np.clip(y, 0, 1),
    'wrap': np.uint8([254, 0, 127, 127, 255, 1]),
  }
  assert expected.keys() == scoring.ROUNDINGS.keys() == scoring.ROUNDING_PROTOCOL.keys()
  for name, value in expected.items():
    got = np.asarray(scoring.ROUNDINGS[name](y))
    assert got.dtype == value.dtype
    np.testing.assert_array_equal(got, value)
