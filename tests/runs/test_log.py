import json
import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vqjax.runs import log


def metrics(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def events(workdir):
  accumulator = EventAccumulator(str(workdir), size_guidance={'images': 0, 'scalars': 0})
  accumulator.Reload()
  return accumulator


def picture(seed=0):
  return np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)


def test_metrics_are_one_json_object_a_step_on_disk_at_once(tmp_path):
  with log.RunWriter(tmp_path) as writer:
    writer.scalars(
      1, {'loss': jnp.float32(0.5), 'usage': jnp.bfloat16(0.25), 'codes': 7, 'psnr': np.float64(20)}
    )
    assert metrics(tmp_path) == [{'step': 1, 'loss': 0.5, 'usage': 0.25, 'codes': 7, 'psnr': 20}]
    writer.scalars(np.int32(2), {'loss': np.float32(np.nan), 'psnr': -np.inf})
    assert metrics(tmp_path)[1] == {'step': 2, 'loss': None, 'psnr': None}


def test_events_can_be_read_back(tmp_path):
  image = picture()
  with log.RunWriter(tmp_path) as writer:
    writer.scalars(10, {'loss': 0.5})
    writer.scalars(20, {'loss': 0.25, 'psnr': 20})
    writer.images(20, 'reconstructions', image)
  read = events(tmp_path)
  assert [(event.step, event.value) for event in read.Scalars('loss')] == [(10, 0.5), (20, 0.25)]
  assert [event.value for event in read.Scalars('psnr')] == [20]
  assert read.Tags()['images'] == ['reconstructions']
  (event,) = read.Images('reconstructions')
  assert (event.step, event.height, event.width) == (20, 6, 9)
  with Image.open(tmp_path / 'samples' / 'reconstructions_00000020.png') as png:
    np.testing.assert_array_equal(png, image)


@pytest.mark.parametrize('image', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_an_image_of_another_kind_is_an_error(tmp_path, image):
  with (
    log.RunWriter(tmp_path) as writer,
    pytest.raises(ValueError, match=r'samples is .*legal: uint8'),
  ):
    writer.images(1, 'samples', image)


def test_resuming_drops_what_will_be_done_again(tmp_path):
  with log.RunWriter(tmp_path) as writer:
    for step in (10, 20, 30):
      writer.scalars(step, {'loss': step})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('[1]\n"step"\n{"step": "x"}\n{"loss": 1}\n')  # Another hand.
    file.write('{"step": 15, "lo')  # The run died here.
  with log.RunWriter(tmp_path, resume_step=20) as writer:
    assert metrics(tmp_path) == [{'step': 10, 'loss': 10}, {'step': 20, 'loss': 20}]
    writer.scalars(30, {'loss': 31})
  assert metrics(tmp_path)[2:] == [{'step': 30, 'loss': 31}]
  read = events(tmp_path).Scalars('loss')
  assert [(event.step, event.value) for event in read] == [(10, 10), (20, 20), (30, 31)]
  assert not list(tmp_path.glob('.*'))


def test_a_disabled_writer_writes_nothing(tmp_path):
  with log.RunWriter(tmp_path / 'run', enabled=False) as writer:
    writer.scalars(1, {'loss': 1})
    writer.images(1, 'samples', picture())
  assert not list(tmp_path.iterdir())


def test_tensorflow_stays_out():
  code = 'import sys, vqjax.runs.log; sys.exit("tensorflow" in sys.modules)'
  subprocess.run([sys.executable, '-W', 'error', '-c', code], check=True)


def test_parameters_are_summed_up_and_listed(tmp_path):
  zeros = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  params = {
    'scale': zeros(),
    'layer_0': {'kernel': zeros(3, 4), 'bias': zeros(4)},
    'layer_11': {'kernel': zeros(100, 10)},
    'head': {'kernel': zeros(5, 6)},
  }
  assert log.parameter_summary(params) == '1,047 parameters: layer 1,016, head 30, scale 1'
  with log.RunWriter(tmp_path) as writer:
    writer.parameters(params)
  table = (tmp_path / 'parameters.txt').read_text()
  for part in ('layer_0/kernel', '(3, 4)', 'float32', 'Total: 1,047'):
    assert part in table
  with log.RunWriter(tmp_path / 'other', enabled=False) as writer:
    writer.parameters(params)
  assert not (tmp_path / 'other').exists()


def test_setup_prints_plain_messages_once(capsys):
  log.setup()
  log.setup()
  logging.getLogger('vqjax.runs.checkpoint').info('using step %d', 4)
  logging.getLogger('vqjax').debug('not shown')
  logging.getLogger('absl').info('not shown')
  assert capsys.readouterr() == ('using step 4\n', '')
  log.setup(verbose=False)
  logging.getLogger('vqjax').info('not shown')
  logging.getLogger('vqjax').warning('shown')
  assert capsys.readouterr() == ('shown\n', '')


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def test_progress_line_measures_pace_without_compilation_and_pauses():
  clock = Clock()
  progress = log.Progress(600, 32, start_step=100, clock=clock)
  clock.now += 60  # The first step compiles.
  progress.start(101)
  assert progress.line(101, ['loss 0.5']) == 'step 101/600 | loss 0.5'
  assert not progress.pace

  clock.now += 20
  line = progress.line(111, ['loss 0.1234', 'usage 43%'])
  assert line == 'step 111/600 | loss 0.1234 | usage 43% | 16.0 images/s | 0:16:18 left'

  with progress.pause():
    clock.now += 1000
  clock.now += 10
  # Twice as fast now; over both stretches, 1.5 s a step.
  assert progress.line(121) == 'step 121/600 | 32.0 images/s | 0:11:58 left'
  assert progress.pace == {'images_per_second': 32}


def test_progress_of_images_is_logged_now_and_then_and_at_the_end(caplog):
  clock = Clock()
  progress = log.ImageProgress(100, clock=clock)
  with caplog.at_level('INFO', 'vqjax'):
    clock.now += 60  # The first images wait for the compiler.
    progress.add(10)
    for _ in range(3):
      clock.now += 4
      progress.add(20)
    clock.now += 5
    progress.add(30)
  assert caplog.messages == [
    'images 10/100',
    'images 70/100 | 5.0 images/s | 0:00:06 left',
    'images 100/100 | 6.0 images/s | 0:00:00 left',
  ]
