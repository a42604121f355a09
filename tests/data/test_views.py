"""Every view of an image is where torchvision's TenCrop has it."""

import ml_collections
import numpy as np
import pytest
from data.pictures import picture

from vqjax.data import VIEWS, Views, default_data, make_transform


class Pictures:
  description = '3 pictures'

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return {'image': picture(index, 24 + index, 31), 'label': index, 'name': f'{index}.png'}


@pytest.fixture(scope='module')
def data():
  data = ml_collections.ConfigDict({**default_data(), 'image_size': 20})
  data.eval.antialias, data.eval.filter = True, 'bicubic'
  return data


def views_of(data, augment, index):
  views = Views(Pictures(), data, augment)
  cut = make_transform(views.data, 'eval')
  for view in range(views.count):
    example = views[index * views.count + view]
    assert (example['label'], example['name']) == (index, f'{index}.png')
    np.testing.assert_array_equal(cut(example['image'], None), example['image'])  # no further cut
    yield example['image']


@pytest.mark.parametrize('index', [0, 2])
def test_an_image_and_its_mirror_image(data, index):
  whole = make_transform(data, 'eval')(Pictures()[index]['image'], None)
  first, second = views_of(data, 'flip', index)
  np.testing.assert_array_equal(first, whole)
  np.testing.assert_array_equal(second, whole[:, ::-1])


@pytest.mark.parametrize(('augment', 'side'), [('ten_crop', 22), ('ten_crop_105', 21)])
def test_five_crops_and_their_mirror_images(data, augment, side):
  larger = ml_collections.ConfigDict({**data.to_dict(), 'image_size': side})
  whole = make_transform(larger, 'eval')(Pictures()[1]['image'], None)
  assert whole.shape == (side, side, 3)
  more = side - 20
  middle = round(more / 2)
  corners = [(0, 0), (0, more), (more, 0), (more, more), (middle, middle)]
  found = list(views_of(data, augment, 1))
  for view, (top, left) in enumerate(corners):
    crop = whole[top : top + 20, left : left + 20]
    np.testing.assert_array_equal(found[view], crop)
    np.testing.assert_array_equal(found[view + 5], crop[:, ::-1])


def test_all_of_them(data):
  for augment, (_, count) in VIEWS.items():
    views = Views(Pictures(), data, augment)
    assert len(views) == 3 * count
    assert sum(1 for _ in views) == 3 * count
    with pytest.raises(IndexError):
      views[3 * count]
