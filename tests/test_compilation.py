"""Programs that one command has compiled and another one finds."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
HIT = "Persistent compilation cache hit for 'jit_{}'"
PROGRAM = """
import jax
from vqjax.compilation import keep_programs
from vqjax.runs.log import setup

setup()
keep_programs()
twice = lambda x: 2 * x
print(jax.jit(twice)(21))
"""


def python(*args, **variables):
  """(stdout, stderr) of a process that keeps programs where `variables` say, however small."""
  outside = {n: v for n, v in os.environ.items() if n != 'JAX_COMPILATION_CACHE_DIR'}
  ours = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_LOG_COMPILES': '1'}
  ours['XLA_FLAGS'] = os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1')
  done = subprocess.run(
    [sys.executable, *args],
    cwd=ROOT,
    env={**outside, **ours, **{name: str(value) for name, value in variables.items()}},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert 'Traceback' not in done.stderr
  return done.stdout, done.stderr


def entries(folder, half='cache'):
  return sorted(folder.glob(f'compiled/*/jit_*-{half}'))


def test_a_second_run_compiles_nothing_and_is_the_same_to_the_bit(tmp_path):
  fields = {
    'total_steps': 2,
    'log_every': 1,
    'eval_images': 8,
    'batch_size': 4,
    'data.image_size': 16,
    'model.channels': 4,
    'model.num_blocks': 1,
    'gan.weight': 0.0,
  }
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  runs = []
  for name in ('first', 'second'):
    args = ['train.py', '--config=configs/rot_vqgan.py:demo', f'--workdir={tmp_path / name}']
    _, stderr = python(*args, *flags, VQJAX_CACHE=tmp_path / 'cache')
    lines = (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    runs.append([{n: x for n, x in row.items() if n != 'images_per_second'} for row in rows])
    for program in ('create', 'seed_codebooks', 'train_step', 'step'):
      assert (HIT.format(program) in stderr) == (name == 'second'), program
  assert len(runs[0]) == 3  # two steps, and a look at held-out images
  assert runs[0] == runs[1]


def test_what_is_damaged_is_told_once_and_written_anew(tmp_path):
  quiet = python('-c', PROGRAM, VQJAX_CACHE=tmp_path)[0]
  assert quiet == '42\n'
  (kept,) = entries(tmp_path)
  whole = kept.read_bytes()
  kept.write_bytes(whole[:-9])
  half = kept.with_name('jit_half-0123-cache')  # as a process leaves it that was killed
  half.touch()
  told, _ = python('-c', PROGRAM, VQJAX_CACHE=tmp_path)
  assert told.startswith(f'compiled programs are not kept in {kept.parent}: ')
  assert told.endswith(' names another folder\n42\n')
  assert told.count('\n') == 2
  assert not half.exists()
  stdout, stderr = python('-c', PROGRAM, VQJAX_CACHE=tmp_path)
  assert stdout == '42\n'
  assert HIT.format('_lambda') in stderr
  assert [path.name for path in entries(tmp_path)] == [kept.name]
  assert len(entries(tmp_path, 'atime')) == 1


def test_a_folder_that_cannot_be_written_is_one_line():
  told, stderr = python('-c', PROGRAM, VQJAX_CACHE='/dev/null/cache')
  assert told.startswith('compiled programs are not kept in /dev/null/cache/compiled/')
  assert told.endswith(': Not a directory; JAX_COMPILATION_CACHE_DIR names another folder\n42\n')
  assert 'Warning' not in stderr


@pytest.mark.parametrize('choice', ['another folder', 'none'])
def test_a_choice_of_the_users_stands(tmp_path, choice):
  own = tmp_path / 'own'
  variables = {
    'another folder': {'JAX_COMPILATION_CACHE_DIR': own},
    'none': {'JAX_ENABLE_COMPILATION_CACHE': '0'},
  }[choice]
  assert python('-c', PROGRAM, VQJAX_CACHE=tmp_path / 'ours', **variables)[0] == '42\n'
  assert not (tmp_path / 'ours').exists()
  assert own.exists() == (choice == 'another folder')


def test_a_folder_that_others_may_write_is_not_used(tmp_path):
  """Whoever writes there decides what is executed."""
  python('-c', PROGRAM, VQJAX_CACHE=tmp_path)
  (kept,) = entries(tmp_path)
  kept.parent.chmod(0o777)
  told, stderr = python('-c', PROGRAM, VQJAX_CACHE=tmp_path)
  assert f"{kept.parent}: somebody else's, or others may write there; " in told
  assert HIT.format('_lambda') not in stderr
