"""Batches that are long in coming, as from a dead file system: the log says what is waited for."""

import contextlib
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import grain

from vqjax.errors import UserError, printable

_NAMED = 8  # images in one line of the log
_log = logging.getLogger('vqjax')


class Reads:
  """The images that threads are reading now."""

  def __init__(self) -> None:
    self._now: dict[int, tuple[Callable[[], str], float]] = {}  # by thread: which, and since when

  @contextlib.contextmanager
  def of(self, name: Callable[[], str]) -> Iterator[None]:
    """While an image is read in this block, in this thread; `name` is called if it takes long."""
    thread = threading.get_ident()
    self._now[thread] = name, time.monotonic()
    try:
      yield
    finally:
      del self._now[thread]

  def longest(self) -> list[tuple[str, float]]:
    """Their names, and for how many seconds each has been read; the longest first."""
    now = time.monotonic()
    reads = sorted(self._now.copy().values(), key=lambda read: read[1])
    return [(printable(name()), now - since) for name, since in reads]


class Batches:
  """The batches of Grain's iterator, and nothing else; `close` stops the threads.

  When one lets itself be waited for longer than `seconds`, the log names the images that are being
  read, and again each time that the wait has doubled; 0 means never.
  """

  def __init__(self, batches: grain.DatasetIterator, reads: Reads, seconds: float) -> None:
    if not seconds >= 0:
      raise UserError(f'data.stall_seconds is {seconds}; give 0, which means never, or more.')
    self._batches = batches
    self._wait = _Wait()
    stop = threading.Event()
    # Also of one that nobody closes: the thread knows nothing of it.
    self._stop = weakref.finalize(self, stop.set)
    if seconds:
      args = (self._wait, reads, seconds, stop)
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


def _watch(wait: _Wait, reads: Reads, seconds: float, stop: threading.Event) -> None:
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
        *(waited, _listed(reads.longest())),
      )


def _listed(reads: list[tuple[str, float]]) -> str:
  if not reads:
    return 'none, the processor is busy'
  more = f' and {len(reads) - _NAMED} more' if len(reads) > _NAMED else ''
  return ', '.join(f'{name} ({seconds:.0f} s)' for name, seconds in reads[:_NAMED]) + more
