"""Makes runs of a study, several at a time: train.py and eval.py of each, as processes."""

import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import vqjax
from studies import table
from studies.plan import Run
from vqjax.whole_files import replacing


class Made(NamedTuple):
  """A run that has ended.

  Attributes:
    run: which.
    reason: why it failed, or ''.
    seconds: that it took.
  """

  run: Run
  reason: str
  seconds: float


@contextlib.contextmanager
def making(
  runs: Sequence[Run], jobs: int, lock: IO[str], environment: Mapping[str, str]
) -> Iterator[Iterator[Made]]:
  """Gives every run as it ends; begins them in their order, `jobs` at a time.

  When the block is left, by Ctrl-C too, no run begins any more and those under way are killed. A
  thread for each job does nothing but wait for its process.

  Args:
    runs: to be made.
    jobs: how many at a time.
    lock: file that the processes hold too: should this one be killed, nobody begins beside its
      orphans.
    environment: of the processes.
  """
  processes = _Processes(lock, environment)
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    try:
      futures = [pool.submit(_make, run, processes) for run in runs]
      yield (future.result() for future in concurrent.futures.as_completed(futures))
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
      processes.kill()


class _Processes:
  """Programs that threads wait for."""

  def __init__(self, lock, environment):
    self._lock, self._environment = lock, environment
    self._running, self._killed = set(), False
    self._guard = threading.Lock()  # so that none starts unseen while the others are killed

  def call(self, command: Sequence[str], output: IO[str]) -> int:
    """The status with which `python command` ends."""
    with self._guard:
      if self._killed:
        raise RuntimeError('no process starts any more')
      process = subprocess.Popen(
        [sys.executable, *command],
        stdout=output,
        stderr=subprocess.STDOUT,
        env=self._environment,
        pass_fds=[self._lock.fileno()],
      )
      self._running.add(process)
    try:
      return process.wait()
    finally:
      with self._guard:
        self._running.remove(process)

  def kill(self) -> None:
    """Ends all, and lets none begin."""
    with self._guard:
      self._killed = True
      for process in self._running:
        process.kill()


def _make(run, processes):
  begun = time.monotonic()
  with contextlib.suppress(FileNotFoundError):
    (run.folder / table.FAILED).unlink()
  run.folder.mkdir(parents=True, exist_ok=True)
  with replacing(run.folder / table.MADE) as partial:
    partial.write_text(json.dumps(_circumstances(), indent=2) + '\n')
  reason = ''
  for command in (run.train, run.evaluate):
    log_file = run.folder / f'{pathlib.Path(command[0]).stem}.log'
    with log_file.open('w') as output:
      code = processes.call(command, output)
    if code:
      lines = log_file.read_text(errors='replace').strip().splitlines()
      reason = lines[-1] if code > 0 and lines else f'ended with status {code}'
      reason = f'{command[0]}: {reason.removeprefix("error: ")}'
      break
  return Made(run, reason, time.monotonic() - begun)


def _circumstances():
  names = {'Python': platform.python_version(), 'vqjax': vqjax.__version__}
  names |= {name: importlib.metadata.version(name) for name in ('jax', 'flax')}
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  processors = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
  processor = processors[0] if processors else platform.processor() or platform.machine()
  return {
    'date': datetime.date.today().isoformat(),
    'machine': f'{platform.system()}, {processor}, {os.cpu_count()} cores',
    'versions': ', '.join(f'{name} {version}' for name, version in names.items()),
  }
