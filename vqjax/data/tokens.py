"""Tokens of a data set in a folder, as `python -m vqjax.tokenize` writes them: shards and an index.

The shards are ArrayRecord files. A record has a fixed size and no keys, since the index says once
what is in all of them: label int32, position of the image in its source int32, tokens uint16 (or
uint32, beyond 65,536 codes), little-endian, nothing between.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import grain
import numpy as np
from array_record.python import array_record_module

from vqjax.data.array_record import disk_errors
from vqjax.errors import UserError
from vqjax.whole_files import replacing

FORMAT = 1  # of the index and of the records together
INDEX = 'index.json'
_GOES_ON = ': it goes on there'  # what the same command does after an error of the disk
_TOKENIZE = 'python -m vqjax.tokenize SOURCE --out=DIR'


class Tokens:
  """The tokens of a data set, in random order, for Grain or anything else.

  `tokens[i]` is {'tokens': int32 [h w], with a last axis for groups or depth where the quantizer
  has one, 'label': int32, 'index': int32, position of the image in the source that was tokenized}.
  Images that could not be read have no record. `index` is what the folder's index.json says. Where
  images were augmented, `tokens[i A + a]` is view a of A = `views` of the i-th image all of whose
  views could be read, see `vqjax.data.Views`.

  Raises:
    UserError: the folder holds no tokens, not all of them, or damaged ones; a later format.
  """

  def __init__(self, path: str | pathlib.Path) -> None:
    self._path = pathlib.Path(path).expanduser()
    self.index = read_index(self._path)
    self.views = self.index.get('views', 1)
    if 'shards' not in self.index:
      raise UserError(
        f'{self._path} is not finished; run the command that began it again, {_TOKENIZE}.'
      )
    shards = {self._path / shard['name']: shard['records'] for shard in self.index['shards']}
    for shard, records in shards.items():
      if (found := count_records(shard)) != records:
        raise UserError(f'{shard} holds {found} records, {INDEX} says {records}; {_again(shard)}.')
      if records % self.views:
        raise UserError(
          f'{shard} holds {records} records, not {self.views} views of every image; write the '
          f'folder again, {_TOKENIZE}.'
        )
    self._records = grain.sources.ArrayRecordDataSource([str(shard) for shard in shards])
    self._type = record_type(self.index['token_shape'], self.index['num_codes'])
    self.description = f'tokens of {len(self)} images in {len(shards)} shards, in {self._path}'

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> dict[str, Any]:
    i = range(len(self))[i]  # IndexError past the end, which ArrayRecord does not raise
    try:
      record = self._records[i]
    except RuntimeError as error:
      raise UserError(
        f'{self._path} is damaged at record {i} ({error}); remove the shard that it is in and run '
        f'the command that wrote it again, {_TOKENIZE}.'
      ) from error
    if len(record) != self._type.itemsize:
      raise UserError(
        f'{self._path} is damaged at record {i}: {len(record)} bytes, {INDEX} says '
        f'{self._type.itemsize}; write all of it again, {_TOKENIZE}.'
      )
    fields = np.frombuffer(record, self._type)[0]
    return {name: np.asarray(fields[name], np.int32) for name in ('tokens', 'label', 'index')}


def record_type(shape: Sequence[int], num_codes: int) -> np.dtype:
  """What a record holds, for tokens of this shape, each below `num_codes`."""
  kind = '<u2' if num_codes <= 2**16 else '<u4'
  return np.dtype([('label', '<i4'), ('index', '<i4'), ('tokens', kind, tuple(shape))])


def shard_names(num_images: int, shard_size: int) -> list[str]:
  """Files for images of a source in their order, `shard_size` each, the last one perhaps fewer."""
  count = -(-num_images // shard_size)
  return [f'tokens-{i:05d}-of-{count:05d}.array_record' for i in range(count)]


def write_shard(path: pathlib.Path, records: Iterable[bytes]) -> int:
  """Writes one shard, which has its name only when it is whole; returns how many records it has.

  Raises:
    UserError: the disk refused.
  """
  partial, count = path.with_name(f'partial-{path.name}'), 0
  with disk_errors(path, _GOES_ON):
    # One record a group, so that any one can be read alone.
    writer = array_record_module.ArrayRecordWriter(str(partial), 'group_size:1,uncompressed')
  for record in records:
    with disk_errors(path, _GOES_ON):
      writer.write(record)
    count += 1
  with disk_errors(path, _GOES_ON):
    writer.close()
    os.replace(partial, path)
  return count


def count_records(path: pathlib.Path) -> int:
  """Records of a shard.

  Raises:
    UserError: it is missing, or its end is.
  """
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()  # raises what is wrong with the file
  except RuntimeError as error:
    reason = 'is damaged' if path.exists() else 'is missing'
    raise UserError(f'{path} {reason} ({error or "cut off"}); {_again(path)}.') from error
  return count


def read_index(path: pathlib.Path) -> dict[str, Any]:
  """What index.json says.

  Raises:
    UserError: there is none, or it is of another format, or damaged.
  """
  file = path / INDEX
  try:
    index = json.loads(file.read_text())
    form = index['format']
  except FileNotFoundError as error:
    raise UserError(f'{file} does not exist; {_TOKENIZE} writes a folder of tokens.') from error
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise UserError(
      f'{file} is no index of tokens ({error}); write the folder again, {_TOKENIZE}.'
    ) from error
  if form != FORMAT:
    raise UserError(
      f'{file} is of format {form}, written by vqjax {index.get("vqjax")}; legal here: {FORMAT}; '
      f'use that version, or write the folder again, {_TOKENIZE}.'
    )
  return index


def write_index(path: pathlib.Path, index: dict[str, Any]) -> None:
  """Writes index.json in one piece; processes may do it at once, if they agree."""
  with disk_errors(path / INDEX, _GOES_ON), replacing(path / INDEX) as partial:
    partial.write_text(json.dumps(index, indent=2) + '\n')


def _again(shard):
  return f'remove {shard.name} and run the command that wrote it again, {_TOKENIZE}'
