"""Colour jitter and blur as albumentations 1.x has them, on uint8 RGB [H W 3] in NumPy.

Three deviations, each within rounding: values are rounded to nearest after every change, where
some of its versions cut them off; hue moves by exact amounts, where OpenCV's 8-bit hue has steps of
two degrees; OpenCV blurs in fixed point.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

_Change = Callable[[np.ndarray, float], np.ndarray]

# OpenCV's kernels of these sizes where sigma is left to it: tables, not samples of a Gaussian.
_KERNELS = {
  3: np.array([1, 2, 1], np.float32) / 4,
  5: np.array([1, 4, 6, 4, 1], np.float32) / 16,
  7: np.array([1, 3.5, 7, 9, 7, 3.5, 1], np.float32) / 32,
}


def jitter_color(
  image: np.ndarray,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Brightness, contrast, saturation and hue at random, in random order.

  The first three scale by a factor uniform in [1 - x, 1 + x], not below 0; the hue turns by a
  fraction of the circle uniform in [-hue, hue].
  """
  factors = [rng.uniform(max(0.0, 1 - x), 1 + x) for x in (brightness, contrast, saturation)]
  scales = scale_brightness, scale_contrast, scale_saturation
  changes: list[tuple[_Change, float]] = list(zip(scales, factors, strict=True))
  changes.append((turn_hue, rng.uniform(-hue, hue)))
  for i in rng.permutation(len(changes)):
    change, amount = changes[i]
    image = change(image, amount)
  return image


def scale_brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Towards black, or away from it: `factor x`."""
  return _to_uint8(np.arange(256) * factor)[image]


def scale_contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Towards the mean of the image's grey levels, or away from it: `mean + factor (x - mean)`."""
  mean = _grey(image).mean()
  return _to_uint8(mean + (np.arange(256) - mean) * factor)[image]


def scale_saturation(image: np.ndarray, factor: float) -> np.ndarray:
  """Every pixel towards its grey level, or away from it: `grey + factor (x - grey)`."""
  grey = _grey(image)[..., None].astype(np.float32)
  return _to_uint8(grey + (image - grey) * np.float32(factor))


def turn_hue(image: np.ndarray, turn: float) -> np.ndarray:
  """By a fraction of the colour circle, -0.5 to 0.5; value and saturation (HSV) stay."""
  r, g, b = np.moveaxis(image.astype(np.float32), -1, 0)
  value = np.maximum(np.maximum(r, g), b)
  chroma = value - np.minimum(np.minimum(r, g), b)
  divisor = np.maximum(chroma, 1)  # levels are whole numbers; grey pixels have no hue
  sixths = np.where(
    value == r,
    (g - b) / divisor,
    np.where(value == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor),
  )
  sixths += np.float32(6 * turn)
  levels = []
  for peak in (0, 2, 4):
    # A channel is full for a sixth on either side of its peak, and off from two sixths on.
    distance = np.abs(sixths - np.float32(peak))
    distance = np.abs(np.minimum(distance, 6 - distance))  # the shorter way round
    levels.append(value - chroma * np.clip(distance - 1, 0, 1))
  return _to_uint8(np.stack(levels, -1))


def blur_at_random(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """`blur` over 3, 5 or 7 pixels; 3 comes up half as often, as in albumentations."""
  return blur(image, int(rng.integers(3, 8)) | 1)


def blur(image: np.ndarray, size: int) -> np.ndarray:
  """`cv2.GaussianBlur` over `size` x `size` pixels, 3, 5 or 7, with OpenCV's own sigma.

  The border mirrors the image without repeating the outermost row.
  """
  pixels, reach = image.astype(np.float32), size // 2
  for _ in range(2):
    padded = np.pad(pixels, ((reach, reach), (0, 0), (0, 0)), mode='reflect')
    rows = (padded[i : i + pixels.shape[0]] for i in range(size))
    weighted = (weight * row for weight, row in zip(_KERNELS[size], rows, strict=True))
    pixels = functools.reduce(np.add, weighted)
    pixels = pixels.swapaxes(0, 1)
  return _to_uint8(pixels)


def _grey(image: np.ndarray) -> np.ndarray:
  """Luminance uint8 [H W], 0.299 R + 0.587 G + 0.114 B."""
  return np.asarray(Image.fromarray(image).convert('L'))


def _to_uint8(levels: np.ndarray) -> np.ndarray:
  return (np.clip(levels, 0, 255) + 0.5).astype(np.uint8)
