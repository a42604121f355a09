"""Every tokenizer's config and argument, built at full size without computing anything.

Those of generators: test_generator_configs.py.
"""

import functools
import importlib
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from configs import common
from vqjax import tokenizer
from vqjax.errors import UserError
from vqjax.runs.folder import flatten
from vqjax.training import recipe as recipes

GENERATORS = {'llamagen_gpt', 'rar', 'halton_maskgit', 'maskgit_transformer'}
NAMES = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parent.parent / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common', 'generation', *GENERATORS)
)

NUM_EXAMPLES = 10_000  # of a training set, for what is in epochs

# Parameters of the discriminators.
PATCH2, PATCH3, STYLEGAN2, MASKGIT = 663_361, 2_765_633, 28_864_129, 23_998_017
# The original's ViT stores its positions, [tokens dim] in the encoder and in the decoder, which are
# computed here: parameters of the original minus `STORED * dim` are left.
STORED = 32 * 32

# Parameters of generator and discriminator, shape of the tokens and width of a latent, of an image
# of 256 x 256 pixels or of the data set's size.
VIT = {
  'small': 51_956_771 - STORED * (512 + 512),
  'base': 172_237_347 - STORED * (768 + 768),
  'large': 615_322_915 - STORED * (512 + 1280),
}
ROT_VQVAE = {
  ('cosine', '16x16x32'): (71_764_707, 0, (16, 16), 32),
  ('euclidean', '16x16x32'): (71_764_643, 0, (16, 16), 32),
  ('cosine', '64x64x3'): (55_298_182, 0, (64, 64), 3),
  ('euclidean', '64x64x3'): (55_298_182, 0, (64, 64), 3),
}
ESTIMATORS = ('rotation', 'straight_through')
STEPS = ('baseline', 'kmeans', 'sync', 'affine', 'replacement', 'alternating')
FULL_SIZE = {
  'rot_vqgan': {
    '': (55_322_782, PATCH3, (64, 64), 3),
    'latent=64x64x3': (55_322_782, PATCH3, (64, 64), 3),
    'latent=32x32x4': (67_717_295, PATCH2, (32, 32), 4),
  },
  'rot_vqvae': {
    '': ROT_VQVAE['cosine', '16x16x32'],
    **{
      f'codebook={codebook},latent={latent},estimator={estimator}': row
      for (codebook, latent), row in ROT_VQVAE.items()
      for estimator in ESTIMATORS
    },
  },
  'rot_vitvqgan': {
    '': (VIT['small'], STYLEGAN2, (32, 32), 32),
    **{
      f'size={size},estimator={estimator}': (VIT[size], STYLEGAN2, (32, 32), 32)
      for size, estimator in itertools.product(VIT, ESTIMATORS)
    },
  },
  'vqgan': {
    '': (72_141_699, PATCH3, (16, 16), 256),
    'model=imagenet_f16_1024': (72_141_699, PATCH3, (16, 16), 256),
    'model=imagenet_f16_16384': (76_073_859, PATCH2, (16, 16), 256),
    'model=f4': (55_322_782, PATCH3, (64, 64), 3),
    'model=f4_noattn': (53_219_486, PATCH3, (64, 64), 3),
    'model=f8': (67_717_295, PATCH2, (32, 32), 4),
    'model=f8_n256': (67_652_783, PATCH3, (32, 32), 4),
    'model=f16': (69_593_371, PATCH2, (16, 16), 8),
  },
  'optvq': {
    '': (72_932_291, PATCH3, (16, 16, 4), 256),
    'model=f16_h4,method=optvq': (72_932_291, PATCH3, (16, 16, 4), 256),
    'model=f16_h8': (72_404_899, PATCH3, (16, 16, 8), 256),
    'model=f32_h8': (100_732_835, PATCH3, (8, 8, 8), 256),
    'model=cifar10': (38_769, 0, (8, 8, 4), 8),
    'model=mnist': (38_191, 0, (8, 8, 4), 8),
    'method=vqbase': (72_932_291, PATCH3, (16, 16, 4), 256),
    'method=vqgan': (76_073_859, PATCH2, (16, 16, 1), 256),  # as taming's of 16384 codes
    # 1024 codes of width 8 and a map, where the above have 1024 of width 2 and a map.
    'model=cifar10,method=vqbase': (38_769 - 2_054 + 8_264, 0, (8, 8, 1), 8),
    'model=mnist,method=vqbase': (38_191 - 2_054 + 8_264, 0, (8, 8, 1), 8),
  },
  'llamagen': {
    '': (71_883_403, PATCH3, (16, 16), 8),
    'model=vq16': (71_883_403, PATCH3, (16, 16), 8),
    'model=vq8': (70_109_835, PATCH3, (32, 32), 8),
  },
  'maskgit': {'': (54_515_587, MASKGIT, (16, 16), 256)},
  'vqtorch': {
    '': (17_825, 0, (7, 7), 32),
    **{f'step={step}': (17_761, 0, (7, 7), 32) for step in ('baseline', 'kmeans', 'sync')},
    **{f'step={step}': (17_825, 0, (7, 7), 32) for step in ('affine', 'replacement')},
    'step=alternating': (17_761 - 256 * 32, 0, (7, 7), 32),  # no gradient moves its codebook
    'task=classifier,step=kmeans': (32_138, 0, (7, 7), 32),
    'task=classifier': (32_138 + 2 * 32, 0, (7, 7), 32),  # and the affine map
  },
}
IMAGE_SIZE = {('optvq', 'cifar10'): 32, ('optvq', 'mnist'): 32, ('vqtorch', None): 28}

# Tokens of an image.
DEMOS = {
  'rot_vqgan': {'latent=64x64x3': (32, 32), 'latent=32x32x4': (32, 32)},
  'rot_vqvae': {
    f'codebook={codebook},latent={latent},estimator={estimator}': tokens
    for codebook, (latent, tokens), estimator in itertools.product(
      ('cosine', 'euclidean'), {'16x16x32': (16, 16), '64x64x3': (32, 32)}.items(), ESTIMATORS
    )
  },
  'rot_vitvqgan': {f'estimator={estimator}': (16, 16) for estimator in ESTIMATORS},
  'vqgan': {
    **{f'model={name}': (16, 16) for name in ('imagenet_f16_1024', 'imagenet_f16_16384', 'f16')},
    **{f'model={name}': (16, 16) for name in ('f8', 'f8_n256')},
    **{f'model={name}': (32, 32) for name in ('f4', 'f4_noattn')},
  },
  'optvq': {
    'model=f16_h4': (16, 16, 4),
    'model=f16_h8': (16, 16, 8),
    'model=cifar10': (8, 8, 4),
    'model=mnist': (8, 8, 4),
    'method=vqbase': (16, 16, 4),
    'method=vqgan': (16, 16, 1),
  },
  'llamagen': {'model=vq16': (16, 16), 'model=vq8': (32, 32), 'data=digits': (4, 4)},
  'maskgit': {'': (16, 16)},
  'vqtorch': {
    f'task={task},step={step}': (4, 4)
    for task, step in itertools.product(('autoencoder', 'classifier'), STEPS)
  },
}


def rows(table):
  return [(name, arg, row) for name, args in table.items() for arg, row in args.items()]


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


def num_params(variables):
  return sum(x.size for x in jax.tree.leaves(variables.get('params', {})))


@functools.cache  # most configs have a network, or half of one, in common with another
def trace(module, shape, **kwargs):
  """What a module makes of zeros of this shape, and its parameters, without computing either."""
  init = lambda key, x: module.init_with_output({'params': key, 'vq': key}, x, **kwargs)
  with jax.numpy_dtype_promotion('standard'):  # flax's normalisation mixes dtypes in bfloat16
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    out, variables = jax.eval_shape(init, jax.random.key(0), x)
  return out, num_params(variables)


def abstract(config):
  """Parameters of generator and discriminator, and of one image the latents and tokens."""
  config.model.dtype = 'float32'  # has the same shapes, and is traced for others already
  recipe = recipes.build(config, NUM_EXAMPLES)
  model, size = recipe.tokenizer, config.data.image_size
  x, total = jax.ShapeDtypeStruct((1, size, size, model.channels), jnp.float32), 0
  for name in ('encoder', 'pre_quant', 'quantizer', 'post_quant', 'decoder'):
    if getattr(model, name) is not None:
      kwargs = {'train': False} if name == 'quantizer' else {}
      x, count = trace(getattr(model, name), x.shape, **kwargs)
      total += count
    if name == 'quantizer':
      quantized, x = x, x.z_q
  assert x.shape == ((1, 10) if model.classifies else (1, size, size, model.channels))
  judge = trace(recipe.gan.discriminator, x.shape)[1] if recipe.gan else 0
  return total, judge, quantized


@pytest.mark.parametrize(('name', 'arg', 'row'), rows(FULL_SIZE))
def test_full_size(name, arg, row):
  generator, discriminator, tokens, width = row
  config = get_config(name, arg)
  found = abstract(config)
  assert found[:2] == (generator, discriminator)
  assert found[2].indices.shape == (1, *tokens)
  assert found[2].z_q.shape == (1, *tokens[:2], width)
  small = [size for (n, part), size in IMAGE_SIZE.items() if n == name and (part or '') in arg]
  assert config.data.image_size == (small[0] if small else 256)


@pytest.mark.parametrize(('name', 'arg', 'tokens'), rows(DEMOS))
def test_demos(name, arg, tokens):
  config = get_config(name, f'demo,{arg}')
  generator, discriminator, quantized = abstract(config)
  assert generator + discriminator < 2_000_000
  assert quantized.indices.shape == (1, *tokens)
  digits = name == 'vqtorch' or any(part in arg for part in ('cifar10', 'mnist', 'digits'))
  assert config.data.source == ('digits' if digits else 'photos')
  assert config.loss.perceptual == 0  # no demo asks for weights that are not here
  assert config.name.endswith('_demo')
  # Minutes on two cores.
  assert recipes.total_steps(config) * config.batch_size * config.data.image_size**2 <= 70e6


def test_every_config_is_in_the_tables():
  assert set(FULL_SIZE) == set(DEMOS) == set(NAMES)


def test_names_differ():
  """The name is the run folder: two systems must not share one."""
  systems = {}
  for name, arg, _ in rows(FULL_SIZE):
    systems.setdefault(get_config(name, arg).name, set()).add(repr(get_config(name, arg)))
  assert all(len(same) == 1 for same in systems.values())
  demos = [get_config(name, f'demo,{arg}').name for name, arg, _ in rows(DEMOS)]
  assert len({*systems, *demos}) == len(systems) + len(demos)


def keys(section):
  """Names of all fields; a duration counts in any unit, a choice with settings as one field."""
  flat = flatten(section)
  plain = {re.sub(r'_(steps|epochs|examples|percent)$', '', name) for name in flat}
  return {re.sub(r'^(quantizer\.\w+)\..*', r'\1', name) for name in plain}


@pytest.mark.parametrize(
  ('name', 'arg'),
  [
    *((name, arg) for name, arg, _ in rows(FULL_SIZE)),
    *((name, f'demo,{arg}') for name, arg, _ in rows(DEMOS)),
  ],
)
def test_configs_have_the_fields_of_the_default(name, arg):
  """Another network or kind of quantizer has fields of its own, which `recipe.build` checks."""
  config, default = get_config(name, arg).to_dict(), common.default().to_dict()
  model, quantizer = config.pop('model'), config.pop('quantizer')
  default_model, default_quantizer = default.pop('model'), default.pop('quantizer')
  assert keys(config) == keys(default)
  if model['network'] == 'cnn':
    assert set(model) == set(default_model)
  assert set(tokenizer.FIELDS) <= set(model)
  assert set(default_quantizer) <= set(quantizer.get('base', quantizer))


@pytest.mark.parametrize(
  ('name', 'arg', 'part', 'legal'),
  [
    ('rot_vqgan', 'latent=8x8x8', 'latent=8x8x8', 'demo, latent=64x64x3|32x32x4'),
    ('rot_vqgan', 'demo=1', 'demo=1', 'demo, latent=64x64x3|32x32x4'),
    ('rot_vqgan', 'demo,codebook=cosine', 'codebook=cosine', 'demo, latent=64x64x3|32x32x4'),
    (
      'rot_vqvae',
      'estimator',
      'estimator',
      'demo, codebook=cosine|euclidean, latent=16x16x32|64x64x3, '
      'estimator=rotation|straight_through',
    ),
    ('maskgit', 'size=base', 'size=base', 'demo'),
    ('llamagen', 'model=f16', 'model=f16', 'demo, data=photos|digits, model=vq16|vq8'),
    (
      'rot_vitvqgan',
      'size=huge',
      'size=huge',
      'demo, size=small|base|large, estimator=rotation|straight_through',
    ),
    (
      'vqgan',
      'demo,f8',
      'f8',
      'demo, model=imagenet_f16_1024|imagenet_f16_16384|f4|f4_noattn|f8|f8_n256|f16',
    ),
    (
      'optvq',
      'method=sinkhorn',
      'method=sinkhorn',
      'demo, model=f16_h4|f16_h8|f32_h8|cifar10|mnist, method=optvq|vqbase|vqgan',
    ),
    (
      'vqtorch',
      'step=all',
      'step=all',
      'demo, task=autoencoder|classifier, step=affine|baseline|kmeans|sync|replacement|alternating',
    ),
  ],
)
def test_wrong_arguments(name, arg, part, legal):
  with pytest.raises(UserError) as error:
    get_config(name, arg)
  assert str(error.value) == (
    f'config argument {part!r} is unknown; legal, joined by commas: {legal}.'
  )


@pytest.mark.parametrize(
  ('arg', 'expected'),
  [
    (None, {'demo': False, 'size': 's', 'head': 'x'}),
    ('', {'demo': False, 'size': 's', 'head': 'x'}),
    ('demo', {'demo': True, 'size': 's', 'head': 'x'}),
    ('size=m', {'demo': False, 'size': 'm', 'head': 'x'}),
    ('head=y,demo,size=l', {'demo': True, 'size': 'l', 'head': 'y'}),
  ],
)
def test_parse_arg(arg, expected):
  chosen = common.parse_arg(arg, demo=False, size=('s', 'm', 'l'), head=('x', 'y'))
  assert chosen.to_dict() == expected
