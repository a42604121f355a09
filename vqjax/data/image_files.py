"""Files of images of one size, as they are, to batches: nothing is cropped and none is left out."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.defaults import default_data
from vqjax.data.stalls import Batches, Reads
from vqjax.errors import UserError, printable


def file_batches(
  files: Mapping[str, Sequence[pathlib.Path]],
  size: tuple[int, int],
  batch_size: int,
  first: str,
  advice: str,
) -> Batches:
  """Images of all lists side by side, in order, once.

  A batch is {name of a list: uint8 [B H W 3], 'mask': bool [B]}; the mask is False where the last
  batch is filled up. While iterating it raises a UserError for an image that cannot be read or is
  of another size: nothing is left out, as the numbers of a part are not those of the whole.

  Args:
    files: lists of one length, by name.
    size: height and width that all images must have.
    batch_size: B.
    first: what has that size, in words.
    advice: what to do about an image that cannot be read.
  """
  count = len(next(iter(files.values())))
  height, width = size
  shape = height, width, 3
  reads = Reads()

  def load(index):
    if index >= count:
      return dict.fromkeys(files, np.zeros(shape, np.uint8)) | {'mask': np.False_}
    images = {}
    for kind, paths in files.items():
      path = paths[index]
      with reads.of(functools.partial(str, path)):
        image = images[kind] = read_file(path, advice)
      if image.shape != shape:
        raise UserError(
          f'{printable(str(path))} has {image.shape[1]} x {image.shape[0]} pixels, and {first} '
          f'{width} x {height}; all images must have one size: crop or resize them before.'
        )
    return {**images, 'mask': np.True_}

  padded = -(-count // batch_size) * batch_size
  threads = min(16, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
  examples = grain.MapDataset.range(padded).map(load).to_iter_dataset(options)
  return Batches(iter(examples.batch(batch_size)), reads, default_data()['stall_seconds'])


def read_file(path: pathlib.Path, advice: str) -> np.ndarray:
  """The image of a file, uint8 [H W 3].

  Raises:
    UserError: it cannot be read; `advice` ends the sentence.
  """
  try:
    return decode(path.read_bytes(), str(path))
  except (UnreadableImage, OSError) as error:
    raise UserError(f'cannot read the image {error}; {advice}.') from error
