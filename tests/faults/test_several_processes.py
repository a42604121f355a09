"""Two processes that train together stop and save at the same step, whichever of them is asked."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent


def train(workdir, *, minutes=0.0, signalled='', number=0):
  """Trains by two processes: (exit status, what was said) of each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  environment = {
    **os.environ,
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
    'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}',
  }
  arguments = [2, workdir, minutes, signalled, int(number)]
  command = [sys.executable, str(ROOT / 'tests' / 'several_processes.py'), str(port)]
  processes = [
    subprocess.Popen(
      [*command, str(index), *map(str, arguments)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index in range(2)
  ]
  try:
    said = [process.communicate(timeout=300)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [process.returncode for process in processes], said


def saved(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


def test_what_one_process_hears_all_do_at_the_same_step(tmp_path):
  codes, said = train(tmp_path, signalled=1, number=signal.SIGTERM)
  assert codes == [0, 0], said
  # Heard at step 5, asked behind step 8, answered behind step 12.
  assert 'SIGTERM: saved step 12; the same command goes on from there' in said[0]
  assert saved(tmp_path) == [12]

  # The clock of one: asked behind step 16, answered behind 20, and so again.
  codes, said = train(tmp_path, minutes=1e-9)
  assert codes == [0, 0], said
  assert f'going on from step 12 of {tmp_path}/checkpoints' in said[0]
  assert re.findall(r'step (\d+)/30', said[0]) == ['20', '28', '30']
  assert saved(tmp_path) == [20, 28, 30]
