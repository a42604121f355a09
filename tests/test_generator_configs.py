"""Every generator's config and argument, built at full size without computing anything."""

import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import pytest
from test_configs import GENERATORS

from configs import generation
from vqjax.errors import UserError
from vqjax.generation import build
from vqjax.runs.folder import flatten
from vqjax.training import optimizer
from vqjax.training import recipe as recipes

NUM_EXAMPLES = 1_281_167

# Codes of the tokenizer, and parameters as the originals have them, by argument.
GPT = {
  'b': 110_888_448,
  'l': 342_910_976,
  'xl': 774_699_520,
  'xxl': 1_410_972_672,
  '3b': 3_096_659_200,
}
HALTON = {
  ('tiny', 256): 23_031_425,
  ('tiny', 384): 23_154_305,
  ('small', 256): 69_344_769,
  ('small', 384): 69_508_609,
  ('base', 256): 142_224_641,
  ('base', 384): 142_470_401,
  ('large', 256): 479_656_961,
  ('large', 384): 479_984_641,
  ('xlarge', 256): 692_118_401,
  ('xlarge', 384): 692_487_041,
}
RAR = {'b': 260_923_648, 'l': 461_668_352, 'xl': 955_425_024, 'xxl': 1_498_520_704}
FULL_SIZE = {
  'llamagen_gpt': (
    16384,
    {
      '': GPT['b'],
      **{f'model={m},size={s}': n for (m, n), s in itertools.product(GPT.items(), (256, 384))},
    },
  ),
  'halton_maskgit': (
    16384,
    {'': HALTON['base', 256], **{f'model={m},size={s}': n for (m, s), n in HALTON.items()}},
  ),
  'maskgit_transformer': (
    1024,
    {'': 172_457_193, 'size=256': 172_457_193, 'size=512': 173_047_017},
  ),
  'rar': (1024, {'': RAR['b'], **{f'model={m}': n for m, n in RAR.items()}}),
}
ROWS = [(name, codes, *row) for name, (codes, args) in FULL_SIZE.items() for row in args.items()]
DEMOS = [(name, data) for name in FULL_SIZE for data in ('digits', 'photos')]


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


@functools.cache
def shapes(network):
  """Parameters of a network, as shapes."""
  symbols = jax.ShapeDtypeStruct((1, network.layout.length), jnp.int32)
  init = lambda key, symbols, labels: network.init(key, symbols, labels)
  labels = jax.ShapeDtypeStruct((1,), jnp.int32)
  return jax.eval_shape(init, jax.random.key(0), symbols, labels)['params']


def network_of(config, shape, codes):
  config.generator.dtype = 'float32'  # has the same parameters, and flax mixes dtypes otherwise
  section = config.generator.to_dict()
  return build.build(section, build.layout(section, shape, codes))


@pytest.mark.parametrize(('name', 'codes', 'arg', 'count'), ROWS)
def test_full_size(name, codes, arg, count):
  config = get_config(name, arg)
  side = config.data.image_size // 16
  network = network_of(config, (side, side), codes)
  params = shapes(network)
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  build.build_sampler(config.sampler.to_dict(), config.generator.network)
  objective = build.build_objective(config.objective.to_dict(), config.generator.network)
  assert network.has_null or not objective.label_drop
  total = recipes.total_steps(config, NUM_EXAMPLES)
  transformation, _ = optimizer.build(
    config.optimizer, batch_size=config.batch_size, num_examples=NUM_EXAMPLES, total_steps=total
  )
  # Patterns of what is not decayed fit the parameters.
  jax.eval_shape(transformation.init, params)


@pytest.mark.parametrize(('name', 'data'), DEMOS)
def test_demos(name, data):
  config = get_config(name, f'demo,data={data}')
  shape, codes = ((4, 4), 256) if data == 'digits' else ((16, 16), 1024)
  network = network_of(config, shape, codes)
  assert sum(x.size for x in jax.tree.leaves(shapes(network))) < 3_000_000
  assert config.data.source == data
  assert config.tokenizer == ('photos' if data == 'photos' else generation.DIGITS_TOKENIZER)
  assert config.generator.num_classes == (10 if data == 'digits' else 0)
  assert config.name.endswith('_demo')
  assert config.sampler.get('steps', 1) <= network.layout.length
  tokenizer = get_config('llamagen', 'demo,data=digits')
  assert f'runs/{tokenizer.name}' == generation.DIGITS_TOKENIZER


@pytest.mark.parametrize('name', ['halton_maskgit', 'maskgit_transformer'])
@pytest.mark.parametrize('sampler', ['halton', 'confidence', 'maskgit'])
def test_masked_networks_take_any_masked_sampler(name, sampler):
  for arg in (f'sampler={sampler}', f'demo,sampler={sampler}'):
    config = get_config(name, arg)
    assert config.sampler.name == sampler
    found = build.build_sampler(config.sampler.to_dict(), config.generator.network)
    assert isinstance(found, build.SAMPLERS[sampler])


def test_every_generator_is_in_the_tables():
  assert set(FULL_SIZE) == GENERATORS


def test_names_differ():
  systems = {get_config(name, arg).name for name, _, arg, _ in ROWS if arg}
  demos = {get_config(name, f'demo,data={data}').name for name, data in DEMOS}
  assert len(systems | demos) == len([row for row in ROWS if row[2]]) + len(DEMOS)


def test_all_have_the_same_fields():
  """But for those of their own networks, samplers and objectives."""
  parts = ('generator', 'sampler', 'objective')

  def keys(name):
    config = get_config(name).to_dict()
    fields = flatten({part: value for part, value in config.items() if part not in parts})
    ends = ('_steps', '_epochs', '_percent')
    cut = lambda key: next((key.removesuffix(end) for end in ends if key.endswith(end)), key)
    return {cut(key) for key in fields}

  assert len({frozenset(keys(name)) for name in FULL_SIZE}) == 1


@pytest.mark.parametrize(
  ('name', 'arg', 'legal'),
  [
    ('llamagen_gpt', 'model=7b', 'demo, data=digits|photos, model=b|l|xl|xxl|3b, size=256|384'),
    (
      'halton_maskgit',
      'size=512',
      'demo, data=digits|photos, model=base|tiny|small|large|xlarge, size=256|384, '
      'sampler=halton|confidence|maskgit',
    ),
    (
      'maskgit_transformer',
      'data=faces',
      'demo, data=digits|photos, size=256|512, sampler=maskgit|halton|confidence',
    ),
    ('rar', 'model=s', 'demo, data=digits|photos, model=b|l|xl|xxl'),
  ],
)
def test_wrong_arguments(name, arg, legal):
  with pytest.raises(UserError) as error:
    get_config(name, arg)
  assert str(error.value) == (
    f'config argument {arg!r} is unknown; legal, joined by commas: {legal}.'
  )
