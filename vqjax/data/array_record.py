"""ArrayRecord shards of encoded images, as `python -m vqjax.data.prepare` writes them."""

import bisect
import contextlib
import glob
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import msgpack
from array_record.python import array_record_module
from ml_collections import ConfigDict

from vqjax.data.decode import UnreadableImage
from vqjax.data.folder import DEMO
from vqjax.errors import UserError
from vqjax.whole_files import reason

PREPARE = 'python -m vqjax.data.prepare IMAGES OUT'
_AT_ONCE = 16  # shards that are opened at once, for file systems that answer slowly
_FIRST = 16  # records that are looked at for their layout
_PATTERNS = {
  'train': ['train*.array_record*'],
  'eval': ['val*.array_record*', 'test*.array_record*'],
}


class ArrayRecord:
  """The records of `shards`, in order, each read in one seek.

  A record is a msgpack map {'image': encoded bytes, 'label': int, 'name': str}, and so is
  `records[i]`. Raises `UserError` for a shard that is missing, broken, of another layout, or whose
  records are packed in groups, which would have to be read whole for each example, and
  `UnreadableImage` for a damaged record: each has a hash in the file, so that damage is seen.
  """

  def __init__(self, shards: list[str]) -> None:
    _check_complete(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
      self._shards = list(pool.map(_open, shards))
    self._ends = list(itertools.accumulate(shard.take for shard in self._shards))
    if not len(self):
      raise UserError(f'the {len(shards)} shards {shards[0]} ... hold no record; {PREPARE}.')
    self._records = grain.sources.ArrayRecordDataSource(self._shards)
    self._check_layout()
    self.description = (
      f'{len(self)} images in {len(shards)} shards, {os.path.basename(shards[0])} ..., in'
      f' {os.path.dirname(shards[0])}'
    )

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      return _unpacked(self._records[index])
    except (RuntimeError, _Illegible) as error:
      raise UnreadableImage(self.name_of(index), str(error) or 'cut off') from error

  def name_of(self, index: int) -> str:
    """The shard and the position in it: what an image's own name is, its record says."""
    shard = bisect.bisect_right(self._ends, index)
    position = index - self._ends[shard] + self._shards[shard].take
    return f'{self._shards[shard].filename}[{position}]'

  def _check_layout(self):
    """Raises a UserError if records can be read and none of the first is one of ours."""
    illegible = False
    for index in range(min(_FIRST, len(self))):
      try:
        _unpacked(self._records[index])
        return
      except RuntimeError:
        pass  # damage says nothing of the layout
      except _Illegible:
        illegible = True
    if illegible:
      raise UserError(
        f'{self._shards[0].filename} holds no msgpack maps of image, label and name; if'
        f" tensorflow_datasets wrote it, set data.source='tfds', else write it with {PREPARE}."
      )


def open_array_record(data: ConfigDict, split: str) -> ArrayRecord:
  """The shards that `data.path` and `data.eval_path`, each a folder or a glob, name for `split`."""
  held_out_apart = split == 'eval' and data.eval_path
  field, place = ('eval_path', data.eval_path) if held_out_apart else ('path', data.path)
  if not place:
    raise UserError(
      f"data.path is '' and data.source='array_record' needs a folder of shards; {PREPARE}"
      f' writes one; {DEMO}.'
    )
  place = os.path.expanduser(place)
  if not glob.has_magic(place):
    patterns = [os.path.join(glob.escape(place), pattern) for pattern in _PATTERNS[split]]
  elif split == 'train' or held_out_apart:
    patterns = [place]
  else:
    raise UserError(
      f'data.path={place} is a glob of training shards and names no held-out ones; give a second'
      ' glob, --config.data.eval_path, or a folder that holds train* and val* shards.'
    )
  for pattern in patterns:
    if shards := sorted(glob.glob(pattern)):
      return ArrayRecord(shards)
  raise UserError(
    f'data.{field}={place} matches no shard (looked for {" or ".join(patterns)} in'
    f' {pathlib.Path.cwd()}); {PREPARE} writes them; {DEMO}.'
  )


def _check_complete(shards: list[str]) -> None:
  totals = {match[1] for name in shards if (match := re.search(r'-of-(\d+)', name))}
  if totals and (len(totals) > 1 or len(shards) != int(min(totals))):
    raise UserError(
      f'found {len(shards)} shards, {shards[0]} to {shards[-1]}, of a set of'
      f' {" and ".join(sorted(totals))}; copy the missing ones, or remove those of the other set.'
    )


@contextlib.contextmanager
def disk_errors(path: pathlib.Path, then: str = '') -> Iterator[None]:
  """Turns what the disk refuses while `path` is written, or shards in it, into a UserError.

  `then` says what the same command will do.
  """
  try:
    yield
  except (RuntimeError, OSError) as error:  # array_record raises the former
    said = reason(error, path) if isinstance(error, OSError) else error
    raise UserError(
      f'cannot write {path} ({said}); make room or mend the permissions, then run the same command'
      f' again{then}.'
    ) from error


class _Shard(NamedTuple):
  """A whole file, as what array_record calls a file instruction: so it is not opened to count."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


def _open(shard: str) -> _Shard:
  try:
    reader = array_record_module.ArrayRecordReader(shard)
    count, options = reader.num_records(), reader.writer_options_string()
    reader.close()  # raises what is wrong with the file
  except RuntimeError as error:
    raise UserError(
      f'{shard} is no whole ArrayRecord file ({error or "cut off"}); copy it again, or write all'
      f' shards again: {PREPARE}.'
    ) from error
  # Files from before October 2022 say nothing; Grain reads those as they come.
  group_size = re.search(r'group_size:(\d+)', options)
  if group_size and group_size[1] != '1':
    raise UserError(
      f'{shard} was written with {group_size[0].replace(":", "=")}; only group_size=1 can be read'
      f' in random order: write it again with {PREPARE}.'
    )
  return _Shard(shard, 0, count, count)


class _Illegible(Exception):
  """A record that is no example."""


def _unpacked(record: bytes) -> dict[str, Any]:
  try:
    example = msgpack.unpackb(record, unicode_errors='surrogateescape')
  except (ValueError, msgpack.UnpackException) as error:
    raise _Illegible(f'no msgpack: {error}') from error
  if not isinstance(example, dict):
    raise _Illegible(f'a {type(example).__name__}, not a map')
  for field, kind in (('image', bytes), ('label', int), ('name', str)):
    if not isinstance(example.get(field), kind):
      raise _Illegible(f'no {kind.__name__} as its {field}')
  return example
