"""Which examples a process gets, in which order, and the threads that make batches of them.

Example n of a run is a function of what it is loaded from, the seed and n alone: threads, processes
and restarts do not change it, and process p has every n with n mod process_count = p.
"""

import os
from collections.abc import Callable, Sized
from typing import Any

import grain
import numpy as np
from ml_collections import ConfigDict

from vqjax.data.stalls import Batches, Reads
from vqjax.errors import UserError

# (number of the example, what it may draw by) -> its arrays by name.
Load = Callable[[int, np.random.Generator], dict[str, Any]]


def order_of(source: Sized, seed: int) -> grain.MapDataset:
  """Which image of `source` example n of a run is, for every n."""
  return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)


def endless(
  load: Load,
  source: Sized,
  data: ConfigDict,
  reads: Reads,
  *,
  batch_size: int,
  seed: int,
  start: int,
  process_index: int,
  process_count: int,
) -> Batches:
  """Batches without end from example `start` on, in a new order every epoch: a process's share.

  Raises:
    UserError: `batch_size` or `start`, which count the examples of all processes, does not split
      over them.
  """
  _check_share('batch_size', batch_size, 1, process_count)
  _check_share('the number of examples already seen', start, 0, process_count)
  # The slice comes last, so that the order and each example's rng are those of the whole run.
  examples = order_of(source, seed).random_map(load)
  share = examples[start + process_index :: process_count]
  return _threaded(share, data, batch_size // process_count, reads)


def once(
  load: Load,
  count: int,
  data: ConfigDict,
  reads: Reads,
  *,
  batch_size: int,
  start: int,
  process_index: int,
  process_count: int,
) -> Batches:
  """The examples from `start` up to `count`, in order and in full batches: a process's share.

  `load` is asked for numbers beyond `count` too, which fill the last batch up. Raises as `endless`.
  """
  _check_share('batch_size', batch_size, 1, process_count)
  padded = start - (start - count) // batch_size * batch_size
  # The seed is fixed: a random eval crop is the same crop in every evaluation.
  examples = grain.MapDataset.range(padded).random_map(load, seed=0)
  # As above, the slice comes last: an example is the same whatever the start.
  share = examples[start + process_index :: process_count]
  return _threaded(share, data, batch_size // process_count, reads)


def _threaded(examples, data, local_batch_size, reads):
  """Batches of `examples`, made by threads that run ahead, as the fields of `data` say."""
  threads = data.threads or min(16, os.cpu_count() or 1)
  ahead = max(threads, -(-data.prefetch // local_batch_size), 2)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
  # A thread makes whole batches: what passing work between threads costs, it costs once a batch.
  batches = examples.batch(local_batch_size, drop_remainder=True).to_iter_dataset(options)
  return Batches(iter(batches), reads, data.stall_seconds)


def _check_share(what, value, least, process_count):
  if value < least or value % process_count:
    raise UserError(
      f'{what} is {value}; give a multiple of the number of processes, {process_count}, and'
      f' {least} or more.'
    )
