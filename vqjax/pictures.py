"""Images side by side."""

import numpy as np


def comparison(originals, reconstructions, columns=8, gap=2):
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
