"""The images of a source one by one: decoded, the unreadable ones counted, the slow ones known."""

import logging
import math
import threading
from typing import Any

import numpy as np

from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.sources import Source
from vqjax.data.stalls import Reads
from vqjax.errors import UserError

PATIENCE = 16  # unreadable images in a row that may point at the disk, or at the wrong folder
_log = logging.getLogger('vqjax')


class Reader:
  """Decodes the examples of a source, from any thread; the log names each unreadable one once.

  An image that could not be read is not asked for again. Raises `UserError` where more than
  `max_unreadable`, a fraction of the source, are such (see `allowance`).

  Attributes:
    reads: which are being read.
  """

  def __init__(self, source: Source, max_unreadable: float = 1.0) -> None:
    self._source = source
    self._share = max_unreadable
    self._allowed = allowance(max_unreadable, len(source))
    self._unreadable: set[int] = set()
    self._lock = threading.Lock()
    self.reads = Reads()

  def read(self, index: int) -> dict[str, Any] | None:
    """Example `index` with its image as RGB pixels, or None if it is unreadable."""
    if index in self._unreadable:
      return None
    try:
      with self.reads.of(lambda: self._name(index)):
        example = self._source[index]
      if isinstance(example['image'], np.ndarray):
        return example
      return {**example, 'image': decode(example['image'], example['name'])}
    except UnreadableImage as error:
      self._leave_out(index, error)
      return None

  def nearest(self, index: int) -> dict[str, Any]:
    """The first readable example at or after `index`, going round.

    Raises `UserError` if 16 in a row are unreadable, and so are 16 others throughout the source.
    """
    count = len(self._source)
    for offset in range(count):
      if offset == PATIENCE and not self._any_elsewhere():
        break
      example = self.read((index + offset) % count)
      if example is not None:
        return example
    raise UserError(
      f'{min(PATIENCE, count)} images in a row cannot be read, from number {index} of'
      f' {self._source.description}, nor can any that were tried elsewhere; the log names them and'
      ' says why: repair or remove them, or point data.path elsewhere.'
    )

  def _leave_out(self, index, error):
    with self._lock:
      if index in self._unreadable:
        return
      self._unreadable.add(index)
      count = len(self._unreadable)
    _log.warning('skipped unreadable image %s; %d so far', error, count)
    if count > self._allowed:
      raise UserError(
        f'{count} images cannot be read of {self._source.description}, more than the fraction'
        f' data.max_unreadable={self._share} of all; the log names them and says why: repair or'
        ' remove them, allow more, or point data.path elsewhere.'
      )

  def _any_elsewhere(self):
    # Not whether any has been read so far: which images become examples must not hang on threads.
    count = len(self._source)
    return any(self.read(i * count // PATIENCE) is not None for i in range(PATIENCE))

  def _name(self, index):
    own = getattr(self._source, 'name_of', None)
    return own(index) if own else f'number {index}'


def allowance(share: float, count: int) -> int:
  """How many of `count` images may be unreadable: the fraction `share` of them, rounded up.

  Raises `UserError` if `share` is no fraction.
  """
  if not 0 <= share <= 1:
    raise UserError(f'data.max_unreadable is {share}; give a fraction, from 0 to 1.')
  return math.ceil(round(share * count, 6))
