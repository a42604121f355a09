"""`vqjax.data.prepare` stopped at any moment: the same command can be given again."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent.parent

# Kills a command at each of its operations on files in turn. Importing takes seconds: one process
# imports, the commands are forks of it.
KILLED = """
import itertools, os, pathlib, shutil, signal, sys, traceback, types
from vqjax.data import default_data, make_source
from vqjax.data.prepare import prepare
from vqjax.errors import UserError

images, out = map(pathlib.Path, sys.argv[1:])
COUNTS = {'val': 2, 'train': 5}

def fork(work):
  if (child := os.fork()) == 0:
    try:
      work()
      os._exit(0)
    except BaseException:
      traceback.print_exc()
      os._exit(1)
  return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def sources():
  data = default_data()
  for split in ('train', 'eval'):
    data[split] = types.SimpleNamespace(**data[split])
  data = types.SimpleNamespace(**{**data, 'source': 'array_record', 'path': str(out)})
  for part, split in (('train', 'train'), ('val', 'eval')):
    try:
      source = make_source(data, split)
    except UserError:
      yield part, None
    else:
      yield part, sorted(source[i]['name'] for i in range(len(source)))

def killed_at(moment):
  left = iter(range(moment, -1, -1))
  def hook(event, args):
    if event in EVENTS and next(left) == 0:
      os.kill(os.getpid(), signal.SIGKILL)
  sys.addaudithook(hook)
  prepare(images, out, 2)

EVENTS = ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.scandir')
NAMES = {part: sorted(path.name for path in (images / part).iterdir()) for part in COUNTS}

def again():
  for part, found in sources():
    assert found in (None, NAMES[part]), (part, found)
  try:
    assert prepare(images, out, 2) == COUNTS
  except UserError as error:
    assert 'already holds val-00000' in str(error)
  assert dict(sources()) == NAMES
  assert all(path.is_file() for path in out.iterdir())

for moment in itertools.count():
  shutil.rmtree(out, ignore_errors=True)
  ended = fork(lambda: killed_at(moment))
  assert ended in (0, -signal.SIGKILL), ended
  assert fork(again) == 0, moment
  if ended == 0:
    break
print('moments', moment)
"""


@pytest.fixture
def images(tmp_path):
  """Five pictures to train on and two that are held out."""
  for split, count in (('train', 5), ('val', 2)):
    (tmp_path / 'images' / split).mkdir(parents=True)
    for i in range(count):
      picture = Image.fromarray(np.full((8, 8, 3), i, np.uint8))
      picture.save(tmp_path / 'images' / split / f'{i}.png')
  return tmp_path / 'images'


def python(code, *args):
  return subprocess.Popen(
    [sys.executable, '-c', code, *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )


def test_killed_at_any_moment_it_can_be_repeated(images, tmp_path):
  run = python(KILLED, images, tmp_path / 'out')
  said, error = run.communicate()
  assert run.returncode == 0, error
  assert int(said.split('moments ')[1]) > 20


# The last of the pictures keeps the process until a signal comes.
WAITS = """
import signal, sys, time
from vqjax import commands
from vqjax.data import prepare
from vqjax.data.folder import Folder

class Slow(Folder):
  def __getitem__(self, index):
    if self.name_of(index).endswith('train/4.png'):
      print('waits', flush=True)
      time.sleep(1)
    return super().__getitem__(index)

# Tests in the background of a script are started with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
prepare.open_folder.__globals__['Folder'] = Slow
commands.run(prepare.COMMAND, sys.argv[1:])
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_sentence_and_leaves_nothing_by_halves(number, images, tmp_path):
  out = tmp_path / 'out'
  run = python(WAITS, images, out)
  try:
    while run.stdout.readline() != 'waits\n':
      assert run.poll() is None
    assert (out / 'shards-being-written').exists()
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
  finally:
    run.kill()
    run.communicate()
  ended = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'ended by SIGTERM'}[number]
  assert error == f'error: {ended}; no shard is left by halves: run the same command again.\n'
  assert run.returncode == 128 + number
  assert [path.name for path in out.iterdir()] == ['lock']


# A limit on the size of files stands for a full disk.
LIMITED = """
import resource, signal, sys
from vqjax import commands
from vqjax.data import prepare

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
commands.run(prepare.COMMAND, sys.argv[1:])
"""


def test_a_full_disk_is_one_sentence(images, tmp_path):
  out = tmp_path / 'out'
  run = python(LIMITED, images, out)
  _, error = run.communicate()
  assert run.returncode == 1
  assert error.startswith(f'error: cannot write {out}/shards-being-written (')
  assert error.endswith('make room or mend the permissions, then run the same command again.\n')
  assert error.count('\n') == 1
  assert [path.name for path in out.iterdir()] == ['lock']
