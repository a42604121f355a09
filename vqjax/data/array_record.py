"""ArrayRecord shards of encoded images, as `python -m vqjax.data.prepare` writes them."""

import glob
import os
import pathlib
import re
from typing import Any

import grain
import msgpack
from array_record.python import array_record_module
from ml_collections import ConfigDict

from vqjax.data.folder import DEMO
from vqjax.errors import UserError

PREPARE = 'python -m vqjax.data.prepare IMAGES OUT'
_PATTERNS = {
  'train': ['train*.array_record*'],
  'eval': ['val*.array_record*', 'test*.array_record*'],
}


class ArrayRecord:
  """The records of `shards`, in order, each read in one seek.

  A record is a msgpack map {'image': encoded bytes, 'label': int, 'name': str}, and so is
  `records[i]`. Raises `UserError` for a shard that is missing, broken, of another layout, or whose
  records are packed in groups, which would have to be read whole for each example.
  """

  def __init__(self, shards: list[str]) -> None:
    _check_complete(shards)
    try:
      self._records = grain.sources.ArrayRecordDataSource(shards)
      group_size = _group_size(shards[0])
    except RuntimeError as error:
      raise UserError(
        f'the shards {shards[0]} ... are not whole ArrayRecord files ({error or "truncated"});'
        f' write them again: {PREPARE}.'
      ) from error
    if group_size != 1:
      raise UserError(
        f'{shards[0]} was written with group_size={group_size}; only group_size=1 can be read in'
        f' random order: write it again with {PREPARE}.'
      )
    if not len(self):
      raise UserError(f'the {len(shards)} shards {shards[0]} ... hold no record; {PREPARE}.')
    _check_layout(self._records[0], shards[0])
    self.description = (
      f'{len(self)} images in {len(shards)} shards, {os.path.basename(shards[0])} ..., in'
      f' {os.path.dirname(shards[0])}'
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return msgpack.unpackb(self._records[index])


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


def _group_size(shard: str) -> int:
  reader = array_record_module.ArrayRecordReader(shard)
  try:
    # Files from before October 2022 say nothing; Grain reads those as they come.
    match = re.search(r'group_size:(\d+)', reader.writer_options_string())
    return int(match[1]) if match else 1
  finally:
    reader.close()


def _check_layout(record: bytes, shard: str) -> None:
  try:
    legal = {'image', 'label', 'name'} <= msgpack.unpackb(record).keys()
  except (ValueError, AttributeError, msgpack.UnpackException):
    legal = False
  if not legal:
    raise UserError(
      f'{shard} holds no msgpack maps of image, label and name; if tensorflow_datasets wrote it,'
      f" set data.source='tfds', else write it with {PREPARE}."
    )
