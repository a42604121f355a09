"""Numbers of pairs of images, by the real networks where their weights are."""

import jax
import numpy as np
import pytest
from fake_evaluation import Batches

from vqjax import sharding
from vqjax.data.photos import Photos
from vqjax.evaluation import metrics, scoring
from vqjax.evaluation.collect import collect, spread
from vqjax.evaluation.step import make_pair_step


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
    found[devices] = collect(step, batches, samples=spread(5, 3))
  one, eight = found[1].metrics, found[8].metrics
  assert one.keys() == eight.keys() >= {*scoring.PIXELS, *scoring.LPIPS_NETS, 'rfid'}
  for name in one:
    np.testing.assert_allclose(one[name], eight[name], rtol=1e-6, err_msg=name)
  np.testing.assert_array_equal(found[1].samples.originals, x[[0, 1, 3]])
  # And they are those of the functions that peers are compared with.
  np.testing.assert_allclose(one['psnr'], np.mean(metrics.psnr(x, y)), rtol=1e-6)
  assert 0.05 < one['lpips'] < 1
  assert one['rfid'] > 10

  again = collect(step, Batches(*in_batches(x, x, 2)), reference=found[8].statistics).metrics
  assert again['rfid'] < 1e-3
  assert abs(again['lpips']) < 1e-6
  assert again['ssim'] == pytest.approx(1)
  assert again['psnr'] == np.inf


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


def test_only_what_is_asked_for_is_computed_in_the_order_of_the_table():
  x = np.zeros((1, 16, 16, 3), np.uint8)
  assert list(scoring.score({}, x, x, {'l1', 'ssim', 'psnr', 'rfid'})[0]) == ['psnr', 'ssim', 'l1']


def test_roundings():
  y = np.float32([-0.01, 0.0, 0.4999, 0.5001, 1.0, 1.01])
  expected = {
    'uint8': np.uint8([0, 0, 127, 128, 255, 255]),
    'none': np.clip(y, 0, 1),
    'wrap': np.uint8([254, 0, 127, 127, 255, 1]),
  }
  assert expected.keys() == scoring.ROUNDINGS.keys()
  for name, value in expected.items():
    got = np.asarray(scoring.ROUNDINGS[name].round(y))
    assert got.dtype == value.dtype
    np.testing.assert_array_equal(got, value)
