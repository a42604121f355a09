"""The command that fetches weights: see `vqjax.weights`."""

import argparse
import pathlib
import sys

from vqjax import weights
from vqjax.errors import UserError
from vqjax.weights.sources import GROUPS


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  parser = argparse.ArgumentParser('python -m vqjax.weights', description=weights.__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument('group', choices=GROUPS)
  parser.add_argument('--file', type=pathlib.Path, help='a file on disk to take them from')
  args = parser.parse_args(argv)
  try:
    weights.fetch(args.group, args.file)
  except UserError as error:
    sys.exit(f'weights: {error}')


if __name__ == '__main__':
  main()
