"""Images that are long in coming, or never come: said in the log, and no obstacle to an end."""

import contextlib
import logging
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from vqjax.data import default_data, eval_batches, train_batches

ROOT = pathlib.Path(__file__).parent.parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def config(**fields):
  small = {'image_size': 8, 'threads': 2, 'stall_seconds': 0.05}
  return ConfigDict({**default_data(), **small, **fields})


class Slow:
  """Pictures of which number 3 comes when `comes` is set."""

  description = 'pictures'

  def __init__(self):
    self.comes = threading.Event()

  def __len__(self):
    return 8

  def __getitem__(self, index):
    if index == 3:
      assert self.comes.wait(60)
    return {'image': np.full((8, 8, 3), index, np.uint8), 'label': index, 'name': f'{index}.png'}


class Named(Slow):
  def name_of(self, index):
    return f'slow/\x1b{index}.png'


def in_time(source, **fields):
  """The order of training and of evaluation, where nothing is waited for."""
  source.comes.set()
  return labels(source, config(**fields))


def labels(source, data):
  found = []
  for batches in (
    train_batches(source, data, batch_size=4, seed=0),
    eval_batches(source, data, batch_size=4),
  ):
    with contextlib.closing(batches):
      found.append([next(batches)['label'].tolist() for _ in range(2)])
  return found


class Lines(logging.Handler):
  """What is logged, line by line."""

  def __init__(self):
    super().__init__()
    self._lines = queue.SimpleQueue()

  def emit(self, record):
    self._lines.put(record.getMessage())

  def get(self):
    return self._lines.get(timeout=60)


@pytest.fixture
def lines():
  handler = Lines()
  logging.getLogger('vqjax').addHandler(handler)
  yield handler
  logging.getLogger('vqjax').removeHandler(handler)


@pytest.mark.parametrize('kind', [Named, Slow])
def test_what_is_waited_for_is_told_again_and_again_and_the_order_stays(kind, lines):
  source, found = kind(), []
  name = r'slow/\x1b3.png' if kind is Named else 'number 3'  # escaped
  reader = threading.Thread(target=lambda: found.extend(labels(source, config())))
  reader.start()
  try:
    told = []
    while len(told) < 3:
      line = lines.get()
      told += [line] if f'being read: {name} (' in line else []
  finally:
    source.comes.set()
    reader.join(60)
  for line in told:
    assert line.startswith('waiting for images for ')
    assert 'it goes on when they come' in line
  assert found == in_time(kind())


def test_nothing_is_told_of_images_that_come_or_where_nobody_wants_it(lines):
  assert in_time(Slow(), stall_seconds=60.0) == in_time(Slow(), stall_seconds=0.0)
  source = Slow()
  silent = train_batches(source, config(stall_seconds=0.0), batch_size=8, seed=0)
  with contextlib.closing(silent):
    assert not [t for t in threading.enumerate() if t.name == 'vqjax-stalls' and t.is_alive()]
    source.comes.set()
    next(silent)
  with pytest.raises(queue.Empty):
    lines._lines.get_nowait()


def test_the_thread_that_watches_ends_with_the_batches():
  source = Slow()
  source.comes.set()
  before = set(threading.enumerate())
  forgotten = train_batches(source, config(), batch_size=4, seed=0)
  (watching,) = (t for t in set(threading.enumerate()) - before if t.name == 'vqjax-stalls')
  del forgotten
  watching.join(60)
  assert not watching.is_alive()


# A file that became a pipe after the folder was listed is read for ever.
RUN = """
import os, pathlib, signal, sys
import jax.numpy as jnp
from ml_collections import ConfigDict
import train
from configs import rot_vqvae
from fake_experiment import MeanExperiment
from vqjax import commands, data

# Tests in the background of a script are started with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
images, workdir = pathlib.Path(sys.argv[1]), sys.argv[2]
config = rot_vqvae.get_config('demo')
config.data.source, config.data.path, config.data.image_size = 'folder', str(images), 8
config.data.stall_seconds, config.batch_size, config.total_steps = 0.05, 2, 100
config.checkpoint_every = 1
source = data.make_source(config.data, 'train')
for path in (images / 'train').iterdir():
  if path.name == '3.png':
    path.unlink()
    os.mkfifo(path)

class FromFolder(MeanExperiment):
  def batches(self, seen):
    return data.train_batches(source, config.data, batch_size=2, seed=0, start=seen)

  def step(self, state, batch, step):
    return super().step(state, jnp.float32(batch['image']), step)

commands.run(commands.Program(lambda: train.train(config, workdir, experiment=FromFolder)), [])
"""


def insist(run, number, heard):
  run.send_signal(number)
  while not heard.wait(20):
    run.send_signal(number)


@pytest.mark.parametrize('number', SIGNALS)
def test_the_second_signal_ends_a_run_that_waits_for_ever(number, tmp_path):
  for split in ('train', 'val'):
    (tmp_path / 'images' / split).mkdir(parents=True)
    for i in range(8):
      Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(
        tmp_path / 'images' / split / f'{i}.png'
      )
  run = subprocess.Popen(
    [sys.executable, '-c', RUN, tmp_path / 'images', tmp_path / 'run'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}'},
  )
  heard = threading.Event()
  killer = threading.Timer(300, run.kill)
  killer.start()
  try:
    said = next(line for line in run.stdout if f'{tmp_path}/images/train/3.png (' in line)
    assert 'Ctrl-C ends it, in training the second one' in said
    # Python hears a signal that comes just as its main thread begins to wait with the next one.
    threading.Thread(target=insist, args=(run, number, heard)).start()
    assert run.stderr.readline().startswith('asked to stop: ')
    heard.set()
    run.send_signal(number)
    _, error = run.communicate()
  finally:
    heard.set()
    killer.cancel()
    run.kill()
    run.communicate()
  ended = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'ended by SIGTERM'}[number]
  assert error == f'error: {ended}; run the same command again to go on from the last checkpoint.\n'
  assert run.returncode == 128 + number
