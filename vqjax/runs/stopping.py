"""The end of a loop when a person or a scheduler asks for it, between two steps."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

# Ctrl-C; what schedulers send before they take a machine away; what SLURM sends if told to.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_SAID = b'asked to stop: a step is finished and saved first; once more stops at once\n'


class Wish:
  """Whether the end is asked for.

  Attributes:
    by: the signal that asked, or None.
  """

  by: signal.Signals | None = None


@contextlib.contextmanager
def asked() -> Iterator[Wish]:
  """Within the block the first of `SIGNALS` is noted, and the second does what it did before.

  One that the process was started to ignore, as `nohup` and scripts do, stays ignored.
  """
  wish = Wish()
  if threading.current_thread() is not threading.main_thread():
    yield wish  # only the main thread gets signals
    return

  def note(number, frame):
    del frame
    wish.by = signal.Signals(number)
    restore()
    os.write(2, _SAID)  # a log's stream may be in the middle of a line

  def restore():
    for number, handler in before.items():
      signal.signal(number, handler)

  before = {number: signal.getsignal(number) for number in SIGNALS}
  before = {n: now for n, now in before.items() if now not in (signal.SIG_IGN, None)}
  for number in before:
    signal.signal(number, note)
  try:
    yield wish
  finally:
    restore()
