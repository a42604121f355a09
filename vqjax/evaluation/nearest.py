"""The images that some features lie nearest to: whether what a generator made is a copy."""

import numpy as np


class Nearest:
  """The `count` images nearest to each of n rows, by the squared distance of features.

  Args:
    features: [n D].
    count: how many.

  Attributes:
    distances: float64 [n count], rising; infinite where fewer images were added.
  """

  def __init__(self, features: np.ndarray, count: int = 3) -> None:
    self._features = np.asarray(features, np.float64)
    self.distances = np.full((len(features), count), np.inf)
    self._images: list[list[np.ndarray]] = [[] for _ in features]

  @property
  def images(self) -> list[list[np.ndarray]]:
    """For each row its images, uint8 [H W 3], the nearest first."""
    return self._images

  def add(self, features: np.ndarray, images: np.ndarray) -> None:
    """Looks at images, uint8 [B H W 3], by their features [B D]."""
    features = np.asarray(features, np.float64)
    count = self.distances.shape[1]
    for i, row in enumerate(self._features):
      distances = np.square(features - row).sum(axis=1)
      for j in np.argsort(distances, kind='stable')[:count]:
        place = int(np.searchsorted(self.distances[i], distances[j], side='right'))
        if place < count:
          self.distances[i] = np.insert(self.distances[i], place, distances[j])[:count]
          self._images[i].insert(place, images[j].copy())
          del self._images[i][count:]
