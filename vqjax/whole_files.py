"""Files that are there as a whole or not at all, whatever ends the process that writes them."""

import contextlib
import errno
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

# What a disk says that takes no more: it is full, or read-only, or not this user's.
REFUSALS = frozenset(
  {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a path beside `path` to be written to; that file takes the name `path` in one step.

  After an error nothing is left of it, and `path` is as it was; an OSError names `path`.
  """
  # In containers many processes have the same number.
  partial = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}')
  try:
    yield partial
    os.replace(partial, path)
  except BaseException as error:
    if isinstance(error, OSError) and error.filename in (None, str(partial), partial):
      error.filename = str(path)
    with contextlib.suppress(OSError):
      partial.unlink()
    raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Names `path` in an OSError that names no file, as that of a disk which is full."""
  try:
    yield
  except OSError as error:
    if error.filename is None:
      error.filename = str(path)
    raise


def reason(error: OSError, path: pathlib.Path) -> str:
  """What the disk said when `path` was written, and how much is free if that is the matter."""
  said = error.strerror or str(error)
  return f'{said}, {free(path) / 1e6:,.1f} MB are free' if error.errno == errno.ENOSPC else said


def free(path: pathlib.Path) -> int:
  """How many bytes are free where `path` is, or would be made."""
  path = path.absolute()
  return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
