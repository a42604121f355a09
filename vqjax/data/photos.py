"""A handful of real colour photographs that are on disk wherever the demos' packages are."""

import importlib.util
import math
import pathlib
from typing import Any

import numpy as np

from vqjax.data.decode import UnreadableImage, decode
from vqjax.errors import UserError

_SKIMAGE = ('skimage', 'data', 'scikit-image')  # module, folder, name on PyPI
_MATPLOTLIB = ('matplotlib', 'mpl-data/sample_data', 'matplotlib')
_SKLEARN = ('sklearn', 'datasets/images', 'scikit-learn')

# The two motorcycles are one scene, taken by a stereo camera: never split them.
_PHOTOS = {
  'train': [
    (_SKIMAGE, 'astronaut.png'),
    (_SKIMAGE, 'coffee.png'),
    (_SKIMAGE, 'rocket.jpg'),
    (_SKIMAGE, 'motorcycle_left.png'),
    (_SKIMAGE, 'motorcycle_right.png'),
    (_SKIMAGE, 'hubble_deep_field.jpg'),
    (_SKLEARN, 'flower.jpg'),
    (_MATPLOTLIB, 'grace_hopper.jpg'),
  ],
  'eval': [
    (_SKIMAGE, 'chelsea.png'),
    (_SKLEARN, 'china.jpg'),
  ],
}
_SCALES = (1, 2 / 3, 1 / 2)  # side of a tile, as a fraction of the photograph's shorter side
_STRIDE = {'train': 1 / 4, 'eval': 1 / 2}  # at most, as a fraction of the tile's side


class Photos:
  """Square tiles, cut from photographs at three scales; training and held-out ones share none.

  `photos[i]` is {'image': uint8 [side side 3], 'label': index of the photograph, 'name':
  'file@top,left+side'}. None of the packages that they come with is imported. Raises `UserError` if
  one is not installed.
  """

  def __init__(self, split: str) -> None:
    self._photos = [(name, _read(wheel, name)) for wheel, name in _PHOTOS[split]]
    self._tiles = [
      (label, *tile)
      for label, (_, photo) in enumerate(self._photos)
      for tile in _tiles(photo.shape[0], photo.shape[1], _STRIDE[split])
    ]
    self.description = (
      f'{len(self)} tiles of {len(self._photos)} photographs from scikit-image, scikit-learn and '
      'matplotlib'
    )

  def __len__(self) -> int:
    return len(self._tiles)

  def __getitem__(self, index: int) -> dict[str, Any]:
    label, top, left, side = self._tiles[index]
    name, photo = self._photos[label]
    return {
      'image': photo[top : top + side, left : left + side],
      'label': label,
      'name': f'{name}@{top},{left}+{side}',
    }


def _read(wheel: tuple[str, str, str], name: str) -> np.ndarray:
  module, folder, package = wheel
  # Asking for the place imports nothing: both packages take seconds to import.
  spec = importlib.util.find_spec(module)
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      f"data.source='photos' needs {name} from {package}, which is not installed;"
      f' run: pip install {package}'
    )
  path = pathlib.Path(spec.submodule_search_locations[0], folder, name)
  try:
    return decode(path.read_bytes(), name)
  except (OSError, UnreadableImage) as error:
    raise UserError(
      f"data.source='photos' cannot read {path}: {error};"
      f' run: pip install --force-reinstall {package}'
    ) from error


def _tiles(height: int, width: int, stride: float) -> list[tuple[int, int, int]]:
  """Every (top, left, side), evenly spread from edge to edge."""
  tiles = []
  for scale in _SCALES:
    side = round(scale * min(height, width))
    tops, lefts = (
      np.linspace(0, length - side, 1 + math.ceil((length - side) / (stride * side)))
      for length in (height, width)
    )
    tiles += [(round(top), round(left), side) for top in tops for left in lefts]
  return tiles
