"""One process at a time in a folder. The door to flock."""

import contextlib
import fcntl
import logging
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import IO

from vqjax.errors import UserError
from vqjax.whole_files import reason, writing

NAME = 'lock'
_log = logging.getLogger('vqjax')


class InUse(UserError):
  """Another process has the folder."""


@contextlib.contextmanager
def locked(folder: pathlib.Path, option: str, name: str = NAME) -> Iterator[IO[str]]:
  """Makes the folder and keeps it for this process until the block is left.

  The operating system lets go of the lock when its last holder ends, however it ends. Gives the
  file: a child process that inherits it (`pass_fds`) holds the folder too.

  Args:
    folder: of a run, or of whatever a command writes.
    option: by which another folder is chosen, for messages: '--workdir', or 'OUT'.
    name: of the file, where several processes may share the folder, each with its own.

  Raises:
    InUse: another process has the folder.
    UserError: it cannot be made or written to.
  """
  choose = f'choose another with {option}=...' if option[0] == '-' else f'choose another {option}.'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / name).open('a+')
  except OSError as error:
    raise UserError(f'cannot write {folder}: {reason(error, folder)}; {choose}') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise InUse(
        f'{folder} is in use by {file.read() or "another process"}, or by one that it started; '
        f'wait for its end, or {choose}'
      ) from error
    except OSError as error:  # Lustre without -o flock, some network file systems
      _log.warning(
        '%s cannot be locked (%s): see to it that nothing else writes there',
        *(folder, error.strerror),
      )
    file.truncate(0)
    with writing(folder / name):
      os.write(file.fileno(), f'process {os.getpid()} on {socket.gethostname()}'.encode())
    yield file
