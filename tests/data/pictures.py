"""Small pictures with known pixels, and configs, for the tests of the data package."""

import io
import types

import numpy as np
from PIL import Image

from vqjax.data import default_data


def data_config(**fields):
  """The default section with some fields replaced; `train` and `eval` take dicts of changes."""
  data = default_data()
  for split in ('train', 'eval'):
    data[split] = types.SimpleNamespace(**{**data[split], **fields.pop(split, {})})
  return types.SimpleNamespace(**{**data, **fields})


def picture(seed, height=12, width=16):
  """Random pixels: uint8 [height width 3]."""
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels, **options):
  """Encodes an array, or a Pillow image, without loss."""
  return encoded(pixels, 'PNG', **options)


def encoded(pixels, kind, **options):
  """Encodes an array, or a Pillow image, in any of Pillow's formats."""
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def write(path, content):
  """Writes bytes, making the folders that lead there."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


class ListSource:
  """Examples from a list; an item may be encoded bytes or pixels."""

  description = 'a list of pictures'

  def __init__(self, images):
    self.images = images
    self.reads = []

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    self.reads.append(index)
    return {'image': self.images[index], 'label': index, 'name': f'{index}.png'}
