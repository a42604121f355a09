import errno
import multiprocessing
import os
import signal
import socket

import pytest

from vqjax.errors import UserError
from vqjax.runs import lock
from vqjax.runs.lock import locked


def hold(folder, ready):
  with locked(folder, '--out'):
    ready.set()
    signal.pause()


def test_a_folder_is_for_one_process_until_that_ends_however_it_ends(tmp_path):
  context = multiprocessing.get_context('spawn')
  ready = context.Event()
  holder = context.Process(target=hold, args=(tmp_path / 'new', ready))
  holder.start()
  try:
    assert ready.wait(60)
    said = f'new is in use by process {holder.pid} on {socket.gethostname()}, or by one that it st'
    with pytest.raises(UserError, match=said), locked(tmp_path / 'new', '--out'):
      pass
  finally:
    holder.kill()
    holder.join()
  for _ in range(2):  # left, and free again
    with locked(tmp_path / 'new', '--out') as file:
      file.seek(0)
      assert file.read() == f'process {os.getpid()} on {socket.gethostname()}'


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(UserError, match=r'cannot write .*: .*; choose another with --workdir=\.\.\.'),
    locked(tmp_path / 'file' / 'x', '--workdir'),
  ):
    pass


def test_a_folder_that_cannot_be_locked_is_told_and_used(tmp_path, monkeypatch, caplog):
  def unsupported(file, how):
    raise OSError(errno.ENOSYS, 'Function not implemented')

  monkeypatch.setattr(lock.fcntl, 'flock', unsupported)
  with lock.locked(tmp_path, '--workdir'):
    pass
  (said,) = caplog.messages
  assert said.startswith(f'{tmp_path} cannot be locked (Function not implemented): see to it that')
