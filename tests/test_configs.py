"""Every config and argument, built at full size without computing anything."""

import functools
import importlib
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from configs import common
from vqjax import recipe, run_folder, state
from vqjax.errors import UserError

NAMES = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parent.parent / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common')
)

# Parameters of generator and discriminator, and the latent [h w D] of a 256-pixel image.
FULL_SIZE = {
  ('rot_vqgan', ''): (55_322_782, 2_765_633, (64, 64, 3)),
  ('rot_vqgan', 'latent=64x64x3'): (55_322_782, 2_765_633, (64, 64, 3)),
  ('rot_vqgan', 'latent=32x32x4'): (67_717_295, 663_361, (32, 32, 4)),
  ('rot_vqvae', ''): (71_764_707, 0, (16, 16, 32)),
  ('rot_vqvae', 'estimator=straight_through'): (71_764_707, 0, (16, 16, 32)),
  ('rot_vqvae', 'codebook=euclidean,estimator=rotation'): (71_764_643, 0, (16, 16, 32)),
  ('rot_vqvae', 'codebook=euclidean,estimator=straight_through'): (71_764_643, 0, (16, 16, 32)),
  ('rot_vqvae', 'latent=64x64x3'): (55_298_182, 0, (64, 64, 3)),
  ('rot_vqvae', 'latent=64x64x3,estimator=straight_through'): (55_298_182, 0, (64, 64, 3)),
  ('rot_vqvae', 'latent=64x64x3,codebook=euclidean'): (55_298_182, 0, (64, 64, 3)),
  ('rot_vqvae', 'latent=64x64x3,codebook=euclidean,estimator=straight_through'): (
    *(55_298_182, 0),
    (64, 64, 3),
  ),
}
DEMOS = [
  *(('rot_vqgan', f'demo,latent={latent}') for latent in ('64x64x3', '32x32x4')),
  *(
    ('rot_vqvae', f'demo,codebook={codebook},latent={latent},estimator={estimator}')
    for codebook, latent, estimator in itertools.product(
      ('cosine', 'euclidean'), ('16x16x32', '64x64x3'), ('rotation', 'straight_through')
    )
  ),
]
DEMO_LATENTS = {
  '64x64x3': (32, 32, 3),
  '32x32x4': (32, 32, 4),
  '16x16x32': (16, 16, 8),
}


def num_params(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


def build(name, arg):
  config = get_config(name, arg)
  config.loss.perceptual = 0.0
  return config, recipe.build(config)


def abstract(plan, size):
  """Shapes of the whole state, and of what `encode` returns for one image."""
  shape = (1, size, size, 3)
  create = functools.partial(state.create, plan, image_shape=shape)
  encode = functools.partial(plan.tokenizer.apply, method='encode')
  with jax.numpy_dtype_promotion('standard'):  # flax's normalisation mixes dtypes in bfloat16
    now = jax.eval_shape(create, jax.random.key(0))
    variables = {'params': now.generator.params, **now.generator.variables}
    return now, jax.eval_shape(encode, variables, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize(('name', 'arg'), FULL_SIZE)
def test_full_size(name, arg):
  generator, discriminator, latent = FULL_SIZE[name, arg]
  config, plan = build(name, arg)
  now, encoded = abstract(plan, config.data.image_size)
  assert config.data.image_size == 256
  assert num_params(now.generator.params) == generator
  assert (num_params(now.discriminator.params) if now.discriminator else 0) == discriminator
  assert encoded.z_q.shape == (1, *latent)
  assert encoded.indices.shape == (1, *latent[:-1])
  assert (plan.tokenizer.quantizer.learner is None) == (name == 'rot_vqgan')
  estimator = config.quantizer.estimator
  assert re.search(r'estimator=(\w+)', f'{arg},estimator={estimator}')[1] == estimator


@pytest.mark.parametrize(('name', 'arg'), DEMOS)
def test_demos(name, arg):
  config = get_config(name, arg)
  plan = recipe.build(config)  # as it is: no demo asks for weights that are not here
  now, encoded = abstract(plan, config.data.image_size)
  assert num_params(now.generator.params) < 2_000_000
  assert encoded.z_q.shape == (1, *DEMO_LATENTS[re.search(r'latent=(\w+)', arg)[1]])
  assert config.data.source == 'photos'
  assert config.name.endswith('_demo')
  assert recipe.total_steps(config) * config.batch_size <= 10_000  # minutes on two cores


def test_every_config_is_in_the_tables():
  assert {name for name, _ in FULL_SIZE} == {name for name, _ in DEMOS} == set(NAMES)


def test_names_differ():
  """The name is the run folder: two systems must not share one."""
  distinct = {(name, FULL_SIZE[name, arg], repr(get_config(name, arg))) for name, arg in FULL_SIZE}
  names = {get_config(name, arg).name for name, arg in (*FULL_SIZE, *DEMOS)}
  assert len(names) == len(distinct) + len(DEMOS)


def keys(config):
  """Names of all fields; a duration counts in any unit, a choice with settings as one field."""
  flat = run_folder.flatten(config)
  plain = {re.sub(r'_(steps|epochs|examples|percent)$', '', name) for name in flat}
  return {re.sub(r'^(quantizer\.\w+)\..*', r'\1', name) for name in plain}


@pytest.mark.parametrize(('name', 'arg'), [*FULL_SIZE, *DEMOS])
def test_configs_have_the_fields_of_the_default(name, arg):
  assert keys(get_config(name, arg)) == keys(common.default())


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


def test_the_perceptual_term_says_what_it_lacks():
  with pytest.raises(UserError) as error:
    recipe.build(get_config('rot_vqgan'))
  assert str(error.value) == (
    'config.loss.perceptual is 1.0 and needs the LPIPS network with its VGG16 weights, which are '
    'not here; train without the term by --config.loss.perceptual=0.'
  )
