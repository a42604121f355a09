"""The demos run: ten steps of each, through the real loop."""

import importlib
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import train as train_command

# One device, as on the machines that demos are for.
pytestmark = pytest.mark.usefixtures('one_device')


def demo(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(f'demo,{arg}')


def run(config, workdir):
  """Trains; returns what the last evaluation found and all that was logged."""
  found = train_command.train(config, workdir)
  return found, [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


# Steps before the generator's GAN term begins, and before the discriminator does. vqgan: both in
# the middle of the run, where bugs hide. OptVQ: the discriminator from the first, as published.
GAN_START = {'vqgan': (5, 5), 'optvq': (5, 0)}  # each start is a program more to compile


@pytest.mark.parametrize(
  ('name', 'arg'),
  [
    # Those of rot_vqgan and rot_vqvae: test_train.py.
    *((name, '') for name in ('rot_vitvqgan', 'vqgan', 'optvq', 'llamagen', 'maskgit', 'vqtorch')),
    ('optvq', 'model=cifar10'),
    ('optvq', 'model=mnist'),
    ('vqtorch', 'task=classifier'),
    ('vqtorch', 'step=alternating'),
  ],
)
def test_a_demo_trains(name, arg, tmp_path):
  config = demo(name, arg)
  config.total_steps, config.log_every, config.eval_images, config.sample_images = 10, 1, 3, 3
  config.eval_every = config.checkpoint_every = 10
  config.batch_size = 4
  # Compiling takes nearly all the time.
  if config.model.network == 'edsr':
    config.model.num_blocks = 1
  config.seed_codebook_batches = min(config.seed_codebook_batches, 1)
  if config.gan.weight and config.gan.r1:
    config.data.image_size = 16
    config.gan.r1_every = 1  # a step without it is another program
  if config.gan.weight:
    start, lead = GAN_START.get(name, (0, 0))
    del config.gan.start_percent
    config.gan.start_steps, config.gan.discriminator_lead_steps = start, start - lead
  found, lines = run(config, tmp_path)

  assert all(np.isfinite(list(line.values())).all() for line in lines)
  logged = {line['step']: line for line in lines if 'loss' in line}
  assert list(logged) == [*range(1, 11)]
  if config.gan.weight:
    assert [step for step in logged if 'generator' in logged[step]] == [*range(start + 1, 11)]
    assert [step for step in logged if 'discriminator' in logged[step]] == [*range(lead + 1, 11)]
  assert any('r1' in line for line in lines) == (config.gan.weight > 0 and config.gan.r1 > 0)
  assert found['num_images'] == 3
  assert 0 < found['usage'] <= 1

  assert (tmp_path / 'config.json').exists()
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['10']
  assert len(list(tmp_path.glob('events.out.tfevents.*'))) == 1
  if 'classifier' in arg:
    assert 0 <= found['accuracy'] <= 1
    assert not list((tmp_path / 'samples').iterdir())
  else:
    assert found['psnr'] > 0
    with Image.open(tmp_path / 'samples' / 'held_out_00000010.png') as picture:
      side = config.data.image_size
      assert picture.size == (3 * side + 2 * 2, 2 * side + 2)


def test_optimal_transport_uses_all_codes_of_a_codebook_that_collapses(tmp_path):
  training, held_out = {}, {}
  for name in ('vqgan', 'optvq'):
    config = demo(name)
    config.gan.weight = 0.0  # nor do they differ in that, and half a minute of compiling goes
    config.seed_codebook_batches = 0
    config.data.image_size = 32
    config.total_steps = config.eval_every = config.checkpoint_every = 120
    config.log_every, config.eval_images = 40, 54
    found, lines = run(config, tmp_path / name)
    held_out[name] = found['usage']
    training[name] = next(line['usage'] for line in lines if line['step'] == 120)
  assert training['optvq'] == 1
  assert held_out['optvq'] > 0.8  # by the nearest code
  assert training['vqgan'] < 0.5
  assert held_out['vqgan'] < 0.5


def test_each_rung_of_the_ladder_improves_on_the_one_before(tmp_path):
  # Not sync: by itself it makes no difference that shows through the seed's.
  found = {}
  for step in ('baseline', 'kmeans', 'affine', 'replacement'):
    config = demo('vqtorch', f'step={step}')
    config.batch_size, config.total_steps = 32, 150
    config.log_every = config.eval_every = config.checkpoint_every = 150
    found[step] = run(config, tmp_path / step)[0]
  for metric in ('psnr', 'usage'):
    values = [numbers[metric] for numbers in found.values()]
    assert all(b > a for a, b in itertools.pairwise(values)), found


def test_a_tenth_of_the_demo_is_far_above_the_mean_colour(tmp_path):
  """What users see first. By how much the whole demo must win is in benchmarks/demo.py."""
  config = demo('rot_vqgan')
  config.gan.weight, config.data.image_size = 0.0, 32  # for the time that it takes
  config.total_steps, config.log_every, config.sample_images = 300, 100, 1
  config.eval_every = config.checkpoint_every = 300
  found, _ = run(config, tmp_path)
  assert found['num_images'] == 54
  assert found['bits_per_pixel'] == 2
  assert found['usage'] > 0.5
  assert found['psnr'] > found['psnr_mean_color'] + 6
