"""What commands share: flags in, one-line errors out."""

import sys

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from vqjax.errors import UserError

# KeyError and AttributeError: a field that the config does not have; str() would quote them.
_MISTAKES = (flags.Error, KeyError, AttributeError, TypeError, ValueError)


def run(main):
  """Runs an absl `main`; a mistake that the user can mend ends in one line and exit status 1."""
  sys.exit(app.run(_reporting(main), flags_parser=_parse_flags))


def _reporting(main):
  def reported(argv):
    try:
      _no_others(argv[1:])
      main()
    except UserError as error:
      _fail(error)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      _fail(
        f'out of memory ({str(error).splitlines()[0]}); fewer images at a time need less: '
        '--batch_size=N of eval.py, --config.batch_size=N or --config.model.remat=True of train.py.'
      )
    except KeyboardInterrupt:
      _fail('interrupted; run the same command again to go on from the last checkpoint.')

  return reported


def _parse_flags(argv):
  try:
    return flags.FLAGS(argv)
  except UserError as error:  # the argument behind the colon of --config
    _fail(error)
  except _MISTAKES as error:
    _fail(_words(error))


def _no_others(arguments):
  if arguments:
    raise UserError(f'argument {arguments[0]!r} is not understood; every option is --NAME=VALUE.')


def _words(error):
  while isinstance(error, BaseException) and error.args:
    error = error.args[0]
  return ' '.join(str(error).split())


def set_data(data, arguments):
  """Sets fields of `data`, a config's, by arguments `--config.data.KEY=VALUE`; takes no others.

  Raises:
    UserError: another argument, another field, or a value of another type.
  """
  config, argv = ml_collections.ConfigDict({'data': data}), ['', *arguments]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    others = values(argv)[1:]
  except (KeyError, AttributeError) as error:
    raise UserError(
      f'--config has no field {_words(error)} here; legal: --config.data.KEY=VALUE with the keys of'
      ' vqjax/data/defaults.py.'
    ) from error
  except _MISTAKES as error:
    raise UserError(_words(error)) from error
  _no_others(others)


def require(args, **examples):
  """Raises a UserError if one of the named options is missing in `args`, with its example."""
  for name, example in examples.items():
    if not getattr(args, name):
      raise UserError(f'--{name} is missing; for example --{name}={example}.')


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
