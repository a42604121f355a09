"""Who may import whom, read from the source."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'vqjax'

# Modules by floor; a package stands for everything in it. A file imports from floors below, from
# what stands before it on its own, and from its own package.
FLOORS = (
  ('errors', 'fields', 'whole_files', 'cache_folder', 'compilation', 'shipped', 'quantizers'),
  ('networks',),
  ('tokenizer', 'task', 'generation', 'sharding', 'tensor_files', 'runs', 'commands', 'data'),
  (
    'weights',
    'convert',
    'saved_models',
    'pretrained',
    'generator',
    'generator_sources',
    'evaluation',
  ),
  ('report', 'training'),
  (
    'compare',
    'export',
    'reconstruct',
    'tokenize',
    'generated',
    'generate',
    'convert.__main__',
    'weights.__main__',
  ),
  ('metrics', 'feature_statistics'),  # old names, for one release
  ('__main__',),
)
ORDER = [name for names in FLOORS for name in names]
FLOOR = {name: i for i, name in enumerate(ORDER)}

# Who may import a library; those that are not listed here are free, except to the quantizers.
DOORS = {
  'orbax': ('runs',),
  'tensorstore': ('runs',),
  'cv2': ('data',),
  'grain': ('data',),
  'tensorflow_datasets': ('data',),
  'array_record': ('data',),
  'msgpack': ('data', 'tensor_files'),
  'safetensors': ('weights', 'tensor_files', 'export'),
  'huggingface_hub': ('convert',),
  'simplejpeg': ('data',),
  'filelock': ('compilation',),
  'tensorboardX': ('runs',),
  'clu': ('runs',),
  'PIL': ('data', 'runs', 'evaluation', 'report', 'reconstruct', 'generated'),
  'matplotlib': ('report',),
  'ml_collections': (
    *('runs', 'commands', 'data', 'convert', 'saved_models', 'pretrained', 'evaluation'),
    *('generator', 'generator_sources', 'convert.__main__', 'training', 'tokenize'),
  ),
  'absl': ('commands',),
  'optax': ('training', 'quantizers'),
  'tensorflow': (),
  'torch': (),
}
QUANTIZERS_MAY = {'jax', 'numpy', 'flax', 'optax', 'vqjax'} | sys.stdlib_module_names

FILES = {
  '.'.join(('vqjax', *path.relative_to(ROOT).with_suffix('').parts)).removesuffix('.__init__'): path
  for path in sorted(ROOT.rglob('*.py'))
}


def top(module):
  """The part of `vqjax.part.file`, or a package's command; empty for vqjax itself."""
  parts = [*module.split('.'), '', '']
  return '.'.join(parts[1:3]) if parts[2] == '__main__' else parts[1]


def imported(name, tree):
  """Modules that a file imports, ours to the file, wherever in the file the import stands."""
  found = set()
  package = name if FILES[name].name == '__init__.py' else name.rpartition('.')[0]
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        parents = package.split('.')[: len(package.split('.')) - node.level + 1]
        base = '.'.join(parents + [base] * bool(base))
      for alias in node.names:
        full = f'{base}.{alias.name}'
        found.add(full if full in FILES else base)
  return found


TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
IMPORTS = {name: imported(name, tree) for name, tree in TREES.items()}


def test_every_file_stands_on_a_floor():
  assert 'vqjax.quantizers.ops' in FILES  # the reading itself works
  assert IMPORTS['vqjax.errors'] == set()
  assert IMPORTS['vqjax.training.state'] >= {'jax', 'vqjax.training.recipe'}
  assert {name for name in FILES if top(name) not in FLOOR} == {'vqjax'}
  assert set(FLOOR) == {top(name) for name in FILES} - {''}
  assert IMPORTS['vqjax'] == {'vqjax.pretrained', 'vqjax.generator_sources'}  # when asked for


def test_no_import_climbs():
  roof = FLOOR['tokenize']  # vqjax itself, for its version and `load`
  climbing = [
    f'{name} imports {other}'
    for name, others in IMPORTS.items()
    for other in others
    if top(name)
    and other.split('.')[0] == 'vqjax'
    and FLOOR.get(top(other), roof) > FLOOR[top(name)]
  ]
  assert not climbing


def test_no_import_goes_round():
  done, path = set(), []

  def visit(name):
    assert name not in path, f'imports go round: {" -> ".join([*path, name])}'
    if name not in done:
      path.append(name)
      for other in sorted(IMPORTS.get(name, ())):
        visit(other)
      path.pop()
      done.add(name)

  for name in FILES:
    visit(name)
  assert set(FILES) <= done


def test_every_library_has_its_door():
  strangers = []
  for name, others in IMPORTS.items():
    for library in {other.split('.')[0] for other in others}:
      if top(name) not in DOORS.get(library, (top(name),)):
        strangers.append(f'{name} imports {library}')
      if top(name) == 'quantizers' and library not in QUANTIZERS_MAY:
        strangers.append(f'{name} imports {library}')
  assert not strangers


def test_the_quantizers_need_nothing_else_of_ours():
  ours = {
    other
    for name in FILES
    if top(name) == 'quantizers'
    for other in IMPORTS[name]
    if other.startswith('vqjax') and not other.startswith('vqjax.quantizers')
  }
  assert not ours


def test_optimizer_chains_have_one_door():
  """Outside training/optimizer.py optax only applies updates and averages trees.

  The codebook's own optimizer, of an alternating learner, is built where quantizers are.
  """
  harmless = {'GradientTransformation', 'apply_updates', 'incremental_update', 'tree'}
  used = {
    (name, node.attr)
    for name, tree in TREES.items()
    if name != 'vqjax.training.optimizer'
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and getattr(node.value, 'id', '') == 'optax'
  }
  assert ('vqjax.training.state', 'apply_updates') in used
  own = {('vqjax.quantizers.optimizers', name) for name in ('sgd', 'adam')}
  assert not [use for use in used - own if use[1] not in harmless]
  members = [o for others in IMPORTS.values() for o in others if o.startswith('optax.')]
  from_optax = [
    name
    for name, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'optax'
  ]
  assert not members + from_optax


@pytest.mark.parametrize(
  ('module', 'absent'),
  [
    ('vqjax', 'jax flax numpy'),
    (
      'vqjax.quantizers',
      'tensorflow tensorflow_datasets grain orbax clu ml_collections torch tensorboardX PIL '
      'matplotlib',
    ),
  ],
)
def test_importing_one_layer_brings_no_data_stack(module, absent):
  code = (
    f'import sys, {module}\n'
    f'assert {module!r} in sys.modules\n'
    f'print(*[name for name in {absent.split()!r} if name in sys.modules])'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT.parent, check=False
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.split() == []
