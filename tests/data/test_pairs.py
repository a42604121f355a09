"""Pairs of images from two folders."""

import contextlib
import threading

import numpy as np
import pytest
from PIL import Image

from vqjax.data import image_files
from vqjax.data.pairs import open_pairs, pair_batches
from vqjax.errors import UserError


@pytest.fixture
def folders(tmp_path):
  """Five PNG originals of 6 x 8 pixels in two folders, and reconstructions one level brighter."""
  rng = np.random.default_rng(0)
  for i in range(5):
    pixels = rng.integers(0, 255, (6, 8, 3), np.uint8)
    for root, image in (('a', pixels), ('b', pixels + 1)):
      path = tmp_path / root / f'class{i % 2}' / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(path)
  return tmp_path / 'a', tmp_path / 'b'


def read(pairs, *args):
  with contextlib.closing(pair_batches(pairs, *args)) as batches:
    return list(batches)


def test_pairs_come_once_in_the_order_of_their_names(folders):
  # Another format is still the partner; this one loses nothing either.
  path = folders[1] / 'class0' / '2.png'
  Image.open(path).save(path.with_suffix('.webp'), lossless=True)
  path.unlink()
  pairs = open_pairs(*folders)
  assert list(pairs.originals) == ['class0/0', 'class0/2', 'class0/4', 'class1/1', 'class1/3']
  assert len(pairs) == 5
  assert pairs.size == (6, 8)
  batches = read(pairs, 4)
  masks = np.concatenate([batch['mask'] for batch in batches])
  np.testing.assert_array_equal(masks, [True] * 5 + [False] * 3)
  x, y = (
    np.concatenate([batch[kind] for batch in batches])[masks]
    for kind in ('original', 'reconstruction')
  )
  np.testing.assert_array_equal(x + 1, y)
  np.testing.assert_array_equal(x[1], Image.open(folders[0] / 'class0' / '2.png'))
  (batch,) = read(pairs, 4, 3)
  assert batch['mask'].sum() == 3


def test_folders_that_do_not_fit(folders, tmp_path):
  originals, reconstructions = folders
  (reconstructions / 'class1' / '3.png').unlink()
  message = r"1 of 5 images in .*a have no partner in .*b, the first is 'class1/3'; pairs have the"
  with pytest.raises(UserError, match=message):
    open_pairs(originals, reconstructions)
  with pytest.raises(UserError, match=r'1 of 5 images in .*a have no partner in .*b'):
    open_pairs(reconstructions, originals)
  with pytest.raises(UserError, match=r'--originals=.*none is no folder \(looked in'):
    open_pairs(tmp_path / 'none', reconstructions)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'holds no image: .* choose another --reconstructions'):
    open_pairs(originals, tmp_path / 'empty')
  Image.open(originals / 'class1' / '3.png').save(originals / 'class1' / '3.jpg')
  with pytest.raises(UserError, match=r'3\.jpg and .*3\.png differ in their suffix alone; remove'):
    open_pairs(originals, originals)


def test_images_that_do_not_fit(folders):
  pairs = open_pairs(*folders)
  path = folders[1] / 'class1' / '1.png'
  Image.new('RGB', (9, 6)).save(path)
  with pytest.raises(
    UserError, match=r'1\.png has 9 x 6 pixels, and the first original 8 x 6; all'
  ):
    read(pairs, 2)
  path.write_bytes(b'nothing')
  with pytest.raises(UserError, match=r'cannot read the image .*1\.png \(none of JPEG, .*; repair'):
    read(pairs, 2)


def test_a_pair_that_is_long_in_coming_is_told(folders, monkeypatch, caplog):
  here, there = folders
  pairs = open_pairs(here, there)
  name = next(iter(pairs.originals.values()))
  fields = {**image_files.default_data(), 'stall_seconds': 0.05}
  monkeypatch.setattr(image_files, 'default_data', lambda: fields)
  decode, told = image_files.decode, threading.Event()

  def slow(encoded, path):
    if path == str(name):
      assert told.wait(60)
    return decode(encoded, path)

  def tell(record):
    if f'being read: {name} (' in record.getMessage():
      told.set()
    return True

  caplog.handler.addFilter(tell)
  monkeypatch.setattr(image_files, 'decode', slow)
  with contextlib.closing(pair_batches(pairs, 2)) as batches:
    next(batches)
  assert told.is_set()
