"""The photographs that ride in other packages' wheels."""

import importlib.util
import pathlib

import numpy as np
import pytest
from pictures import data_config

from vqjax.data import make_source
from vqjax.errors import UserError


@pytest.fixture(scope='module')
def photos():
  data = data_config(source='photos')
  return {split: make_source(data, split) for split in ('train', 'eval')}


def files(source):
  return {source[i]['name'].split('@')[0] for i in range(len(source))}


def test_a_path_is_refused_rather_than_ignored():
  with pytest.raises(
    UserError, match=r"'here', but data\.source='photos' reads no path: add --conf"
  ):
    make_source(data_config(source='photos', path='here'), 'eval')


def test_enough_tiles_of_useful_size(photos):
  assert 300 <= len(photos['train']) <= 600
  assert 50 <= len(photos['eval']) <= 100
  for source in photos.values():
    for i in range(len(source)):
      image = source[i]['image']
      assert image.dtype == np.uint8
      assert image.shape[0] == image.shape[1] >= 150
      assert image.shape[2] == 3
      assert image.std() > 1


def test_no_scene_is_on_both_sides(photos):
  train, held_out = (files(photos[split]) for split in ('train', 'eval'))
  assert len(train) == 8
  assert len(held_out) == 2
  assert not train & held_out
  assert {'motorcycle_left.png', 'motorcycle_right.png'} <= train


def test_tiles_cover_each_photograph_to_the_edge(photos):
  extent = {}
  for i in range(len(photos['eval'])):
    name, place = photos['eval'][i]['name'].split('@')
    corner, side = place.split('+')
    top, left = map(int, corner.split(','))
    reached = extent.setdefault(name, [0, 0])
    extent[name] = [max(reached[0], top + int(side)), max(reached[1], left + int(side))]
  # Height and width of the two pictures.
  want = {'chelsea.png': [300, 451], 'china.jpg': [427, 640]}
  assert extent == want


def test_every_tile_is_another_one(photos):
  names = [photos['train'][i]['name'] for i in range(len(photos['train']))]
  assert len(set(names)) == len(names)
  labels = {photos['train'][i]['label'] for i in range(len(names))}
  assert labels == set(range(8))


def test_missing_wheel(monkeypatch):
  find = importlib.util.find_spec
  missing = lambda name: None if name == 'sklearn' else find(name)
  monkeypatch.setattr(importlib.util, 'find_spec', missing)
  with pytest.raises(UserError, match=r'flower.jpg from scikit-learn.*: pip install scikit-learn'):
    make_source(data_config(source='photos'), 'train')


def test_missing_file(monkeypatch):
  def fail(path):
    raise FileNotFoundError(2, 'No such file', str(path))

  monkeypatch.setattr(pathlib.Path, 'read_bytes', fail)
  with pytest.raises(UserError, match=r'chelsea.png.*pip install --force-reinstall scikit-image'):
    make_source(data_config(source='photos'), 'eval')
