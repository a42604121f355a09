"""The README's example runs, and what it names exists."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()


def test_the_python_example_runs():
  (block,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  exec(compile(block, 'README.md', 'exec'), {})


def test_files_and_links_exist():
  for name in re.findall(r'\]\(([^)]+)\)|`((?:vqjax|configs)/[\w/.]+)`', README):
    assert (ROOT / (name[0] or name[1])).exists(), name


def test_ci_runs_the_test_command():
  commands = [line.strip() for line in README.splitlines() if line.startswith('    python -m pip')]
  (test_command,) = (c for c in commands if 'pytest' in c)
  assert test_command.split(' && ')[1] in (ROOT / '.ci' / 'run').read_text()
