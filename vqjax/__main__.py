"""All commands under one name.

vqjax COMMAND [ARGUMENTS], or python -m vqjax COMMAND [ARGUMENTS]
"""

import ast
import importlib
import pathlib
import sys

# Only the one that is asked for is imported: all of them need JAX, which takes seconds.
MODULES = {
  'convert': 'vqjax.convert.__main__',
  'export': 'vqjax.export',
  'tokenize': 'vqjax.tokenize',
  'generate': 'vqjax.generate',
  'reconstruct': 'vqjax.reconstruct',
  'compare': 'vqjax.compare',
  'weights': 'vqjax.weights.__main__',
  'prepare': 'vqjax.data.prepare',
}


def main(argv: list[str] | None = None) -> None:
  """Runs the command that the first argument names."""
  name, *arguments = (sys.argv[1:] if argv is None else argv) or ['--help']
  if name in ('-h', '--help'):
    print(_help())
    return
  if name not in MODULES:
    sys.exit(f'error: {name!r} is no command; legal: {", ".join(MODULES)}.')
  try:
    from vqjax import commands

    command = importlib.import_module(MODULES[name]).COMMAND
  except KeyboardInterrupt:
    print('error: interrupted; run the same command again.', file=sys.stderr)
    sys.exit(130)
  commands.run(command, arguments)


def _help():
  lines = [f'  {name:<12} {_summary(module)}' for name, module in MODULES.items()]
  return '\n'.join(
    ['usage: vqjax COMMAND [ARGUMENTS]', '', *lines, '', 'vqjax COMMAND --help says more.']
  )


def _summary(module):
  """The first sentence of its docstring, which is read and not imported."""
  path = pathlib.Path(__file__).parent.joinpath(*module.split('.')[1:]).with_suffix('.py')
  return (ast.get_docstring(ast.parse(path.read_text())) or '').partition('\n')[0]


if __name__ == '__main__':
  main()
