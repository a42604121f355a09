"""Batches for training and evaluation: read, decoded and cut by threads that run ahead."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqjax.data.decode import UnreadableImage
from vqjax.data.reader import Reader
from vqjax.data.shares import endless, once, order_of
from vqjax.data.sources import Source
from vqjax.data.stalls import Batches
from vqjax.data.transforms import Transform, make_transform
from vqjax.errors import UserError, printable


def train_batches(
  source: Source,
  data: ConfigDict,
  *,
  batch_size: int,
  seed: int,
  start: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Batches without end, in a new order every epoch: this process's share of each.

  A batch is {'image': uint8 [local_B S S 3], 'label': int32 [local_B]}, local_B = batch_size /
  process_count. `batch_size` and `start`, the number of examples that the run has drawn already,
  count the examples of all processes. Example n of the run is a function of (source, data, seed, n)
  alone: threads, processes and restarts do not change it, and process p has every n with
  n mod process_count = p. In the place of an unreadable image stands the next readable one of the
  source. Close the iterator (contextlib.closing) to stop its threads. Raises `UserError`, also when
  iterated: where more than the fraction `data.max_unreadable` of the source are found unreadable,
  by this process since it began, or where nothing that is tried can be read (see `Reader`).
  """
  transform = make_transform(data, 'train')
  reader = Reader(source, data.max_unreadable)

  def load(index: int, rng: np.random.Generator) -> dict[str, Any]:
    example = reader.nearest(index)
    image = _transformed(transform, example, rng)
    return {'image': image, 'label': np.int32(example['label'])}

  return endless(
    *(load, source, data, reader.reads),
    batch_size=batch_size,
    seed=seed,
    start=start,
    process_index=process_index,
    process_count=process_count,
  )


def train_names(source: Source, numbers: Iterable[int], *, seed: int) -> list[str]:
  """Names of the examples of a run with these numbers, counted from 0, without control characters.

  An unreadable image is named itself, not the one that stood in its place. Without `name_of` in the
  source each example is read.
  """
  order = order_of(source, seed)
  return [_name(source, order[n]) for n in numbers]


def eval_batches(
  source: Source,
  data: ConfigDict,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  start: int = 0,
  limit: int | None = None,
) -> Batches:
  """Every example of `source` from `start` up to `limit`, once and in order: this process's share.

  A batch is {'image': uint8 [local_B S S 3], 'label': int32 [local_B], 'mask': bool [local_B]}.
  All batches are full and all processes have equally many; the mask is False where an example is
  padding or could not be read, and the image is then zeros. Arguments as in `train_batches`.
  """
  count = len(source) if limit is None else min(limit, len(source))
  transform = make_transform(data, 'eval')
  reader = Reader(source)
  blank = {
    'image': np.zeros((data.image_size, data.image_size, 3), np.uint8),
    'label': np.int32(0),
    'mask': np.False_,
  }

  def load(index: int, rng: np.random.Generator) -> dict[str, Any]:
    example = reader.read(index) if index < count else None
    if example is None:
      return blank
    image = _transformed(transform, example, rng)
    return {'image': image, 'label': np.int32(example['label']), 'mask': np.True_}

  return once(
    *(load, count, data, reader.reads),
    batch_size=batch_size,
    start=start,
    process_index=process_index,
    process_count=process_count,
  )


def _name(source: Source, index: int) -> str:
  if name_of := getattr(source, 'name_of', None):
    return printable(name_of(index))
  try:
    return printable(source[index]['name'])
  except UnreadableImage as error:
    return printable(error.name)


def _transformed(
  transform: Transform, example: dict[str, Any], rng: np.random.Generator
) -> np.ndarray:
  try:
    return transform(example['image'], rng)
  except UserError as error:
    raise UserError(f'{printable(example["name"])}: {error}') from None
