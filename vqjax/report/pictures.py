"""Images side by side."""

import numpy as np
from numpy.typing import ArrayLike

VISIBLE = 48  # pixels of a side


def comparison(
  originals: ArrayLike, reconstructions: ArrayLike, columns: int = 8, gap: int = 2
) -> np.ndarray:
  """Originals above their reconstructions: two uint8 [N H W 3] -> uint8 [H' W' 3], white between.

  Rows of `columns` pairs follow one another until all N are shown.
  """
  originals, reconstructions = np.asarray(originals), np.asarray(reconstructions)
  count, height, width, channels = originals.shape
  columns = min(columns, count)
  rows = -(-count // columns)
  picture_height = rows * (2 * (height + gap) + gap) - 2 * gap
  picture = np.full((picture_height, columns * (width + gap) - gap, channels), 255, np.uint8)
  for i in range(count):
    top = (i // columns) * (2 * (height + gap) + gap)
    left = (i % columns) * (width + gap)
    for j, image in enumerate((originals[i], reconstructions[i])):
      start = top + j * (height + gap)
      picture[start : start + height, left : left + width] = image
  return picture


def grid(images: ArrayLike, columns: int = 8, gap: int = 2) -> np.ndarray:
  """Images in rows of `columns`: uint8 [N H W 3] -> uint8 [H' W' 3], white between.

  Smaller images than VISIBLE are enlarged by a whole factor, up to that.
  """
  images = np.asarray(images)
  factor = max(VISIBLE // max(images.shape[1:3]), 1)
  images = images.repeat(factor, axis=1).repeat(factor, axis=2)
  count, height, width, channels = images.shape
  columns = min(columns, count)
  rows = -(-count // columns)
  shape = rows * (height + gap) - gap, columns * (width + gap) - gap, channels
  picture = np.full(shape, 255, np.uint8)
  for i, image in enumerate(images):
    top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
    picture[top : top + height, left : left + width] = image
  return picture


ERROR_WHITE = 64  # levels of 255


def error_map(originals: ArrayLike, reconstructions: ArrayLike) -> np.ndarray:
  """Where two images differ, in grey: two uint8 [N H W 3] -> uint8 [N H W].

  The mean over channels of `|x - y|`, black at 0 and white from ERROR_WHITE levels on: one scale
  for all images, so that maps compare.
  """
  x, y = (np.asarray(images).astype(np.float32) for images in (originals, reconstructions))
  errors = np.abs(x - y).mean(-1)
  return np.rint(np.minimum(errors / ERROR_WHITE, 1) * 255).astype(np.uint8)
