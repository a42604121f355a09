"""k-means on patches, against scikit-learn and a search of all pairs."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.cluster import KMeans

from vqjax.data import default_data
from vqjax.data.decode import UnreadableImage
from vqjax.data.photos import Photos
from vqjax.errors import UserError
from vqjax.evaluation import patches


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'patches'


@pytest.fixture(scope='module')
def rows():
  """2 x 2 patches of photographs, uint8 [8192 12], in random order."""
  photos = Photos('train')
  images = np.stack([photos[i]['image'][: 32 * 2 : 2, : 64 * 2 : 2] for i in range(0, 400, 25)])
  return np.random.default_rng(0).permutation(patches.cut(images, 2))


class Grey:
  """Images of 4 x 4 pixels, each of its own grey, and one that cannot be read."""

  description = 'grey images'

  def __init__(self, count):
    self._count = count

  def __len__(self):
    return self._count + 1

  def __getitem__(self, index):
    if index == self._count:
      raise UnreadableImage('the last', 'broken')
    return {'image': np.full((4, 4, 3), index, np.uint8), 'label': 0, 'name': str(index)}


def test_cut_and_join():
  images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
  rows = patches.cut(images, 2)
  assert rows.shape == (12, 12)
  np.testing.assert_array_equal(rows[4], images[0, 2:4, 2:4].reshape(-1))
  np.testing.assert_array_equal(patches.join(rows, images.shape, 2), images)


@pytest.mark.parametrize(
  ('rate', 'size', 'num_images', 'chosen'),
  [
    (2.0, 64, 437, (2, 256)),
    (2.0, 64, 2, (1, 4)),  # 2 x 2 pixels would be 2048 patches for 256 codes
    (10 / 16, 64, 437, (4, 1024)),
    (10 / 256, 256, 10**6, (16, 1024)),
    (10 / 256, 64, 640, (16, 1024)),
    (10 / 256, 64, 639, (8, 5)),
    (np.log2(1000) / 4, 64, 437, (2, 1000)),
    (12.0, 64, 437, (1, 4096)),
    (13.0, 64, 437, None),
    (1e-5, 64, 437, None),
    (1.5, 9, 437, (1, 2)),  # 3 x 3 pixels would be 11,585 codes
  ],
)
def test_the_largest_patches_that_the_rate_allows(rate, size, num_images, chosen):
  assert patches.choose(rate, size, num_images) == chosen
  if chosen:
    assert np.log2(chosen[1]) / chosen[0] ** 2 <= rate + 1e-9


def test_training_patches_are_of_all_images_alike(monkeypatch):
  data = ConfigDict(default_data() | {'image_size': 4, 'threads': 1})
  taken = lambda source: patches.training_patches(source, data, 2)
  monkeypatch.setattr(patches, 'MOST_PATCHES', 100)
  rows = taken(Grey(40))
  assert rows.shape == (100, 12)
  counts = np.bincount(rows[:, 0], minlength=40)
  assert counts.sum() == 100
  assert counts.max() == 3  # a 41st of 100, rounded up
  np.testing.assert_array_equal(rows, taken(Grey(40)))
  monkeypatch.setattr(patches, 'MOST_IMAGES', 4)
  rows = taken(Grey(40))
  np.testing.assert_array_equal(np.bincount(rows[:, 0], minlength=40)[[0, 10, 20, 30]], [4] * 4)
  with pytest.raises(UserError, match='can be read; the log says why'):
    taken(Grey(0))


def test_codes_are_as_good_as_those_of_scikit_learn(rows):
  def error(codes):
    return np.mean([((rows[i] - codes) ** 2).sum(1).min() for i in range(0, len(rows), 8)])

  peer = KMeans(32, n_init=1, max_iter=20, random_state=0).fit(rows.astype(np.float32))
  ours = patches.fit(rows, 32)
  assert ours.dtype == np.uint8
  assert error(ours.astype(np.float32)) < 1.02 * error(peer.cluster_centers_)


def test_every_patch_becomes_the_nearest_code(rows, monkeypatch):
  monkeypatch.setattr(patches, '_BATCH', 100)
  images, codes = patches.join(rows[:256], (2, 16, 32, 3), 2), rows[-50:]
  found = patches.cut(patches.quantized(images, codes, 2), 2).astype(int)
  distances = ((rows[:256, None].astype(int) - codes[None]) ** 2).sum(-1)
  np.testing.assert_array_equal(((rows[:256] - found) ** 2).sum(-1), distances.min(1))
  assert {tuple(row) for row in found} <= {tuple(row) for row in codes.astype(int)}


def test_codes_are_fitted_once(rows, cache, monkeypatch, caplog):
  first = patches.fit(rows, 8)
  (path,) = cache.iterdir()
  with monkeypatch.context() as broken:
    broken.setattr(patches, 'kmeans_plus_plus', None)
    np.testing.assert_array_equal(patches.fit(rows, 8), first)
    for other in ((rows, 9), (rows[::-1], 8)):
      with pytest.raises(TypeError, match='not callable'):
        patches.fit(*other)
  path.write_bytes(b'')  # damaged
  np.testing.assert_array_equal(patches.fit(rows, 8), first)
  assert np.load(path).shape == (8, 12)
  monkeypatch.setenv('VQJAX_CACHE', '/dev/null/cache')
  np.testing.assert_array_equal(patches.fit(rows, 8), first)
  assert 'codes of patches are not kept' in caplog.text
