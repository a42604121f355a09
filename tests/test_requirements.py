"""The files that say what to install agree with one another."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent


def names(lines):
  lines = (line.partition('#')[0].strip() for line in lines)
  return {re.sub(r'[-_.]+', '-', line).lower() for line in lines if line}


def read(name):
  return names((ROOT / name).read_text().splitlines())


def test_both_requirement_files_name_the_whole_stack():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  stack = names([*project['dependencies'], *project['optional-dependencies']['train'], '-e .'])
  cpu = read('requirements-cpu.txt')
  assert cpu == stack
  gpu = {line.replace('jax[cuda12]>=', 'jax>=') for line in read('requirements.txt')}
  assert gpu == cpu
  assert any(line.startswith('jax[cuda12]') for line in read('requirements.txt'))
