"""What train.py and eval.py share as commands: flags in, one-line errors out."""

import sys

from absl import app

from vqjax.errors import UserError


def run(main):
  """Runs an absl `main`; a mistake that the user can mend ends in one line and exit status 1."""
  sys.exit(app.run(_reporting(main), flags_parser=_parse_flags))


def _reporting(main):
  def reported(argv):
    try:
      if argv[1:]:
        raise UserError(f'argument {argv[1]!r} is not understood; every option is --NAME=VALUE.')
      main()
    except UserError as error:
      _fail(error)
    except KeyboardInterrupt:
      _fail('interrupted; run the same command again to go on from the last checkpoint.')

  return reported


def _parse_flags(argv):
  try:
    return app.parse_flags_with_usage(argv)
  except UserError as error:  # the argument behind the colon of --config
    _fail(error)
  except FileNotFoundError as error:
    _fail(f'{error.filename or error} does not exist; legal: a config file, configs/NAME.py[:ARG].')
  except (KeyError, AttributeError, TypeError, ValueError) as error:
    _fail(f'{_words(error)}; see the config file for its fields.')


def _words(error):
  return str(error.args[0] if error.args else error).strip().rstrip('.')


def _fail(message):
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)
