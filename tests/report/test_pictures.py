import numpy as np
import pytest

from vqjax.report import pictures


@pytest.mark.parametrize(
  ('count', 'columns', 'gap', 'rows', 'width'),
  [(3, 8, 2, 1, 3), (5, 3, 2, 2, 3), (4, 2, 1, 2, 2), (7, 3, 0, 3, 3), (1, 1, 3, 1, 1)],
)
def test_comparison(count, columns, gap, rows, width):
  h, w = 4, 6
  rng = np.random.default_rng(count)
  originals, reconstructions = rng.integers(0, 200, (2, count, h, w, 3), dtype=np.uint8)
  picture = pictures.comparison(originals, reconstructions, columns=columns, gap=gap)
  # One gap between the two of a pair, two between rows, none around.
  assert picture.shape == (rows * (2 * h + gap) + (rows - 1) * 2 * gap, width * (w + gap) - gap, 3)
  assert picture.dtype == np.uint8
  covered = np.zeros(picture.shape[:2], int)
  for i in range(count):
    row, column = divmod(i, width)
    top, left = row * (2 * h + 3 * gap), column * (w + gap)
    for start, image in ((top, originals[i]), (top + h + gap, reconstructions[i])):
      place = np.s_[start : start + h, left : left + w]
      np.testing.assert_array_equal(picture[place], image)
      covered[place] += 1
  assert covered.max() == 1
  assert (picture[covered == 0] == 255).all()


def test_error_map():
  original = np.zeros((2, 1, 3, 3), np.uint8)
  reconstruction = original.copy()
  reconstruction[0, 0, 0] = (32, 32, 32)
  reconstruction[0, 0, 1] = (0, 0, 96)
  reconstruction[1, 0, 2] = (255, 10, 200)
  expected = [[[128, 128, 0]], [[0, 0, 255]]]  # half of 64 levels, in the mean; and beyond
  np.testing.assert_array_equal(pictures.error_map(original, reconstruction), expected)
  # Unsigned levels do not wrap round.
  np.testing.assert_array_equal(pictures.error_map(reconstruction, original), expected)
