"""A config.json that somebody edited: it loads, or one sentence says what is wrong with it."""

import copy
import json
import random

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import vqjax
from vqjax import convert, saved_models, tokenizer
from vqjax.data import READING, choose_images, default_data
from vqjax.errors import UserError
from vqjax.evaluation import run as evaluation
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.folder import open_run

GARBAGE = {'a': [{'b': [None, 1e400]}, 'c'], 'name': {'name': []}}
EDITS = {
  'another type': lambda old: 'text' if not isinstance(old, str) else 7,
  'null': lambda old: None,
  'huge': lambda old: 10**30,
  'huge number of JAX': lambda old: 2**31 - 1,
  'negative': lambda old: -3,
  'zero': lambda old: 0,
  'a fraction': lambda old: 2.5,
  'not a number': lambda old: float('nan'),
  'infinite': lambda old: float('inf'),
  'true': lambda old: True,
  'an empty list': lambda old: [],
  'an empty dict': lambda old: {},
  'an unknown name': lambda old: 'no such name',
  'a list of it': lambda old: [old, [old]],
  'nested garbage': lambda old: GARBAGE,
}
MODEL = {
  'network': 'edsr',
  'channels': 4,
  'num_blocks': 1,
  'patch_size': 2,
  'z_channels': 4,
  'code_dim': 4,
  'head': 'linear',
  'unit_latents': False,
  'norm_groups': 2,
  'dtype': 'float32',
  'pixel_mean': [0.5, 0.5, 0.5],
  'pixel_std': [0.5, 0.5, 0.5],
}
QUANTIZER = {
  'name': 'residual',
  'depth': 2,
  'base': {
    'num_codes': 4,
    'estimator': {'name': 'rotation'},
    'learner': {'name': 'ema', 'decay': 0.9},
    'replacement': {'name': 'least_recent'},
    'assign': 'nearest',
    'eval_assign': 'nearest',
    'regularizers': ['entropy'],
    'commitment_weight': 0.25,
  },
}
CONFIG = {
  'name': 'edited',
  'batch_size': 8,
  'accumulate': 1,
  'ema_decay': 0.0,
  'mesh': {'data': -1, 'fsdp': 1},
  'loss': {'l1': 0.0, 'l2': 1.0, 'perceptual_net': 'vgg'},
  'model': MODEL,
  'quantizer': QUANTIZER,
  'data': {**default_data(), 'source': 'digits', 'image_size': 8},
}


def paths(fields, before=()):
  """Of every field, parts among them."""
  for name, value in fields.items():
    yield (*before, name)
    if isinstance(value, dict):
      yield from paths(value, (*before, name))


ALL = [
  ('/'.join(path), edit)
  for path in paths(json.loads(json.dumps(CONFIG)))
  for edit in (*EDITS, 'left out')
]
SOME = random.Random(0).sample(ALL, 120)


def edited(path, edit):
  """The config with one edit."""
  config = json.loads(json.dumps(CONFIG))
  *parents, name = path.split('/')
  part = config
  for parent in parents:
    part = part[parent]
  if edit == 'left out':
    del part[name]
  else:
    part[name] = copy.deepcopy(EDITS[edit](part[name]))
  return config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A run with a checkpoint."""
  path, _ = open_run(tmp_path_factory.mktemp('run'), ConfigDict(CONFIG))
  model = tokenizer.build(MODEL, QUANTIZER)
  abstract = convert.abstract_variables(model, path)
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
  params = variables.pop('params')
  with Checkpoints(path / 'checkpoints') as checkpoints:
    checkpoints.save(0, {'generator': {'params': params, 'variables': variables}}, {'config': {}})
  return path


def loaded(folder):
  vqjax.load(folder)


def evaluated(folder):
  """As eval.py does, up to where the weights are read."""
  path, config = saved_models.read_run(folder, data=True)
  choose_images(config.data, None)
  evaluation.evaluate_run(config, path, quick=True, baselines=False)


def resumed(folder):
  open_run(folder, ConfigDict(CONFIG), write=False)


def sentence(use, folder, config):
  """What is said about an edited config; '' if nothing is."""
  (folder / 'config.json').write_text(json.dumps(config))
  try:
    use(folder)
  except UserError as error:
    return str(error)
  return ''


@pytest.fixture
def without_weights(monkeypatch):
  def reached(*_, **__):
    raise UserError('reached')

  monkeypatch.setattr(saved_models, 'read_variables', reached)


@pytest.mark.parametrize(('path', 'edit'), SOME)
def test_an_edit_loads_or_is_one_sentence(folder, path, edit):
  said = sentence(loaded, folder, edited(path, edit))
  # Which arrays are others is a list by design.
  assert said.isprintable() or 'does not fit this config' in said


@pytest.mark.parametrize(
  ('path', 'edit', 'message'),
  [
    ('model', 'left out', r'config\.model is missing'),
    ('model/channels', 'another type', r"model\.channels is 'text'; legal: a whole number"),
    ('model/num_blocks', 'huge number of JAX', r'num_blocks is 2147483647; legal: at most 1000'),
    ('model/channels', 'negative', 'describes a network that cannot be built'),
    ('model/network', 'an unknown name', "network is 'no such name'; legal: cnn"),
    ('model/pixel_mean', 'an empty list', r'pixel_mean is \(\)'),
    ('quantizer', 'null', r'config\.quantizer is None; legal: a dict of fields'),
    ('quantizer/depth', 'huge', r'quantizer\.depth is 10+; legal: a whole number'),
    ('ema_decay', 'not a number', r'ema_decay is nan; legal: a number'),
    ('mesh/fsdp', 'null', r'mesh\.fsdp is None; legal: a whole number'),
    ('data/image_size', 'a fraction', r'data\.image_size is 2\.5; legal: a whole number'),
    (
      'data/train/scale',
      'nested garbage',
      r'data\.train\.scale is .*; legal: a list, each a number',
    ),
  ],
)
def test_the_sentence_names_the_field(folder, path, edit, message):
  with pytest.raises(UserError, match=message):
    raise UserError(sentence(loaded, folder, edited(path, edit)))


@pytest.mark.parametrize(('path', 'edit'), SOME)
def test_evaluation_begins_or_is_one_sentence(folder, without_weights, path, edit):
  assert sentence(evaluated, folder, edited(path, edit))


@pytest.mark.parametrize(('path', 'edit'), SOME[::4])
def test_a_run_does_not_go_on_with_another_config(folder, path, edit):
  said = sentence(resumed, folder, edited(path, edit))
  assert 'belongs to a run with another config' in said or not said


@pytest.mark.parametrize('name', READING)
def test_a_run_of_before_there_was_a_field_of_reading(folder, without_weights, name):
  config = edited(f'data/{name}', 'left out')
  with pytest.raises(UserError, match=r'^reached$'):
    raise UserError(sentence(evaluated, folder, config))
  assert saved_models.read_run(folder)[1].data[name] == CONFIG['data'][name]
