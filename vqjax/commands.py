"""What train.py and eval.py share as commands: flags in, one-line errors out."""

import sys

from absl import app, flags

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
    return flags.FLAGS(argv)
  except UserError as error:  # the argument behind the colon of --config
    _fail(error)
  except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
    # KeyError and AttributeError: a field that the config does not have; str() would quote them.
    while isinstance(error, BaseException) and error.args:
      error = error.args[0]
    _fail(' '.join(str(error).split()))


def config_of(flag):
  """The value of a config flag.

  Raises:
    UserError: the flag is missing or its file does not exist.
  """
  config = flag.value
  if config is None:
    raise UserError('--config is missing; for example --config=configs/rot_vqgan.py:demo.')
  try:
    _ = config.name  # ml_collections reports a file that it could not read only here
  except OSError as error:
    reason = str(error).rpartition('] ')[2]
    raise UserError(f'--config: {reason}; legal: configs/NAME.py or configs/NAME.py:ARG.') from None
  return config


def _fail(message):
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)
