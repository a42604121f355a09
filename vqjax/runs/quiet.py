"""What Orbax and TensorStore print of a save that failed, besides raising it: left out.

A full disk is one sentence of ours; without this it stood between dozens of their tracebacks.
"""

import dataclasses
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def quiet() -> None:
  """Leaves these out from here on, in this process."""
  for name in ('absl', 'asyncio'):  # the latter tells of tasks whose errors nobody asked for
    logging.getLogger(name).addFilter(_is_news)
  if not isinstance(sys.unraisablehook, _Unraisable):
    sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _is_news(record):
  if not record.exc_info:
    return True
  frames = traceback.walk_tb(record.exc_info[2])
  places = (record.pathname, *(frame.f_code.co_filename for frame, _ in frames))
  return not any(f'{os.sep}orbax{os.sep}' in place for place in places)


@dataclasses.dataclass
class _Unraisable:
  """Drops what TensorStore's threads say of writes that end after another one of a save failed.

  The event loop that they report to is closed by then.
  """

  otherwise: Callable[[Any], None]

  def __call__(self, unraisable):
    if unraisable.object is not None or str(unraisable.exc_value) != 'Event loop is closed':
      self.otherwise(unraisable)
