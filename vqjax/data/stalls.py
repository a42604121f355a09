"""Batches that are long in coming, as from a dead file system: the log says what is waited for."""

import dataclasses
import logging
import threading
import time
import weakref
from typing import Any, Self

import grain

from vqjax.data.reader import Reader
from vqjax.errors import UserError

_NAMED = 8  # images in one line of the log
_log = logging.getLogger('vqjax')


class Batches:
  """The batches of Grain's iterator, and nothing else; `close` stops the threads.

  When one lets itself be waited for longer than `seconds`, the log names the images that are being
  read, and again each time that the wait has doubled; 0 means never.
  """

  def __init__(self, batches: grain.DatasetIterator, reader: Reader, seconds: float) -> None:
    if not seconds >= 0:
      raise UserError(f'data.stall_seconds is {seconds}; give 0, which means never, or more.')
    self._batches = batches
    self._wait = _Wait()
    stop = threading.Event()
    # Also of one that nobody closes: the thread knows nothing of it.
    self._stop = weakref.finalize(self, stop.set)
    if seconds:
      args = (self._wait, reader, seconds, stop)
      threading.Thread(target=_watch, args=args, name='vqjax-stalls', daemon=True).start()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> dict[str, Any]:
    self._wait.since = time.monotonic()
    try:
      return next(self._batches)
    finally:
      self._wait.since = None

  def close(self) -> None:
    """Stops the threads; a second time it does nothing."""
    self._stop()
    self._batches.close()


@dataclasses.dataclass
class _Wait:
  since: float | None = None  # when the batch was asked for that is not there yet


def _watch(wait: _Wait, reader: Reader, seconds: float, stop: threading.Event) -> None:
  told, due = None, seconds
  while not stop.wait(min(seconds / 4, 60)):
    since = wait.since
    if since != told:
      told, due = since, seconds
    if since is not None and (waited := time.monotonic() - since) >= due:
      due = 2 * waited
      _log.warning(
        'waiting for images for %.0f s; being read: %s; it goes on when they come, and Ctrl-C ends'
        ' it, in training the second one',
        *(waited, _listed(reader.being_read())),
      )


def _listed(reads: list[tuple[str, float]]) -> str:
  if not reads:
    return 'none, the processor is busy'
  more = f' and {len(reads) - _NAMED} more' if len(reads) > _NAMED else ''
  return ', '.join(f'{name} ({seconds:.0f} s)' for name, seconds in reads[:_NAMED]) + more
