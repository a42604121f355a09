"""What the code imports is declared, and what the documents say to install brings it."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
STACK = (
  *('jax', 'flax', 'optax', 'orbax-checkpoint'),
  *('tensorflow-datasets', 'grain', 'ml_collections', 'clu'),
)
# What imports it: the extras that declare it, beside the dependencies that everybody has.
LAYERS = ('vqjax/errors.py', 'vqjax/quantizers', 'vqjax/networks')
DECLARED = {
  LAYERS: (),
  ('vqjax', 'configs', 'train.py', 'eval.py'): ('train',),
  ('examples',): ('examples',),
  ('benchmarks',): ('train',),
  ('tests',): ('train', 'test', 'examples'),
}


def distribution(requirement):
  """`scikit_image>=0.26  # why` -> `scikit-image`, without extras, bounds and comments."""
  return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]*', requirement)[0]).lower()


def lines(name):
  text = re.sub(r'#.*', '', (ROOT / name).read_text())
  return [line.strip() for line in text.splitlines() if line.strip()]


def third_party(place):
  """{(file, distributions that bring what it imports)}, without ours and Python's own."""
  path = ROOT / place
  providers = importlib.metadata.packages_distributions()
  ours = {p.stem for folder in (ROOT, ROOT / 'tests') for p in folder.iterdir()}
  found = set()
  for file in [path] if path.is_file() else sorted(path.rglob('*.py')):
    beside = {p.stem for p in file.parent.iterdir()}
    for node in ast.walk(ast.parse(file.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      if isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
      for name in {name.split('.')[0] for name in names} - sys.stdlib_module_names - ours - beside:
        distributions = frozenset(map(distribution, providers.get(name, [name])))
        found.add((file.relative_to(ROOT).as_posix(), distributions))
  return found


@pytest.mark.parametrize(('places', 'extras'), DECLARED.items())
def test_what_is_imported_is_declared(places, extras):
  declared = {*PROJECT['dependencies']}
  for extra in extras:
    declared.update(PROJECT['optional-dependencies'][extra])
  if 'benchmarks' in places:
    declared.update(lines('benchmarks/requirements.txt'))
  declared = set(map(distribution, declared))
  imported = set().union(*map(third_party, places))
  assert imported
  assert {(file, names) for file, names in imported if not names & declared} == set()


def test_requirement_files_install_the_extra_of_the_programs():
  assert lines('requirements-cpu.txt') == ['-e .[train]']
  assert lines('requirements.txt') == ['-e .[train,cuda12]']


def test_the_packages_of_the_stack_are_declared():
  """And named where somebody looks for them who wants to know what will be installed."""
  extras = PROJECT['optional-dependencies']
  declared = {*map(distribution, PROJECT['dependencies']), *map(distribution, extras['train'])}
  assert set(map(distribution, STACK)) <= declared
  assert extras['cuda12'] == ['jax[cuda12]']
  text = (ROOT / 'requirements.txt').read_text()
  assert not [name for name in (*STACK, 'jax[cuda12]') if name not in text]
