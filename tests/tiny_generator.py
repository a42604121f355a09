"""A small generator of no particular images, in a run folder."""

import jax
import ml_collections
import numpy as np

from configs import rot_vqvae
from vqjax import convert, pretrained, saved_models, tokenizer
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.folder import open_run

SAMPLERS = {
  'halton_maskgit': {'name': 'halton', 'steps': 4, 'guidance': 2.0},
  'maskgit': {'name': 'maskgit', 'steps': 4},
}


def config_of(tok, network='halton_maskgit', *, num_classes=3, image_size=16, **fields):
  """The config of a run on the tokens of a tokenizer, which is loaded already."""
  return ml_collections.ConfigDict(
    {
      'name': 'tiny',
      'generator': {
        **{'network': network, 'num_classes': num_classes, 'digits': 1, 'dtype': 'float32'},
        **{'width': 16, 'depth': 1, 'heads': 2, **fields},
      },
      'sampler': SAMPLERS[network],
      'tokenizer': tok.source,
      'tokens': {
        'shape': tok.token_shape(image_size, image_size),
        'num_codes': tok.model.quantizer.num_codes,
        'weights_sha256': tok.weights_sha256,
        'step': 0,
      },
    }
  )


def write_run(path, config, *, seed=0):
  """Writes the run folder, of random weights with which every class has images of its own."""
  model = saved_models.build_generator(config)
  rng = np.random.default_rng(seed)
  draw = lambda x: rng.normal(0, 0.5, x.shape).astype(x.dtype)
  params = jax.tree.map(draw, convert.abstract_variables(model, path)['params'])
  open_run(path, config)
  with Checkpoints(path / 'checkpoints') as checkpoints:
    checkpoints.save(0, {'generator': {'params': params}}, {})
  return path


def tokenizer_of(num_codes):
  """A small tokenizer of so many codes and of 4x4 pixels a token, as training begins with it."""
  config = rot_vqvae.get_config('demo')
  config.quantizer.num_codes = num_codes
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  assert model.downsample == 4
  return pretrained.Pretrained(model, convert.initial_variables(model)(), config, 'fresh')
