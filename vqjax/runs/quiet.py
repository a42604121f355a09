"""What Orbax and TensorStore print of a save that failed, besides raising it: left out.

A full disk is one sentence of ours; without this it stood between dozens of their tracebacks.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from typing import Any


def quiet() -> None:
  """Leaves these out from here on, in this process."""
  logging.getLogger('absl').addFilter(_is_news)
  if not isinstance(sys.unraisablehook, _Unraisable):
    sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _is_news(record):
  return not (record.exc_info and f'{os.sep}orbax{os.sep}' in record.pathname)


@dataclasses.dataclass
class _Unraisable:
  """Drops what TensorStore's threads say of writes that end after another one of a save failed.

  The event loop that they report to is closed by then.
  """

  otherwise: Callable[[Any], None]

  def __call__(self, unraisable):
    if unraisable.object is not None or str(unraisable.exc_value) != 'Event loop is closed':
      self.otherwise(unraisable)
