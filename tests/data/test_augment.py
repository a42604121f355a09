"""Colour jitter and blur against values of OpenCV and albumentations."""

import colorsys
import functools

import numpy as np
import pytest
from pictures import picture

from vqjax.data import augment

PIXELS = np.array([[[200, 30, 60], [12, 250, 100], [90, 90, 90], [0, 0, 255]]], np.uint8)


def rng(seed=0):
  return np.random.default_rng(seed)


@pytest.mark.parametrize(
  ('change', 'amount', 'want'),
  # Of albumentations 1.4.21 with OpenCV 5.0, which cuts fractions off: up to one level lower.
  [
    (augment.scale_brightness, 1.3, [[255, 39, 78], [15, 255, 130], [116] * 3, [0, 0, 255]]),
    (augment.scale_contrast, 0.6, [[156, 54, 72], [43, 186, 96], [90] * 3, [36, 36, 189]]),
    (augment.scale_contrast, 1.4, [[243, 5, 47], [0, 255, 103], [89] * 3, [0, 0, 255]]),
    (augment.scale_saturation, 1.3, [[235, 14, 53], [0, 255, 81], [90] * 3, [0, 0, 255]]),
    (augment.scale_saturation, 0.6, [[154, 52, 70], [72, 215, 125], [90] * 3, [12, 12, 165]]),
    (augment.turn_hue, 0.1, [[200, 104, 30], [12, 250, 242], [90] * 3, [153, 0, 255]]),
    (augment.turn_hue, -0.07, [[200, 30, 132], [28, 250, 12], [90] * 3, [0, 110, 255]]),
  ],
)
def test_follows_albumentations(change, amount, want):
  got = change(PIXELS, amount)
  assert got.dtype == np.uint8
  # Its hue is in steps of two degrees, which may be eight levels.
  tolerance = 4 if change is augment.turn_hue else 1
  assert np.abs(got[0].astype(int) - want).max() <= tolerance


@pytest.mark.parametrize('turn', [-0.5, -0.1, 0.03, 0.1, 0.5])
def test_hue_turns_as_in_the_standard_library(turn):
  image = picture(0)
  want = [
    colorsys.hsv_to_rgb((h + turn) % 1, s, v)
    for h, s, v in (colorsys.rgb_to_hsv(*pixel / 255) for pixel in image.reshape(-1, 3))
  ]
  got = augment.turn_hue(image, turn).reshape(-1, 3)
  assert np.abs(got - 255 * np.array(want)).max() <= 0.501


def test_grey_pixels_have_no_hue_and_no_saturation():
  grey = picture(1)[..., :1].repeat(3, -1)
  np.testing.assert_array_equal(augment.turn_hue(grey, 0.3), grey)
  np.testing.assert_array_equal(augment.scale_saturation(grey, 1.7), grey)


@pytest.mark.parametrize(
  'change',
  [
    functools.partial(augment.scale_brightness, factor=1.0),
    functools.partial(augment.scale_contrast, factor=1.0),
    functools.partial(augment.scale_saturation, factor=1.0),
    functools.partial(augment.turn_hue, turn=0.0),
    lambda image: augment.jitter_color(image, 0.0, 0.0, 0.0, 0.0, rng()),
  ],
)
def test_nothing_changes_nothing(change):
  image = picture(2, 40, 50)
  np.testing.assert_array_equal(change(image), image)


def test_factor_zero_is_black_the_mean_or_grey():
  image = picture(3)
  assert not augment.scale_brightness(image, 0.0).any()
  assert len(np.unique(augment.scale_contrast(image, 0.0))) == 1
  assert not np.ptp(augment.scale_saturation(image, 0.0), axis=-1).any()


def test_every_change_of_the_jitter_has_its_range_and_its_turn(monkeypatch):
  names = ('scale_brightness', 'scale_contrast', 'scale_saturation', 'turn_hue')
  calls = []
  for name in names:
    note = lambda image, amount, name=name: calls.append((name, amount)) or image
    monkeypatch.setattr(augment, name, note)
  r = rng()
  for _ in range(300):
    augment.jitter_color(picture(4), 0.4, 1.5, 0.2, 0.1, r)
  for name, (low, high) in zip(names, [(0.6, 1.4), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)], strict=True):
    amounts = np.array([amount for called, amount in calls if called == name])
    assert len(amounts) == 300
    edge = 0.05 * (high - low)
    assert low <= amounts.min() < low + edge
    assert high - edge < amounts.max() <= high
  orders = {tuple(name for name, _ in calls[i : i + 4]) for i in range(0, len(calls), 4)}
  assert len(orders) == 24


def test_blur_is_opencvs_to_the_bit():
  rows, columns = np.mgrid[:4, :5]
  level = (37 * rows + 61 * columns**2) % 256
  image = np.stack([level, 0 * level, 255 - level], -1).astype(np.uint8)
  # cv2.GaussianBlur(image, (size, size), sigmaX=0) of OpenCV 5.0.
  want = {
    3: [[49, 78, 101, 118, 141], [68, 81, 88, 105, 128], [105, 102, 93, 94, 101]],
    5: [[69, 78, 95, 113, 123], [79, 84, 94, 107, 115], [100, 99, 97, 98, 100]],
    7: [[81, 86, 96, 105, 111], [86, 90, 96, 103, 107], [96, 97, 98, 100, 102]],
  }
  for size, levels in want.items():
    got = augment.blur(image, size)
    np.testing.assert_array_equal(got[:3, :, 0], levels)
    assert not got[..., 1].any()
    assert np.abs(got[..., 2] + got[..., 0].astype(int) - 255).max() <= 1


def test_blur_keeps_shape_and_flat_images():
  for shape in ((1, 1, 3), (2, 9, 3), (5, 3, 3)):
    flat = np.full(shape, 77, np.uint8)
    for size in (3, 5, 7):
      np.testing.assert_array_equal(augment.blur(flat, size), flat)


def test_sizes_of_the_blur_come_up_as_in_albumentations(monkeypatch):
  sizes = []
  monkeypatch.setattr(augment, 'blur', lambda image, size: sizes.append(size) or image)
  r = rng()
  for _ in range(1000):
    augment.blur_at_random(picture(5), r)
  found, counts = np.unique(sizes, return_counts=True)
  assert found.tolist() == [3, 5, 7]
  np.testing.assert_allclose(counts / 1000, [0.2, 0.4, 0.4], atol=0.05)
