"""Two folders of images, originals and what another program made of them, to batches of pairs."""

import functools
import os
import pathlib
from typing import NamedTuple

import grain
import numpy as np

from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.defaults import default_data
from vqjax.data.folder import image_names
from vqjax.data.stalls import Batches, Reads
from vqjax.errors import UserError, printable


class Pairs(NamedTuple):
  """Images by the same name below two folders; names are sorted and without suffix."""

  originals: dict[str, pathlib.Path]
  reconstructions: dict[str, pathlib.Path]
  size: tuple[int, int]  # height and width of the first original, which all images must have

  def __len__(self) -> int:
    return len(self.originals)


def open_pairs(originals: str | pathlib.Path, reconstructions: str | pathlib.Path) -> Pairs:
  """Pairs the images of two folders by their path below it, whatever the suffix.

  Raises:
    UserError: a folder that cannot be read, an image without its partner, two of one name, or a
      first original that is unreadable.
  """
  paths = _paths('originals', originals), _paths('reconstructions', reconstructions)
  sides = (originals, paths[0]), (reconstructions, paths[1])
  for (here, names), (there, others) in (sides, sides[::-1]):
    if alone := [name for name in names if name not in others]:
      raise UserError(
        f'{len(alone)} of {len(names)} images in {here} have no partner in {there}, the first is '
        f'{alone[0]!r}; pairs have the same path below their folder, whatever the suffix.'
      )
  return Pairs(*paths, size=_read(next(iter(paths[0].values()))).shape[:2])


def pair_batches(pairs: Pairs, batch_size: int, limit: int | None = None) -> Batches:
  """All pairs, or the first `limit`, in the order of their names, once.

  A batch is {'original': uint8 [B H W 3], 'reconstruction': likewise, 'mask': bool [B]}; the mask
  is False where the last batch is filled up. While iterating it raises a UserError for an image
  that cannot be read or whose size is not that of the first original: nothing is left out, as the
  numbers of a part are not those of the whole.
  """
  names = list(pairs.originals)[:limit]
  height, width = pairs.size
  shape = height, width, 3
  reads = Reads()

  def load(index):
    if index >= len(names):
      blank = np.zeros(shape, np.uint8)
      return {'original': blank, 'reconstruction': blank, 'mask': np.False_}
    images = {}
    for kind, paths in (
      ('original', pairs.originals),
      ('reconstruction', pairs.reconstructions),
    ):
      path = paths[names[index]]
      with reads.of(functools.partial(str, path)):
        image = images[kind] = _read(path)
      if image.shape != shape:
        raise UserError(
          f'{printable(str(path))} has {image.shape[1]} x {image.shape[0]} pixels, and the first '
          f'original {width} x {height}; all images must have one size: crop or resize them before.'
        )
    return {**images, 'mask': np.True_}

  padded = -(-len(names) // batch_size) * batch_size
  threads = min(16, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
  examples = grain.MapDataset.range(padded).map(load).to_iter_dataset(options)
  return Batches(iter(examples.batch(batch_size)), reads, default_data()['stall_seconds'])


def _paths(flag, folder):
  root = pathlib.Path(folder).expanduser()
  if not root.is_dir():
    raise UserError(
      f'--{flag}={folder} is no folder (looked in {pathlib.Path.cwd()}); name one with images.'
    )
  paths: dict[str, pathlib.Path] = {}
  for name in image_names(root, f'choose another --{flag}'):
    stem = name.rpartition('.')[0]
    if stem in paths:
      two = ' and '.join(printable(str(path)) for path in (paths[stem], root / name))
      raise UserError(f'{two} differ in their suffix alone; remove one.')
    paths[stem] = root / name
  return paths


def _read(path):
  try:
    return decode(path.read_bytes(), str(path))
  except (UnreadableImage, OSError) as error:
    raise UserError(
      f'cannot read the image {error}; repair it, or remove it together with its partner.'
    ) from error
