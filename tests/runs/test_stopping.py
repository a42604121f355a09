import os
import signal
import threading

import pytest

from vqjax.runs import stopping


@pytest.mark.parametrize('number', stopping.SIGNALS)
def test_the_first_signal_is_noted_and_the_second_does_what_it_did(number, capfd):
  seen = []
  before = signal.signal(number, lambda *_: seen.append('before'))
  try:
    with stopping.asked() as wish:
      assert wish.by is None
      os.kill(os.getpid(), number)
      assert wish.by == number
      assert not seen
      os.kill(os.getpid(), number)
      assert seen == ['before']
    os.kill(os.getpid(), number)
    assert seen == ['before', 'before']
  finally:
    signal.signal(number, before)
  assert capfd.readouterr().err.count('asked to stop: a step is finished and saved first') == 1


def test_what_is_ignored_stays_ignored(capfd):
  before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
  try:
    with stopping.asked() as wish:
      os.kill(os.getpid(), signal.SIGUSR1)
      assert wish.by is None
  finally:
    signal.signal(signal.SIGUSR1, before)
  assert capfd.readouterr().err == ''


def test_another_thread_gets_no_signals():
  wishes = []

  def ask():
    with stopping.asked() as wish:
      wishes.append(wish.by)

  thread = threading.Thread(target=ask)
  thread.start()
  thread.join()
  assert wishes == [None]
