"""Fine-tuning: a run starts from weights that exist."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint
from ml_collections import ConfigDict

import train
import vqjax
from configs import common
from vqjax import convert
from vqjax.errors import UserError
from vqjax.runs.folder import flatten
from vqjax.training import recipe as recipes
from vqjax.training import state
from vqjax.training.warm_start import warm_start

PATCHGAN = next(name for name in CHECKPOINTS if name.startswith('taming'))
STYLEGAN = next(name for name in CHECKPOINTS if name.startswith('vitvq'))
TINY = 'tiny_ok' if 'tiny_ok' in CHECKPOINTS else 'ldm_vq_f4_a'


def config_of(path):
  """A config for the network of a published checkpoint."""
  published = convert.open_published(path)
  config = common.default()
  config.name = 'fine_tuned'
  config.batch_size = 8
  config.total_steps = 2
  config.loss.l1 = 1.0
  config.optimizer.learning_rate = 1e-3
  config.model = ConfigDict(published.model)
  config.quantizer.update(published.quantizer)
  return config


def abstract_state(recipe, size):
  create = functools.partial(state.create, recipe, image_shape=(8, size, size, 3))
  return jax.eval_shape(create, jax.random.key(0))


@pytest.mark.parametrize(
  ('name', 'gan', 'size', 'pairs'),
  [
    (
      PATCHGAN,
      {'channels': 4, 'num_layers': 3},
      32,
      {
        'main.0.weight': ('params', 'conv_0', 'kernel'),
        'main.3.weight': ('params', 'norm_1', 'scale'),
        'main.3.running_var': ('batch_stats', 'norm_1', 'var'),
        'main.11.bias': ('params', 'conv_4', 'bias'),
      },
    ),
    (
      STYLEGAN,
      {'discriminator': 'stylegan2'},
      32,
      {
        'blocks.0.0.weight': ('params', 'block_0', 'kernel'),
        'blocks.2.conv2.1.weight': ('params', 'block_2', 'conv2', 'kernel'),
        'final_linear.0.weight': ('params', 'final_linear_0', 'kernel'),
      },
    ),
  ],
)
def test_discriminators_come_along(name, gan, size, pairs):
  path, _, _ = checkpoint(name)
  published = convert.open_published(path)
  config = config_of(path)
  config.gan.weight = 0.5
  config.gan.lecam = 0.1
  config.gan.update(gan)
  config.data.image_size = size
  if 'discriminator' in gan:
    widths = [
      published.discriminator[f'blocks.{i}.{part}.weight'].shape[0]
      for i, part in ((0, '0'), (1, 'conv2.1'), (2, 'conv2.1'), (3, 'conv2.1'))
    ]
    config.gan.channels = widths[0]
  recipe = recipes.build(config)
  if 'discriminator' in gan:  # the small file's own widths
    module = type(recipe.gan.discriminator)(widths=tuple(widths))
    recipe = dataclasses.replace(recipe, gan=dataclasses.replace(recipe.gan, discriminator=module))
  now = warm_start(recipe, abstract_state(recipe, size), path, discriminator=True)
  network = {'params': now.discriminator.params, **now.discriminator.variables}
  assert jax.tree.structure(now) == jax.tree.structure(abstract_state(recipe, size))
  for key, where in pairs.items():
    ours, theirs = network, published.discriminator[key]
    for part in where:
      ours = ours[part]
    axes = (*range(2, theirs.ndim), 1, 0) if where[-1] == 'kernel' else range(theirs.ndim)
    theirs = theirs.transpose(*axes)
    np.testing.assert_array_equal(ours, theirs.reshape(np.shape(ours)))


@pytest.mark.usefixtures('one_device')
def test_a_run_goes_on_from_published_weights(tmp_path):
  path, _, _ = checkpoint(TINY)
  config = config_of(path)
  config.init_from = str(path)
  config.ema_decay = 0.5
  config.optimizer.freeze = ('encoder/*', 'pre_quant/*')
  config.data.source = 'photos'
  config.data.image_size = 16
  config.eval_images = config.sample_images = 4
  train.train(config, tmp_path / 'run')
  before, after = vqjax.load(path).variables['params'], vqjax.load(tmp_path / 'run')
  after = after.variables['params']
  for part in ('encoder', 'pre_quant'):
    jax.tree.map(np.testing.assert_array_equal, before[part], after[part])
  moved = np.abs(before['decoder']['conv_out']['kernel'] - after['decoder']['conv_out']['kernel'])
  assert 0 < moved.max() < 3e-3
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert np.isfinite(json.loads(lines[0])['loss'])

  # From our own run, whose average has moved; and what cannot be had from it.
  recipe = recipes.build(config)
  now = warm_start(recipe, abstract_state(recipe, 16), tmp_path / 'run')
  jax.tree.map(np.testing.assert_array_equal, now.generator.params, after)
  jax.tree.map(np.testing.assert_array_equal, now.ema, after)
  config.gan.weight = 0.5
  recipe = recipes.build(config)
  with pytest.raises(UserError, match=r'does not fit this config.*\n.*missing: discriminator'):
    warm_start(recipe, abstract_state(recipe, 16), tmp_path / 'run', discriminator=True)


def test_what_does_not_fit_is_refused():
  path, _, _ = checkpoint(TINY)
  config = config_of(path)
  recipe = recipes.build(config)
  with pytest.raises(UserError, match=r'init_discriminator is True, but config\.gan\.weight is 0'):
    warm_start(recipe, abstract_state(recipe, 16), path, discriminator=True)
  config.gan.weight = 0.5
  recipe = recipes.build(config)
  with pytest.raises(UserError, match=r'has no discriminator; set --config\.init_discriminator=Fa'):
    warm_start(recipe, abstract_state(recipe, 16), path, discriminator=True)
  config.quantizer.num_codes *= 2
  recipe = recipes.build(config)
  with pytest.raises(UserError, match=r'different: quantize\.embedding\.weight is \['):
    warm_start(recipe, abstract_state(recipe, 16), path)
  config.init_from, config.seed_codebook_batches = str(path), 2
  with pytest.raises(UserError, match=r'which brings its own codebook; set the first to 0'):
    recipes.build(config)
  assert flatten(config)['init_from'] == str(path)
