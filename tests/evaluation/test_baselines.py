"""What stands beside a run, against direct computations, and why it is not there."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from vqjax.data import default_data, eval_batches, make_source
from vqjax.evaluation import baselines, codecs, metrics, patches
from vqjax.evaluation.totals import Subset

NAMES = ['run', 'jpeg', 'webp', 'kmeans_patches', 'mean_color']


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path))


def config(**fields):
  return ConfigDict(default_data() | {'source': 'photos', 'image_size': 32} | fields)


@pytest.fixture(scope='module')
def subset():
  """Nine of the held-out tiles, with a made-up PSNR."""
  subset, data = Subset(range(0, 54, 6)), config()
  for batch in eval_batches(make_source(data, 'eval'), data, batch_size=18):
    values = {'psnr': np.full(18, 20.0, np.float32)}
    subset.add({'mask': batch['mask'], 'values': values, 'images': (batch['image'], None)})
  return subset


def psnr(x, y):
  errors = np.mean((x.astype(np.float64) - y) ** 2, axis=(1, 2, 3))
  return np.mean(-10 * np.log10(errors / 255**2))


def test_all_of_them(subset, monkeypatch):
  monkeypatch.setattr(baselines, '_BATCH', 4 * 32 * 32)  # of nine: the last batch overlaps
  monkeypatch.setattr(patches, 'MOST_PATCHES', 4096)
  found = baselines.measure(subset, 2.0, config(), {})
  images = subset.images
  assert list(found) == NAMES
  assert {baseline.num_images for baseline in found.values()} == {9}
  assert found['run'].numbers == {'bits_per_pixel': 2.0, 'psnr': 20.0}

  files = []
  quality = int(found['jpeg'].setting.removeprefix('quality '))
  for image in images:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling='4:2:0')
    files.append(np.asarray(Image.open(file)))
  assert found['jpeg'].numbers['psnr'] == pytest.approx(psnr(images, np.stack(files)), abs=1e-4)
  expected = np.mean(np.float64(metrics.ssim(images, np.stack(files))))
  assert found['jpeg'].numbers['ssim'] == pytest.approx(expected, rel=1e-5)

  for name, codec in (('jpeg', codecs.JPEG), ('webp', codecs.WEBP)):
    quality = int(found[name].setting.removeprefix('quality '))
    rates = [codecs.coded(codec, images, q)[0] for q in (quality, quality + 1)]
    assert rates[0] == found[name].numbers['bits_per_pixel'] <= 2.0 < rates[1]
    assert (rates[0], found[name].numbers['psnr']) in found[name].curve
    assert list(found[name].curve) == sorted(found[name].curve)

  assert found['kmeans_patches'].setting == '2x2 pixels, 256 codes'
  assert found['kmeans_patches'].numbers['bits_per_pixel'] == 2.0
  mean = np.rint(images.mean((1, 2), keepdims=True))
  assert found['mean_color'].numbers['psnr'] == pytest.approx(psnr(images, mean), abs=1e-3)
  assert found['mean_color'].numbers['bits_per_pixel'] == 24 / 32**2


def test_a_rate_that_cannot_be_reached(subset):
  found = baselines.measure(subset, 0.0005, config(), {})
  reasons = {name: baseline.reason for name, baseline in found.items()}
  lowest = codecs.coded(codecs.JPEG, subset.images, 1)[0]
  assert reasons['jpeg'] == (
    f'needs {lowest:.4g} bits a pixel at its lowest quality, 1; the run has 0.0005'
  )
  assert 'at its lowest quality, 0; the run has 0.0005' in reasons['webp']
  assert reasons['kmeans_patches'] == (
    'at 0.0005 bits a pixel no patch whose side divides 32 has 2 to 4,096 codes, with 10 training '
    'patches or more each'
  )
  for name in ('jpeg', 'webp', 'kmeans_patches'):
    assert not found[name].numbers
  assert found['jpeg'].curve[0][0] == lowest
  assert not reasons['run']
  assert found['mean_color'].numbers


@pytest.mark.parametrize(
  ('training', 'quick', 'reason'),
  [
    ({}, True, 'left out by --quick'),
    ({'source': 'folder'}, False, 'the run has no training images of its own'),
    (
      {'source': 'folder', 'path': '/no/such'},
      False,
      "the run's training images cannot be read: data.path=/no/such d",
    ),
  ],
)
def test_without_patches(subset, training, quick, reason):
  found = baselines._patches(
    subset.images, 2.0, config(**training), lambda *_: pytest.fail('nothing to score'), quick
  )
  assert reason in found.reason
  assert not found.numbers
