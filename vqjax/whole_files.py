"""Files that are there as a whole or not at all, whatever ends the process that writes them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a path beside `path` to be written to; that file takes the name `path` in one step.

  After an error nothing is left of it, and `path` is as it was.
  """
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield partial
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      partial.unlink()
    raise
