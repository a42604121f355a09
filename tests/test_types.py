"""Every public function says the types of its arguments and of what it returns.

The type checker (`mypy`, run by CI) checks what is said; that it is said is checked here.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / 'vqjax').rglob('*.py'))


def public(tree):
  """(name, node) of public functions, and of public methods of public classes."""
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and not node.name.startswith('_'):
      yield node.name, node
    elif isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
      for member in node.body:
        if isinstance(member, ast.FunctionDef) and not _private(member.name):
          yield f'{node.name}.{member.name}', member


def _private(name):
  return name.startswith('_') and name not in ('__init__', '__call__', '__getitem__', '__len__')


def untyped(function, method):
  arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
  decorators = {getattr(d, 'id', '') for d in function.decorator_list}
  if method and 'staticmethod' not in decorators:
    arguments = arguments[1:]
  arguments += [a for a in (function.args.vararg, function.args.kwarg) if a]
  missing = [a.arg for a in arguments if a.annotation is None]
  return missing + ['return'] * (function.returns is None)


@pytest.mark.parametrize('path', FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_public_functions_are_annotated(path):
  found = public(ast.parse(path.read_text()))
  missing = {name: untyped(node, '.' in name) for name, node in found}
  assert not {name: what for name, what in missing.items() if what}
