"""The images nearest to features."""

import numpy as np

from vqjax.evaluation.nearest import Nearest


def test_nearest_by_definition_in_any_batches():
  rng = np.random.default_rng(0)
  features, others = rng.normal(size=(4, 6)), rng.normal(size=(30, 6))
  images = rng.integers(0, 256, (30, 2, 3, 3), np.uint8)
  distances = np.square(features[:, None] - others[None]).sum(axis=2)
  order = np.argsort(distances, axis=1)[:, :3]
  for batch in (1, 7, 30):
    nearest = Nearest(features, 3)
    for start in range(0, 30, batch):
      nearest.add(others[start : start + batch], images[start : start + batch])
    expected = np.take_along_axis(distances, order, axis=1)
    np.testing.assert_allclose(nearest.distances, expected, rtol=1e-12)
    np.testing.assert_array_equal(np.stack(nearest.images), images[order])


def test_fewer_than_asked_for():
  nearest = Nearest(np.zeros((2, 1)), 3)
  nearest.add(np.float32([[2], [1]]), np.arange(2, dtype=np.uint8)[:, None, None, None])
  assert [[int(image.item()) for image in images] for images in nearest.images] == [[1, 0]] * 2
  np.testing.assert_array_equal(nearest.distances, [[1, 4, np.inf]] * 2)
