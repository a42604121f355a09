"""A disk that takes no more: one sentence, sound files, and the same command goes on later.

A limit on the size of files stands for the end of the disk, which any user can have; where a disk
of our own can be mounted, that is filled too.
"""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.pictures import picture, png, write
from fake_evaluation import evaluation
from fake_experiment import MeanExperiment
from golden_data import CHECKPOINTS, checkpoint

import train as train_command
import vqjax
from configs import rot_vqvae
from vqjax import commands, export, reconstruct, tokenize
from vqjax.convert.__main__ import COMMAND as CONVERT
from vqjax.data import Tokens
from vqjax.errors import UserError
from vqjax.report import report
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.lock import locked
from vqjax.runs.log import RunWriter

NAME = next(name for name in CHECKPOINTS if name.startswith('vitvq'))


@contextlib.contextmanager
def files_up_to(size):
  """Within the block no file gets longer: what is beyond fails as on a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1e9)  # writes nothing of its own
  try:
    yield
  finally:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def run(monkeypatch, capfd, caplog):
  """Runs a command; returns what it ended with and all that would be on stderr."""
  monkeypatch.setattr(commands.app, 'run', lambda main, argv, flags_parser: main(argv))

  def run(command, *argv):
    capfd.readouterr()
    caplog.clear()
    message = None
    try:
      commands.run(command, [str(arg) for arg in argv])
    except SystemExit as exit:
      message = exit.code
    # pytest has taken the place of what prints these.
    logged = [record.getMessage() for record in caplog.records if record.levelname == 'ERROR']
    return message, '\n'.join([*logged, capfd.readouterr().err])

  return run


def assert_refused(ended, said):
  """One sentence and nothing else, not even behind it from a thread."""
  message, printed = ended
  assert message is not None
  assert message.startswith('error: ')
  assert said in message
  assert '\n' not in message
  assert printed == ''


class Large(MeanExperiment):
  """With 4 MB more of state, in several arrays: their writes are under way when one fails."""

  def __init__(self, config, mesh):
    super().__init__(config, mesh)
    shape = jax.ShapeDtypeStruct((2**18,), jnp.float32, sharding=self._place)
    self.abstract_state = self.abstract_state | {'more': [shape] * 4}

  def start(self):
    keys = jax.random.split(jax.random.key(0), 4)
    more = [jax.device_put(jax.random.normal(key, (2**18,)), self._place) for key in keys]
    return super().start() | {'more': more}

  def step(self, state, batch, step):
    new, reported = super().step(state, batch, step)
    return new | {'more': state['more']}, reported


def training(workdir, steps=4):
  config = rot_vqvae.get_config('demo')
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = steps, 1, 2, 2
  return commands.Program(lambda: train_command.train(config, workdir, experiment=Large))


def test_a_checkpoint_that_finds_no_room(run, tmp_path):
  workdir = tmp_path / 'run'
  assert run(training(workdir, 2))[0] is None
  with files_up_to(2**16):
    ended = run(training(workdir, 6))
  assert_refused(
    ended, f'A checkpoint could not be saved to {workdir}/checkpoints (File too large)'
  )
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.steps() == [2]
  with locked(workdir, '--workdir'):
    pass
  assert run(training(workdir, 6)) == (None, '')
  assert {path.name for path in (workdir / 'checkpoints').iterdir()} >= {'2', '4', '6'}


@pytest.mark.parametrize('part', ['2.orbax', 'state.orbax', 'record.orbax'])
def test_no_thread_waits_for_a_folder_that_could_not_be_made(part, run, tmp_path, monkeypatch):
  """Orbax's did, for five minutes behind the error, and so did the end of the process."""
  makedirs = os.makedirs

  def refuse(path, *args, **kwargs):
    if os.path.basename(os.fspath(path)).startswith(part):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
    makedirs(path, *args, **kwargs)

  monkeypatch.setattr(os, 'makedirs', refuse)
  before = set(threading.enumerate())
  assert_refused(run(training(tmp_path)), 'could not be saved')
  left = [t for t in threading.enumerate() if t not in before and not t.daemon]
  # Threads of pools wait for work, and end with the process.
  for thread in left:
    thread.join(1)
  assert not [thread.name for thread in left if thread.is_alive() and 'Pool' not in thread.name]


def test_room_for_two_checkpoints_is_asked_for_before_the_first_step(run, tmp_path, monkeypatch):
  assert run(training(tmp_path / 'begun', 2))[0] is None
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=5_000_000))
  ended = run(training(tmp_path / 'new'))
  said = 'checkpoints has 5.0 MB free, but 2 checkpoints of 4.2 MB need 8.4 MB; make room, or choo'
  assert_refused(ended, said)
  assert not (tmp_path / 'new' / 'metrics.jsonl').exists()
  assert run(training(tmp_path / 'begun'))[0] is None  # it takes the place of another
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1_000_000))
  assert_refused(run(training(tmp_path / 'begun', 6)), 'but 1 checkpoint of 4.2 MB need 4.2 MB')
  assert run(training(tmp_path / 'begun'))[0] is None  # is finished


@pytest.mark.parametrize('kind', ['numbers', 'pictures'])
def test_metrics_and_events_that_find_no_room(kind, tmp_path):
  """Where tensorboardX's own thread had died, the eleventh event was waited with for ever."""
  noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)

  def fill():
    with RunWriter(tmp_path) as writer, files_up_to(12_000):
      for step in range(1000):
        if kind == 'numbers':
          writer.scalars(step, {'loss': 0.5})
        else:
          writer.images(step, 'drawn', noise)

  with pytest.raises(OSError, match='File too large') as caught:
    fill()
  assert caught.value.filename.startswith(str(tmp_path))
  assert not list((tmp_path / 'samples').glob('.*'))


def test_a_program_that_finds_no_room_for_metrics(run, tmp_path):
  class Chatty(MeanExperiment):
    def step(self, state, batch, step):
      state, reported = super().step(state, batch, step)
      return state, reported | {f'number_{i}': reported['loss'] for i in range(1000)}

  config = rot_vqvae.get_config('demo')
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 1, 2, 2
  train = lambda: train_command.train(config, tmp_path, experiment=Chatty)
  with files_up_to(2**14):
    ended = run(commands.Program(train))
  said = f'error: cannot use {tmp_path}/metrics.jsonl: File too large; make room or mend the perm'
  assert_refused(ended, said)
  assert ended[0].endswith('run the same command again to go on from the last checkpoint.')
  assert run(commands.Program(train)) == (None, '')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  path = tmp_path_factory.mktemp('pictures')
  for i in range(8):
    for split in ('train', 'val'):
      write(path / split / f'{i}.png', png(picture(i, 64, 64)))
  return path


# Command, its arguments, how long a file may get, and the beginning of what is said.
COMMANDS = {
  'convert': (CONVERT, '', 2**16, 'A checkpoint could not be saved to {out}/checkpoints (File to'),
  'convert at once': (CONVERT, '', 2**10, 'cannot write {out}/config.json: File too large'),
  'export': (export.COMMAND, '--format=vqjax', 2**16, 'cannot write {out}: File too large'),
  'tokenize': (
    tokenize.COMMAND,
    '--config.data.path={pictures} --config.data.image_size=64 --batch_size=8',
    2**12,
    'cannot write {out}/tokens-00000-of-00001.array_record (write() failed: File too large',
  ),
}


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_that_finds_no_room_and_then_does(name, run, pictures, tmp_path):
  command, args, size, said = COMMANDS[name]
  out = tmp_path / 'out'
  argv = [checkpoint(NAME)[0], f'--out={out}', *args.format(pictures=pictures).split()]
  with files_up_to(size):
    assert_refused(run(command, *argv), said.format(out=out))
  if command is export.COMMAND:
    assert not list(tmp_path.iterdir())
  assert run(command, *argv) == (None, '')
  if command is tokenize.COMMAND:
    assert len(Tokens(out)) == 8
  else:
    assert vqjax.load(out).model is not None


def test_pictures_that_find_no_room(run, pictures, tmp_path):
  argv = [checkpoint(NAME)[0], f'--input={pictures}', f'--out={tmp_path}/out']
  with files_up_to(2**10):
    ended = run(reconstruct.COMMAND, *argv)
  assert_refused(ended, f'cannot write {tmp_path}/out/train/0.png: File too large; make room, then')
  assert not list((tmp_path / 'out').rglob('*.png*'))


@pytest.mark.parametrize('size', [2**8, 2**13])
def test_a_report_that_finds_no_room_leaves_the_one_that_was_there(size, tmp_path):
  report.write(tmp_path, evaluation())
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  with (
    files_up_to(size),
    pytest.raises(UserError, match=r'cannot write .*: File too large; make r'),
  ):
    report.write(tmp_path, evaluation())
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 10 MB."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=10m', 'none', str(disk)]
  try:
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
  except OSError:
    done = False
  if not done:
    pytest.skip('only where a disk can be mounted')
  yield disk
  subprocess.run(['umount', str(disk)], check=True)


def test_a_real_disk_that_runs_full(run, small_disk):
  assert_refused(run(training(small_disk / 'run', 12)), '(No space left on device, ')
  with Checkpoints(small_disk / 'run' / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.steps() == [2, 4]
  subprocess.run(['mount', '-o', 'remount,size=60m', str(small_disk)], check=True)
  assert run(training(small_disk / 'run', 12)) == (None, '')
