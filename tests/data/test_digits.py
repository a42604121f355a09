"""The handwritten digits that ride in scikit-learn's wheel."""

import contextlib
import importlib.util
import sys

import numpy as np
import pytest
from pictures import data_config

from vqjax.data import digits, eval_batches, make_source
from vqjax.errors import UserError


@pytest.fixture(scope='module')
def sources():
  data = data_config(source='digits')
  return {split: make_source(data, split) for split in ('train', 'eval')}


def labels(source):
  return np.array([source[i]['label'] for i in range(len(source))])


def test_every_digit_is_on_one_side(sources):
  assert [len(source) for source in sources.values()] == [1415, 382]
  names = [source[i]['name'] for source in sources.values() for i in range(len(source))]
  assert names == [f'digits[{row}]' for row in range(1797)]
  assert sources['train'].class_names == tuple(map(str, range(10)))
  assert sources['eval'].description == '382 handwritten digits from scikit-learn'


def test_sides_are_split_where_a_form_begins_and_balanced(sources):
  for source in sources.values():
    assert labels(source)[:30].tolist() == 3 * list(range(10))
    share = np.bincount(labels(source)) / len(source)
    assert 0.09 < share.min() <= share.max() < 0.11


def test_images_are_the_files_own_stretched_to_eight_bits(sources):
  first = sources['train'][0]
  assert first['image'].dtype == np.uint8
  assert first['image'].shape == (8, 8, 3)
  # The file's first row, 0 0 5 13 9 1 0 0, in sixteenths of 255.
  np.testing.assert_array_equal(first['image'][0, :, 1], [0, 0, 80, 207, 143, 16, 0, 0])
  images = np.stack([sources['train'][i]['image'] for i in range(1415)])
  assert len(np.unique(images)) == 17
  assert (images.min(), images.max()) == (0, 255)
  assert not np.ptp(images, axis=-1).any()
  # A zero has a hole, a one has none.
  means = [images[labels(sources['train']) == digit].mean(0)[3:5, 3:5].mean() for digit in (0, 1)]
  assert means[0] < 40
  assert means[1] > 200


def test_batches(sources):
  fields = {'resize': 'exact', 'antialias': False}
  data = data_config(source='digits', image_size=32, eval=fields)
  with contextlib.closing(eval_batches(sources['eval'], data, batch_size=4, limit=4)) as batches:
    (batch,) = batches
  assert batch['image'].shape == (4, 32, 32, 3)
  assert batch['label'].tolist() == [0, 1, 2, 3]


def test_missing_wheel(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"'digits' needs .*: pip install scikit-learn"):
    make_source(data_config(source='digits'), 'train')


def test_missing_file(monkeypatch):
  monkeypatch.setattr(digits, '_FILE', 'datasets/data/no_such.csv.gz')
  with pytest.raises(UserError, match=r'no_such.csv.gz.*--force-reinstall scikit-learn'):
    make_source(data_config(source='digits'), 'eval')


def test_scikit_learn_is_not_imported(monkeypatch):
  monkeypatch.delitem(sys.modules, 'sklearn', raising=False)
  assert make_source(data_config(source='digits'), 'eval')[0]['label'] == 0
  assert 'sklearn' not in sys.modules
