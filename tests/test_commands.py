"""train.py and eval.py as a user types them, and what a command makes of errors."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from vqjax import commands
from vqjax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


def command(*args, stdin=None):
  flags = os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1')
  env = {**os.environ, 'XLA_FLAGS': flags, 'VQJAX_CACHE': '/no/such/cache'}
  return subprocess.run(
    [sys.executable, *args],
    cwd=ROOT,
    env=env,
    input=stdin,
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_commands_from_training_to_report(tmp_path):
  workdir = tmp_path / 'run'
  fields = {
    'total_steps': 2,
    'eval_images': 8,
    'batch_size': 4,
    'data.image_size': 16,
    'model.channels': 4,
    'model.num_res_blocks': 0,
    'gan.weight': 0.0,
  }
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  args = ['train.py', '--config=configs/rot_vqgan.py:demo', f'--workdir={workdir}', *flags]
  done = command(*args)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0].startswith('backend cpu, 1 device(s)')
  assert any(line.startswith('step 2/2 | loss') and 'usage' in line for line in lines)
  assert any('Total:' in line for line in lines)  # the parameter overview
  assert lines[-1] == f'next: python eval.py --workdir={workdir}'
  assert 'Traceback' not in done.stderr

  done = command(*lines[-1].split()[2:])
  assert done.returncode == 0, done.stderr
  assert 'dB, RGB, mean over images' in done.stdout
  assert (workdir / 'eval' / 'report.html').exists()


VQGAN = '--config=configs/rot_vqgan.py'


MISTAKES = [
  (['train.py'], '--config is missing'),
  (['train.py', '--config=configs/rot_vqgam.py'], 'configs/rot_vqgam.py'),
  (
    ['train.py', f'{VQGAN}:dem'],
    "config argument 'dem' is unknown; legal, joined by commas: demo",
  ),
  (['train.py', f'{VQGAN}:demo', '--config.batchsize=4'], 'batchsize'),
  (['train.py', f'{VQGAN}:demo', '--config.batch_size=many'], 'batch_size'),
  (['train.py', f'{VQGAN}:demo', '--wrokdir=x'], 'wrokdir'),
  (['train.py', VQGAN, '--config.data.path=/no/such/folder'], '/no/such/folder'),
  (['train.py', f'{VQGAN}:demo', '--config.require_backend=gpu'], "JAX found 'cpu'"),
  (['train.py', f'{VQGAN}:demo', '--config.loss.perceptual=1'], 'python -m vqjax.weights lpips'),
  (
    ['train.py', f'{VQGAN}:demo', '--config.quantizer.estimator=rotate'],
    'legal: straight_through',
  ),
  (['train.py', f'{VQGAN}:demo', '--workdir=/dev/null/run'], 'cannot make the run folder'),
  (['eval.py'], '--workdir is missing'),
  (['eval.py', '--workdir=/no/such/run'], '/no/such/run/config.json does not exist'),
  (
    ['eval.py', '--originals=a', '--reconstructions=b', '--out=c', '--rounding=wrap'],
    'without --workdir, --step, --data_path, --eval_assign, --rounding',
  ),
]
# Importing takes most of the time that a mistake takes: one process imports, the others are forks
# of it, each a command like any other but for that.
FORKS = """
import json, os, runpy, sys, tempfile
import eval, train

for args in json.load(sys.stdin):
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    if (child := os.fork()) == 0:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      sys.argv = args
      runpy.run_path(args[0], run_name='__main__')
      os._exit(0)  # no mistake
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [file.seek(0) or file.read() for file in (out, err)]
  print(json.dumps([status, *texts]))
"""


@pytest.fixture(scope='module')
def mistakes():
  """What each of MISTAKES came to: [exit status, stdout, stderr]."""
  done = command('-c', FORKS, stdin=json.dumps([args for args, _ in MISTAKES]))
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize('case', range(len(MISTAKES)), ids=[' '.join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_line(case, mistakes):
  status, stdout, stderr = mistakes[case]
  assert status == 1, stdout + stderr
  assert MISTAKES[case][1] in stderr
  assert 'Traceback' not in stderr
  assert sum(line.startswith('error: ') for line in stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (UserError('x is 1; legal: 2.'), 'error: x is 1; legal: 2.\n'),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: wanted 51 GB\nmore'),
      'error: out of memory (RESOURCE_EXHAUSTED: wanted 51 GB); fewer images at a time need less: '
      '--batch_size=N of eval.py, --config.batch_size=N or',
    ),
    (KeyboardInterrupt(), 'error: interrupted; run the same command again to go on from the last'),
  ],
)
def test_what_a_user_can_mend_is_one_line(error, message, capsys):
  def main():
    raise error

  with pytest.raises(SystemExit) as exit:
    commands._reporting(main)(['program'])
  assert exit.value.code == 1
  assert capsys.readouterr().err.startswith(message)


def test_other_errors_of_the_runtime_keep_their_traceback():
  def main():
    raise jax.errors.JaxRuntimeError('INTERNAL: a bug')

  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL: a bug'):
    commands._reporting(main)(['program'])
