"""Which generated images the report shows."""

from collections.abc import Sequence

import numpy as np

from vqjax.evaluation.collect import spread
from vqjax.evaluation.results import Found

SHOWN = 64  # samples
CLASSES = 16  # of them, where there are classes

Labels = Sequence[int] | np.ndarray


def chosen(total: int, labels: Labels | None) -> list[int]:
  """Positions of samples to show: evenly spread, or as many of each of some classes."""
  if labels is None:
    return sorted(spread(total, SHOWN))
  if len(labels) < total:
    raise ValueError(f'{len(labels)} labels of {total} samples.')
  labels = np.asarray(labels)[:total]
  there = np.unique(labels)
  classes = [there[i] for i in sorted(spread(len(there), CLASSES))]
  of_each = SHOWN // len(classes)
  return sorted(int(i) for label in classes for i in np.flatnonzero(labels == label)[:of_each])


class Shown:
  """Samples at some positions, uint8 [H W 3], with their features [D]."""

  def __init__(self, positions: Sequence[int]) -> None:
    self._wanted = frozenset(positions)
    self.positions: list[int] = []
    self.images: list[np.ndarray] = []
    self.features: list[np.ndarray] = []

  def add(self, start: int, images: np.ndarray, found: Found) -> None:
    """Looks at images from the position `start` on, uint8 [b H W 3], and what was found on them."""
    for i in range(len(images)):
      if start + i in self._wanted:
        self.positions.append(start + i)
        self.images.append(images[i].copy())
        self.features.append(found['pool'][i].copy())

  def by_class(self, labels: Labels) -> None:
    """Puts them in the order of their labels, [N] of all samples."""
    order = np.argsort([labels[position] for position in self.positions], kind='stable')
    self.positions = [self.positions[i] for i in order]
    self.images = [self.images[i] for i in order]
    self.features = [self.features[i] for i in order]
