"""Resizing and cropping against values worked out by hand or by an independent sampler."""

import cv2
import numpy as np
import pytest
from pictures import data_config, picture
from PIL import Image
from scipy import ndimage

from vqjax.data import augment
from vqjax.data.transforms import Transform, inception_box, make_transform
from vqjax.errors import UserError


def transform(image_size, **fields):
  fields = {'resize': 'none', 'crop': 'center', **fields}
  return make_transform(data_config(image_size=image_size, train=fields), 'train')


def rng(seed=0):
  return np.random.default_rng(seed)


def coordinates(height, width):
  """Every pixel holds its own position: [row, column, 0]."""
  rows, columns = np.mgrid[:height, :width]
  return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def bilinear(image, height, width):
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def corner(image):
  return tuple(int(n) for n in image[0, 0, :2])


@pytest.mark.parametrize(
  ('height', 'width', 'top', 'left'),
  # Margins of 1, 2, 3, 5: torchvision rounds their halves to the even, 0, 1, 2, 2.
  [(8, 8, 0, 0), (9, 10, 0, 1), (11, 13, 2, 2), (13, 8, 2, 0)],
)
def test_center_crop(height, width, top, left):
  image = transform(8)(coordinates(height, width), rng())
  assert image.shape == (8, 8, 3)
  assert corner(image) == (top, left)
  np.testing.assert_array_equal(image, coordinates(height, width)[top : top + 8, left : left + 8])


def test_small_image_is_padded_as_torchvision_pads():
  image = np.full((3, 12, 3), 9, np.uint8)
  out = transform(8)(image, rng())
  # 5 rows are missing: 2 above, 3 below; the width is cropped.
  np.testing.assert_array_equal(out[:2], 0)
  np.testing.assert_array_equal(out[2:5], 9)
  np.testing.assert_array_equal(out[5:], 0)
  both = transform(8)(np.full((7, 5, 3), 9, np.uint8), rng())
  assert np.argwhere(both[..., 0]).min(0).tolist() == [0, 1]
  assert np.argwhere(both[..., 0]).max(0).tolist() == [6, 5]


def test_small_image_is_upscaled():
  ramp = np.repeat(np.arange(4, dtype=np.uint8)[None, :, None] * 60, 2, 0).repeat(3, 2)
  out = transform(4, small='upscale')(ramp, rng())
  # 2 x 4 becomes 4 x 8; columns 2..5 of 0 15 45 75 105 135 165 180 are kept.
  np.testing.assert_array_equal(out[0, :, 0], [45, 75, 105, 135])


def test_small_image_is_refused():
  with pytest.raises(UserError, match=r"3 x 12 .*image_size=8.*train.small to 'pad' or 'upscale'"):
    transform(8, small='error')(coordinates(3, 12), rng())
  assert transform(8, small='error')(coordinates(8, 8), rng()).shape == (8, 8, 3)


def test_random_crop_reaches_every_place_alike():
  crop = transform(8, crop='random')
  r = rng()
  corners = [corner(crop(coordinates(9, 10), r)) for _ in range(600)]
  places, counts = np.unique(corners, axis=0, return_counts=True)
  assert places.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
  assert counts.min() > 60


def test_flip_is_a_fair_coin():
  image = picture(0, 8, 8)
  flip = transform(8, flip=True)
  r = rng()
  mirrored = 0
  for _ in range(400):
    out = flip(image, r)
    mirrored += np.array_equal(out, image[:, ::-1])
    assert np.array_equal(out, image) or np.array_equal(out, image[:, ::-1])
  assert 150 < mirrored < 250
  np.testing.assert_array_equal(transform(8)(image, r), image)


@pytest.mark.parametrize(('height', 'width'), [(5, 31), (11, 17), (12, 12), (40, 9)])
def test_opencvs_bilinear_is_half_pixel_sampling(height, width):
  image = picture(1, 12, 20)
  rows = (np.arange(height) + 0.5) * 12 / height - 0.5
  columns = (np.arange(width) + 0.5) * 20 / width - 0.5
  where = np.meshgrid(rows, columns, indexing='ij')
  want = np.stack(
    [
      ndimage.map_coordinates(image[..., c].astype(float), where, order=1, mode='nearest')
      for c in range(3)
    ],
    -1,
  )
  got = bilinear(image, height, width)
  # OpenCV counts in 11 bits and cuts off between its passes: a level at most, and a bit too dark.
  assert np.abs(got - want).max() <= 1
  assert -0.2 < (got - want).mean() < 0.05


def test_shorter_side_with_and_without_antialiasing():
  image = picture(2, 15, 22)
  # 8 * 22 / 15 = 11.73: albumentations makes 12 columns of it, torchvision 11.
  plain = transform(8, resize='shorter')(image, rng())
  np.testing.assert_array_equal(plain, bilinear(image, 8, 12)[:, 2:10])
  smooth = transform(8, resize='shorter', antialias=True)(image, rng())
  whole = np.asarray(Image.fromarray(image).resize((11, 8), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(smooth, whole[:, 2:10])
  assert not np.array_equal(bilinear(image, 8, 11), whole)


def test_shorter_side_may_be_the_width_and_may_grow():
  tall = transform(8, resize='shorter')(picture(3, 22, 15), rng())
  np.testing.assert_array_equal(tall, bilinear(picture(3, 22, 15), 12, 8)[2:10])
  grown = transform(8, resize='shorter')(picture(3, 4, 4), rng())
  np.testing.assert_array_equal(grown, bilinear(picture(3, 4, 4), 8, 8))


def test_resize_size_differs_from_the_crop():
  out = transform(8, resize='shorter', resize_size=10)(picture(4, 20, 30), rng())
  np.testing.assert_array_equal(out, bilinear(picture(4, 20, 30), 10, 15)[1:9, 4:12])


@pytest.mark.parametrize('name', ['bilinear', 'bicubic', 'lanczos', 'box'])
def test_exact_resize_ignores_the_shape(name):
  image = picture(5, 16, 40)
  out = transform(8, resize='exact', filter=name, antialias=True)(image, rng())
  want = Image.fromarray(image).resize((8, 8), getattr(Image.Resampling, name.upper()))
  np.testing.assert_array_equal(out, np.asarray(want))


def test_box_filter_of_an_even_shrink_is_the_mean():
  image = picture(6, 16, 16)
  out = transform(8, resize='exact', filter='box', antialias=True)(image, rng())
  mean = image.reshape(8, 2, 8, 2, 3).mean((1, 3))
  # Pillow rounds after each of its two passes.
  assert np.abs(out - mean).max() <= 1


def test_sizes_are_drawn_alike_from_both_ends_inclusive(monkeypatch):
  sizes = []
  note = lambda self, image, size: sizes.append(size) or image[:8, :8]
  monkeypatch.setattr(Transform, '_shorter_side', note)
  resize = transform(8, resize='shorter', resize_size=9, resize_up_to=12)
  r = rng()
  for _ in range(400):
    resize(picture(7), r)
  found, counts = np.unique(sizes, return_counts=True)
  assert found.tolist() == [9, 10, 11, 12]
  assert counts.min() > 60


@pytest.mark.parametrize(
  ('height', 'width', 'halved', 'resized'),
  [
    (33, 70, (16, 35), (10, 22)),  # 35 * 10 / 16 = 21.875, which torchvision would cut to 21
    (83, 41, (41, 20), None),  # then 20 x 10: a side of 20 still allows it
    (19, 25, None, (10, 13)),
    (10, 30, None, None),
  ],
)
def test_box_bicubic_halves_as_often_as_it_can(height, width, halved, resized):
  image = picture(8, height, width)
  got = transform(8, resize='shorter', resize_size=10, filter='box_bicubic', antialias=True)(
    image, rng()
  )
  want = Image.fromarray(image)
  if halved:
    want = want.resize(halved[::-1], Image.Resampling.BOX)
  if (height, width) == (83, 41):
    want = want.resize((10, 20), Image.Resampling.BOX)
  if resized:
    want = want.resize(resized[::-1], Image.Resampling.BICUBIC)
  want = np.asarray(want)
  top, left = (round((n - 8) / 2) for n in want.shape[:2])
  np.testing.assert_array_equal(got, want[top : top + 8, left : left + 8])


def test_jitter_and_blur_come_after_the_crop_with_their_probabilities():
  image = picture(9, 12, 16)
  whole = {'crop': 'center', 'image_size': 12}
  untouched = transform(**whole)(image, rng())
  assert untouched.shape == (12, 12, 3)
  jitter, blur, r = (0.4, 0.4, 0.4, 0.1), (augment.blur(untouched, n) for n in (3, 5, 7)), rng(1)
  blurred = {each.tobytes() for each in blur}
  images = {
    'jitter': [transform(**whole, color_jitter=(*jitter, 0.8))(image, r) for _ in range(200)],
    'blur': [transform(**whole, blur=0.5)(image, r) for _ in range(200)],
  }
  same = {name: sum(np.array_equal(x, untouched) for x in xs) for name, xs in images.items()}
  assert 20 < same['jitter'] < 60
  assert 75 < same['blur'] < 125
  assert {x.tobytes() for x in images['blur']} == blurred | {untouched.tobytes()}


def test_every_augmentation_at_once_is_a_function_of_the_generator():
  augmented = transform(
    8,
    resize='shorter',
    resize_size=12,
    crop='random_resized',
    scale=(0.2, 1.0),
    color_jitter=(0.4, 0.4, 0.4, 0.1, 0.8),
    blur=0.5,
    flip=True,
  )
  image = picture(10, 20, 30)
  a, b, c = (augmented(image, rng(seed)) for seed in (3, 3, 4))
  assert a.shape == (8, 8, 3)
  assert a.dtype == np.uint8
  np.testing.assert_array_equal(a, b)
  assert not np.array_equal(a, c)


def test_what_is_switched_off_draws_nothing():
  image, crop = picture(11, 20, 30), {'crop': 'random', 'flip': True}
  # Strengths do not matter at probability zero.
  off = transform(8, **crop, color_jitter=(0.4, 0.4, 0.4, 0.1, 0.0), blur=0.0)
  for seed in range(5):
    np.testing.assert_array_equal(off(image, rng(seed)), transform(8, **crop)(image, rng(seed)))


def test_random_resized_crop_stays_in_its_bounds():
  r = rng()
  boxes = [inception_box(90, 120, (0.2, 0.8), (0.5, 2.0), r) for _ in range(400)]
  area = np.array([h * w / (90 * 120) for _, _, h, w in boxes])
  shape = np.array([w / h for _, _, h, w in boxes])
  assert 0.19 < area.min() < 0.25
  assert 0.7 < area.max() < 0.81
  assert 0.49 < shape.min() < 0.6
  assert 1.7 < shape.max() < 2.04
  assert all(t >= 0 and x >= 0 and t + h <= 90 and x + w <= 120 for t, x, h, w in boxes)


def test_random_resized_crop_is_as_often_tall_as_wide():
  # Log-uniform; a uniform ratio would make two boxes in three wide.
  r = rng()
  boxes = [inception_box(100, 100, (0.1, 0.2), (0.5, 2.0), r) for _ in range(400)]
  assert 0.42 < np.mean([w < h for _, _, h, w in boxes]) < 0.58


@pytest.mark.parametrize(
  ('height', 'width', 'box'),
  # Ten boxes of the full area cannot fit: the centre, as far as 3/4 .. 4/3 lets it reach.
  [(30, 100, (0, 30, 30, 40)), (100, 30, (30, 0, 40, 30))],
)
def test_random_resized_crop_falls_back_to_the_centre(height, width, box):
  assert inception_box(height, width, (1.0, 1.0), (3 / 4, 4 / 3), rng()) == box


def test_random_resized_crop_of_everything_is_a_resize():
  image = picture(7, 20, 20)
  crop = transform(8, crop='random_resized', scale=(1.0, 1.0), ratio=(1.0, 1.0))
  np.testing.assert_array_equal(crop(image, rng()), bilinear(image, 8, 8))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'resize': 'longer'}, r"data.train.resize is 'longer'; it can be one of 'none', 'shorter'"),
    ({'filter': 'cubic'}, r"data.train.filter is 'cubic'; it can be one of 'bilinear', 'bicubic'"),
    ({'crop': 'centre'}, r"data.train.crop is 'centre'; .* 'random_resized'"),
    ({'small': 'crop'}, r"data.train.small is 'crop'; .* 'pad', 'upscale', 'error'"),
    ({'flip': 0.5}, r'data.train.flip is 0.5; it can be one of True, False'),
    ({'filter': 'lanczos'}, r"data.train.filter is 'lanczos' with antialias=False"),
    ({'resize_size': -1}, r'data.train.resize_size is -1; .* 0 for'),
    (
      {'resize': 'shorter', 'resize_up_to': 7},
      r"data.train.resize_up_to is 7; give 8 pixels or more, with data.train.resize='shorter'",
    ),
    ({'resize_up_to': 9}, r"data.train.resize_up_to is 9; .* data.train.resize='shorter', or 0"),
    (
      {'filter': 'box_bicubic', 'antialias': True, 'resize': 'exact'},
      r"data.train.filter is 'box_bicubic'; it goes with data.train.resize='shorter'",
    ),
    (
      {'filter': 'box_bicubic', 'antialias': True, 'resize': 'shorter', 'crop': 'random_resized'},
      r"data.train.filter is 'box_bicubic'; .* a crop that is 'center' or 'random'",
    ),
    ({'color_jitter': (0.4, 0.4)}, r'color_jitter is \(0.4, 0.4\); give \(brightness, contrast'),
    ({'color_jitter': (0, 0, 0, 0.6, 1)}, r'color_jitter is .* a hue of at most 0.5'),
    ({'color_jitter': (0, 0, -1, 0, 1)}, r'color_jitter is .* none of them below 0'),
    ({'color_jitter': (0, 0, 0, 0, 2)}, r'color_jitter is .* a probability of at most 1'),
    ({'blur': 1.5}, r'data.train.blur is 1.5; give a probability, 0 to 1'),
    ({'scale': (0.5, 1.5)}, r'data.train.scale is \(0.5, 1.5\); .* <= 1'),
    ({'ratio': (2.0, 1.0)}, r'data.train.ratio is \(2.0, 1.0\); .* low <= high'),
  ],
)
def test_wrong_field(fields, message):
  with pytest.raises(UserError, match=message):
    transform(8, **fields)


def test_wrong_image_size():
  with pytest.raises(UserError, match=r'data.image_size is 0; give a number of pixels'):
    transform(0)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({}, 'not resized; center crop of 8 (smaller ones padded)'),
    (
      {'resize': 'shorter', 'resize_size': 9, 'resize_up_to': 12, 'crop': 'random', 'flip': True},
      'shorter side 9 to 12; random crop of 8 (smaller ones padded); bilinear, without '
      'antialiasing; flip',
    ),
    (
      {'resize': 'exact', 'antialias': True, 'small': 'error', 'blur': 0.5},
      'sides 8; center crop of 8 (smaller ones refused); bilinear, with antialiasing; blur 0.5',
    ),
    (
      {'crop': 'random_resized', 'scale': (0.5, 1.0)},
      'not resized; random part of area (0.5, 1.0) and shape (0.75, 1.3333333333333333); resized '
      'to 8; bilinear, without antialiasing',
    ),
  ],
)
def test_a_transform_says_what_it_does(fields, words):
  assert str(transform(8, **fields)) == words
