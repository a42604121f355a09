"""What the documents say to type exists, and the README's examples run."""

import importlib
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from configs import common
from vqjax.__main__ import MODULES
from vqjax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
DOCUMENTS = (
  'README.md',
  'docs/models.md',
  'docs/evaluation.md',
  'docs/evidence.md',
  'docs/generation.md',
  'docs/reliability.md',
  'studies/README.md',
)
COMMANDS = re.compile(r'\bpython ((?:-m )?[\w./]+)([^&`\n]*)')
SHARED = ('__init__', 'common', 'generation')  # no config of its own
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in SHARED)


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


def test_the_tokenizer_example_runs(tmp_path, monkeypatch):
  """In a folder with a photograph of the name that it uses."""
  section = README.split('## Using a trained tokenizer')[1].split('\n## ')[0]
  (source,) = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
  monkeypatch.chdir(tmp_path)
  noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
  Image.fromarray(noise).save('photo.jpg')
  names = {}
  exec(compile(source, 'README.md', 'exec'), names)
  assert names['tokens'].shape == (1, 48, 64)
  assert np.asarray(Image.open('again.png')).shape == (192, 256, 3)


def test_files_and_links_exist():
  for name in re.findall(r'\]\(([^)]+)\)|`((?:vqjax|configs)/[\w/.]+)`', README):
    assert (ROOT / (name[0] or name[1]).partition('#')[0]).exists(), name


def test_ci_runs_the_two_commands(tmp_path):
  """As they stand here, before anything else is installed; programs that only say their names."""
  section = README.split('## Two commands\n')[1].split('\n## ')[0]
  commands = re.findall(r'^    (.*)$', section, re.MULTILINE)
  demo, tests = (command.split(' && ') for command in commands)
  for name in ('python', 'ruff', 'mypy', 'chromium'):
    program = tmp_path / name
    venv = 'if [ "$2" = venv ]; then mkdir -p "$3/bin" && touch "$3/bin/activate"; fi'
    program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/said\n{venv}\n')
    program.chmod(0o755)
  env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python'}
  subprocess.run([ROOT / '.ci/run'], env=env, check=True, capture_output=True)
  said = [line.strip() for line in (tmp_path / 'said').read_text().splitlines()]
  assert said[0].startswith('python -m venv ')
  assert said[1] == demo[0]
  assert said[2].startswith(f'{demo[1]} --config.total_steps=')
  assert said[3:5] == [command.replace("'", '') for command in tests]
  assert {'ruff check', 'ruff format --check', 'mypy'} <= set(said[5:])


@pytest.mark.parametrize('document', DOCUMENTS)
def test_configs_arguments_and_fields_exist(document):
  text = (ROOT / document).read_text()
  for name, arg in re.findall(r'configs/([a-z]\w+)\.py(?::([a-z][\w=,]*))?', text):
    if name not in SHARED:
      get_config(name, arg)
  known = [common.default(), *map(get_config, CONFIGS)]
  for field in re.findall(r'--config\.([a-z][\w.]*\w)', text):
    assert any(_has(config, field) for config in known), field


def _has(config, field):
  for name in field.split('.'):
    if name not in config:
      return False
    config = config[name]
  return True


@pytest.mark.parametrize('document', DOCUMENTS)
def test_options_of_our_programs_exist(document):
  commands = COMMANDS.findall((ROOT / document).read_text())
  assert commands
  for program, options in commands:
    module = program.removeprefix('-m ')
    path = module if module == program else module.replace('.', '/')
    files = [
      file for end in ('', '.py', '/__main__.py') if (file := ROOT / f'{path}{end}').is_file()
    ]
    if module in ('pip', 'pytest', 'venv'):
      continue
    assert files, program
    for option in re.findall(r'--(\w+)', options):
      assert re.search(rf"'(--)?{option}'", files[0].read_text()), f'{program} --{option}'


def test_commands_by_their_short_name_exist():
  names = re.findall(r'`vqjax ([a-z]+)', README)
  assert names
  assert set(names) <= MODULES.keys()


def rows():
  """{config: its legal arguments} of the tables, of tokenizers and of generators."""
  tables = [part.split('\n\n')[0] for part in README.split('\n| config | arguments')[1:]]
  assert len(tables) == 2
  found = re.findall(r'^\| `configs/(\w+)\.py` \| (.*?) \| ', '\n'.join(tables), re.MULTILINE)
  return {name: ', '.join(re.findall(r'`(.+?)`', cell)) for name, cell in found}


def test_every_config_has_a_row():
  assert sorted(rows()) == CONFIGS


@pytest.mark.parametrize('name', CONFIGS)
def test_arguments_of_a_config_are_those_of_its_row(name):
  with pytest.raises(UserError, match='legal, joined by commas: ') as error:
    get_config(name, '?')
  legal = str(error.value).split('joined by commas: ')[1].rstrip('.')
  assert rows()[name].replace('\\|', '|') == legal
