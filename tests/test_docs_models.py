"""The guide to the published systems: its examples run, and its tables are what the code says."""

import functools
import importlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint
from ml_collections import ConfigDict
from PIL import Image

import vqjax
from vqjax import convert, tokenizer, weights
from vqjax.convert import __main__ as command
from vqjax.data import default_data
from vqjax.tokenize import tokenize
from vqjax.training import recipe as recipes

ROOT = pathlib.Path(__file__).parent.parent
GUIDE = (ROOT / 'docs' / 'models.md').read_text()
BLOCK = re.compile(r'^```python\n(.*?)^```', re.DOTALL | re.MULTILINE)
(PRELUDE, *EXAMPLES) = BLOCK.finditer(GUIDE)
TINY = 'tiny_ok' if 'tiny_ok' in CHECKPOINTS else 'ldm_vq_f4_a'


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  """Small files in the place of the guide's paths."""
  small, run = checkpoint(TINY)[0], tmp_path_factory.mktemp('runs') / 'run'
  command.convert(small, run)
  (optvq,) = (name for name in CHECKPOINTS if name.startswith('optvq_cifar10'))
  digits = ConfigDict({**default_data(), 'source': 'digits', 'image_size': 16})
  token_folder = run.parent / 'tokens'
  tokenize(vqjax.load(run), digits, token_folder, num_images=8, batch_size=8)
  image_folder = run.parent / 'images'
  image_folder.mkdir()
  for name in ('a', 'b'):
    Image.fromarray(np.full((64, 80, 3), 99, np.uint8)).save(image_folder / f'{name}.png')
  return {
    'checkpoint': small,
    'image_folder': image_folder,
    'optvq_checkpoint': checkpoint(optvq)[0],
    'run': run,
    'token_folder': token_folder,
  }


@pytest.mark.parametrize('block', EXAMPLES, ids=lambda block: f'line_{line(block)}')
def test_an_example_runs(block, paths):
  if 'weights.load' in block[1] and not weights.available('lpips_alex'):
    pytest.skip('needs: python -m vqjax.weights lpips')
  namespace = {'__name__': 'guide'}
  run(PRELUDE, namespace)
  namespace |= paths
  with jax.numpy_dtype_promotion('standard'):  # as JAX is when a user starts it
    run(block, namespace)


def line(block):
  return GUIDE.count('\n', 0, block.start(1)) + 1


def run(block, namespace):
  # As many empty lines as stand above the block: tracebacks then name the guide's own lines.
  source = '\n' * (line(block) - 1) + block[1]
  exec(compile(source, '<docs/models.md>', 'exec'), namespace)


def table(first):
  """Rows of the table whose head begins with the cells `first`, as lists of cells."""
  head = '| ' + ' | '.join(first) + ' |'
  _, _, below = GUIDE.partition(head)
  rows = below.split('\n\n')[0].splitlines()[2:]
  assert rows, head
  return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


SYSTEMS = table(('config', 'tokens', 'latent width'))
OBJECTIVES = table(('config', 'compares by'))


def config_of(cell):
  name, arg = re.fullmatch(r'`configs/(\w+)\.py(?::(.+))?`', cell).groups()
  return importlib.import_module(f'configs.{name}').get_config(arg)


@functools.cache  # most systems have a network, or half of one, in common with another
def traced(module, shape, **kwargs):
  """Shapes of what a module makes of zeros of this shape, and of its variables."""
  init = lambda key, x: module.init_with_output({'params': key, 'vq': key}, x, **kwargs)
  return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@functools.cache
def system(cell):
  """(config, tokenizer, shapes of its variables, what it encodes an image to)."""
  config = config_of(cell)
  config.model.dtype = 'float32'  # as a checkpoint is loaded; the shapes are those of bfloat16
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  size, variables = config.data.image_size, {}
  x = jax.ShapeDtypeStruct((1, size, size, model.channels), jnp.float32)
  for name in ('encoder', 'pre_quant', 'quantizer', 'post_quant', 'decoder'):
    if getattr(model, name) is not None:
      kwargs = {'train': True} if name == 'quantizer' else {}
      x, found = traced(getattr(model, name), x.shape, **kwargs)
      for collection, tree in found.items():
        variables.setdefault(collection, {})[name] = tree
    if name == 'quantizer':
      quantized, x = x, x.z_q
  return config, model, variables, quantized


def count(variables):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get('params', {})))


@pytest.mark.parametrize('row', SYSTEMS, ids=lambda row: row[0].strip('`'))
def test_sizes_are_those_of_the_code(row):
  config, model, variables, quantized = system(row[0])
  judge = 'none'
  if config.gan.weight:
    module, size = recipes.DISCRIMINATORS[config.gan.discriminator](config), config.data.image_size
    judge = f'{count(traced(module, (1, size, size, 3))[1]):,}'
  assert row[1:6] == [
    'x'.join(map(str, quantized.indices.shape[1:])),
    str(quantized.z_q.shape[-1]),
    f'{model.quantizer.num_codes:,}',
    f'{count(variables):,}',
    judge,
  ]


FORMATS = {row[0]: re.findall(r'`(\w+)`', row[6]) for row in SYSTEMS}


@pytest.mark.parametrize(
  ('cell', 'format'),
  [(cell, name) for cell, found in FORMATS.items() for name in found],
  ids=lambda part: part.strip('`'),
)
def test_a_checkpoint_of_a_system_is_of_its_format(cell, format):
  """Tensors of its network under the format's keys are recognised as just that network."""
  config, model, variables, _ = system(cell)
  family, fields = convert.FORMATS[format], config.model.to_dict()
  tensors = family.buffers(fields, config.data.image_size)
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    name = jax.tree_util.keystr(path[1:], simple=True, separator='/')
    # Length one tells the codes of a cosine codebook.
    unit = model.unit_latents and name == 'quantizer/codebook'
    value = np.float32(leaf.shape[-1] ** -0.5 if unit else 0)
    array = np.broadcast_to(value, leaf.shape)  # any size, in the memory of one number
    names = family.names(fields)
    tensors[names.key(name)] = names.to_theirs(name, array)
  published = convert.take_apart({'tensors': tensors}, cell)
  assert published.format == format
  other = tokenizer.build(published.model, published.quantizer)
  for field in ('encoder', 'decoder', 'pre_quant', 'post_quant', 'unit_latents', 'pixel_mean'):
    assert getattr(other, field) == getattr(model, field), field
  assert other.quantizer.num_codes == model.quantizer.num_codes
  for field in ('sphere', 'unit_input', 'commitment_weight', 'codebook_weight', 'assign'):
    assert getattr(other.quantizer.core, field) == getattr(model.quantizer.core, field), field


def test_every_format_has_its_rows():
  formats = [*convert.FORMATS]
  assert {name for found in FORMATS.values() for name in found} == {*formats} - {convert.OWN}
  for first in (('format', 'published by'), ('format', 'taken by')):
    assert sorted(row[0].strip('`') for row in table(first)) == sorted(formats)


def objective(config):
  """The cells of a config's objective."""
  loss, gan, core = config.loss, config.gan, config.quantizer
  core = core.get('base', core)
  terms = {name: loss[name] for name in ('l1', 'l2', 'cross_entropy')} | {'LPIPS': loss.perceptual}
  ema = core.learner != 'gradient'
  cells = [
    ', '.join(f'{name} {value:g}' for name, value in terms.items() if value),
    f'{core.commitment_weight:g}, ' + ('EMA' if ema else f'{core.codebook_weight:g}'),
  ]
  if not gan.weight:
    return [*cells, 'none', *[''] * 4]
  weight = '' if gan.discriminator_weight == 1 else f'{gan.discriminator_weight:g} '
  return [
    *cells,
    f'{gan.weight:g}' + (' adaptive' if gan.adaptive else ''),
    f'{weight}{gan.discriminator_loss}, {gan.generator_loss}',
    f'{gan.start_steps - gan.discriminator_lead_steps}, {gan.start_steps}',
    f'{gan.r1:g} every {gan.r1_every}' if gan.r1 else 'none',
    'fresh' if gan.fresh_reconstructions else 'reused',
  ]


@pytest.mark.parametrize('row', OBJECTIVES, ids=lambda row: row[0].strip('`'))
def test_an_objective_is_that_of_the_config(row):
  assert row[1:] == objective(config_of(row[0]))


def test_every_config_has_its_rows():
  shared = {'__init__', 'common', 'generation'}
  configs = {path.stem for path in (ROOT / 'configs').glob('*.py')} - shared
  made = {name: importlib.import_module(f'configs.{name}').get_config() for name in configs}
  configs = {name for name, config in made.items() if 'model' in config}  # generators: their guide
  for rows in (SYSTEMS, OBJECTIVES):
    assert {re.match(r'`configs/(\w+)', row[0])[1] for row in rows} == configs


def test_files_that_the_guide_names_exist():
  text = BLOCK.sub('', GUIDE)
  links = {f'docs/{link}' for link in re.findall(r'\]\((?!http|#)([^)#]+)', text)}
  files = set(re.findall(r'`((?:tests|configs|vqjax)/[\w/]+\.py)', text))
  assert links
  assert files
  assert not [name for name in links | files if not (ROOT / name).exists()]


def test_tolerances_are_those_of_the_golden_files():
  found = set()
  for path in ROOT.glob('tests/golden/checkpoints/*.json'):
    sidecar = json.loads(path.read_text())
    for key, rule in sidecar['arrays'].items():
      if key.startswith('indices'):
        found.add(('tokens', rule['exact']))
      elif key.startswith('rec'):
        table1 = ' of Table 1' * (sidecar['family'] == 'rotation_trick_table1')
        found.add((f'reconstructions{table1}', f'{rule["atol"]:.1e}'))
      elif key.startswith('grad') and 'vhp' not in key:  # the reference of that has bfloat16 in it
        found.add(('gradients', rule['tol_of_max']))
  assert found == {
    ('tokens', True),
    ('reconstructions', '2.0e-04'),
    ('reconstructions of Table 1', '3.3e-04'),
    ('gradients', 3e-4),
  }
