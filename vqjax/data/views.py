"""The images of a source, each cut in several ways, as tokens for a generator are augmented."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqjax.data.decode import decode
from vqjax.data.sources import Source
from vqjax.data.transforms import make_transform

# By name: how much larger than `image_size` an image is before it is cut, and how many views of it
# there are. The mirrored ones come last, in the order of the others.
VIEWS = {'none': (1.0, 1), 'flip': (1.0, 2), 'ten_crop': (1.1, 10), 'ten_crop_105': (1.05, 10)}
_KEPT = 64  # images whose views are asked for one after the other, by as many threads


class Views:
  """A `Source` of A views of every image of another: number i A + a is view a of its image i.

  'flip': the image as evaluation cuts it, and its mirror image. 'ten_crop': cut likewise but at
  int(1.1 S) pixels for an image size S, then its four corners (top left, top right, bottom left,
  bottom right) and its centre of S pixels, and the mirror image of each; 'ten_crop_105' from
  int(1.05 S). LlamaGen's extract_codes_c2i.py (Sun et al., arXiv 2406.06525) and torchvision's
  TenCrop. What the views are cut by is `data`; they themselves are to be cut by `self.data`.

  Args:
    source: of images.
    data: section of a config, see `default_data`.
    augment: a name in `VIEWS`.
  """

  def __init__(self, source: Source, data: ConfigDict, augment: str) -> None:
    scale, self.count = VIEWS[augment]
    self._source, self._size = source, data.image_size
    larger = ConfigDict(data.to_dict())
    larger.image_size = int(scale * data.image_size)
    larger.eval.resize_size = int(scale * data.eval.resize_size)
    larger.eval.resize_up_to = int(scale * data.eval.resize_up_to)
    self._transform = make_transform(larger, 'eval')
    self._cut = functools.lru_cache(_KEPT)(self._read)
    self.data = ConfigDict(data.to_dict())
    self.data.eval.update({'resize': 'none', 'crop': 'center', 'flip': False, 'blur': 0.0})
    self.data.eval.update({'color_jitter': (0.0,) * 5, 'resize_up_to': 0, 'filter': 'bilinear'})
    self.description = f'{self.count} views ({augment}) of each of {source.description}'

  def __len__(self) -> int:
    return len(self._source) * self.count

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, view = divmod(range(len(self))[index], self.count)
    example = self._cut(number)
    image, half = example['image'], max(self.count // 2, 1)
    margin = len(image) - self._size
    middle = round(margin / 2.0)  # as torchvision rounds
    corners = [(0, 0), (0, margin), (margin, 0), (margin, margin), (middle, middle)]
    top, left = corners[view % half] if half > 1 else (0, 0)
    image = image[top : top + self._size, left : left + self._size]
    return {**example, 'image': image[:, ::-1] if view >= half else image}

  def _read(self, number):
    example = self._source[number]
    image = example['image']
    if not isinstance(image, np.ndarray):
      image = decode(image, example['name'])
    # Whatever evaluation draws is a function of the image's number.
    image = self._transform(image, np.random.default_rng(number))
    return {**example, 'image': image}
