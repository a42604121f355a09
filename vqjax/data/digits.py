"""Handwritten digits that are on disk wherever scikit-learn is: a small stand-in for MNIST."""

import importlib.util
import pathlib
from typing import Any

import numpy as np

from vqjax.errors import UserError

_FILE = 'datasets/data/digits.csv.gz'
_TRAINING = 1415  # of 1797; a form begins there


class Digits:
  """Images 8 x 8 in 16 grey levels, their range stretched to 0..255.

  `digits[i]` is {'image': uint8 [8 8 3], three equal channels, 'label': 0..9, 'name':
  'digits[row of the file]'}. The file is the test set of UCI's Optical Recognition of Handwritten
  Digits, in the order of the forms that 13 people filled in; where one begins is seen from its
  labels, 0 to 9 three times over. The first 1415 images train, and the last 382, three forms, are
  held out: in other hands, but for at most one person, and each class is 9% to 11% of either.
  scikit-learn is not imported. Raises `UserError` if it is not installed.
  """

  class_names = tuple('0123456789')

  def __init__(self, split: str) -> None:
    rows = _read()
    self._first = 0 if split == 'train' else _TRAINING
    rows = rows[:_TRAINING] if split == 'train' else rows[_TRAINING:]
    grey = (rows[:, :64].astype(np.uint16) * 255 + 8) // 16  # 0..16 -> 0..255, rounded
    images = grey.astype(np.uint8).reshape(-1, 8, 8, 1)
    self._images = np.broadcast_to(images, (*images.shape[:3], 3))
    self._labels = rows[:, 64]
    self.description = f'{len(self)} handwritten digits from scikit-learn'

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {
      'image': np.ascontiguousarray(self._images[index]),
      'label': int(self._labels[index]),
      'name': f'digits[{self._first + index}]',
    }


def _read() -> np.ndarray:
  """uint8 [1797 65]: 64 pixels in 0..16, row by row, and the label."""
  # Asking for the place imports nothing: the package takes seconds to import.
  spec = importlib.util.find_spec('sklearn')
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      f"data.source='digits' needs {_FILE} from scikit-learn, which is not installed;"
      ' run: pip install scikit-learn'
    )
  path = pathlib.Path(spec.submodule_search_locations[0], _FILE)
  try:
    return np.loadtxt(path, dtype=np.uint8, delimiter=',')
  except (OSError, ValueError) as error:
    raise UserError(
      f"data.source='digits' cannot read {path}: {error};"
      ' run: pip install --force-reinstall scikit-learn'
    ) from error
