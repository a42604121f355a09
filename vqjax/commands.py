"""What commands share: how one is declared, and the one way in which all of them run."""

import argparse
import errno
import gc
import logging
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from vqjax.compilation import keep_programs
from vqjax.errors import UserError
from vqjax.runs.log import setup
from vqjax.whole_files import REFUSALS, reason

log = logging.getLogger('vqjax')

# KeyError and AttributeError: a field that the config does not have; str() would quote them.
_MISTAKES = (flags.Error, KeyError, AttributeError, TypeError, ValueError)


class Command(NamedTuple):
  """A command, as each of their modules declares its own under the name COMMAND.

  Attributes:
    doc: docstring of the module, which --help prints; its second paragraph is the usage.
    arguments: function that adds the arguments to a parser of argparse.
    main: function that does the work, of the parsed arguments.
    example: a complete command line, shown when the one that was typed is not understood.
    interrupted: what to do after Ctrl-C; the end of a sentence.
    memory: what to do when a device has too little memory; the end of a sentence.
    uses_jax: whether it computes on devices; of several processes only the first logs then.
    config: whether it takes --config.data.KEY=VALUE; `main` gets them as the list `args.config`,
      for `set_data`.
    workdir: whether it takes --workdir=SOURCE too, which SOURCE alone has replaced.
  """

  doc: str
  arguments: Callable[[argparse.ArgumentParser], None]
  main: Callable[[argparse.Namespace], None]
  example: str
  interrupted: str = 'run the same command again'
  memory: str = 'close what else uses the device, or take a larger one'
  uses_jax: bool = True
  config: bool = False
  workdir: bool = False

  def parse(self, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments as a namespace; UserError if there is one wrong or missing."""
    summary, usage, *others = self.doc.split('\n\n')
    parser = _Parser(
      usage=usage,
      description='\n\n'.join([summary, *others]),
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.arguments(parser)
    config = [arg for arg in argv if self.config and arg.startswith('--config.')]
    try:
      args = parser.parse_args([arg for arg in argv if arg not in config])
    except argparse.ArgumentError as error:
      message = ' '.join(str(error).split())
      raise UserError(f'{message}; for example: {self.example} (--help lists all).') from error
    args.config = config
    return args

  def start(self, argv: Sequence[str]) -> None:
    """Parses the arguments and does the work."""
    named = [arg.removeprefix('--workdir=') for arg in argv if arg != '--workdir']
    args = self.parse(named if self.workdir else argv)
    _begin(self.uses_jax)
    if self.workdir and named != argv:
      log.warning('--workdir=SOURCE is deprecated; write SOURCE alone, as in: %s', self.example)
    self.main(args)


class Program(NamedTuple):
  """A `main` that reads flags of absl, as train.py and eval.py have, whose configs are such flags.

  Attributes:
    main: function without arguments.
    interrupted: as of a `Command`.
    memory: as of a `Command`.
  """

  main: Callable[[], None]
  interrupted: str = 'run the same command again to go on from the last checkpoint'
  memory: str = (
    'fewer images at a time need less: --config.batch_size=N or --config.model.remat=True'
  )

  def start(self, argv: Sequence[str]) -> None:
    """Parses the flags and does the work."""

    def main(others):
      _no_others(others[1:])
      # What imports have made stays: while programs are traced, nobody need look for garbage in it.
      gc.freeze()
      _begin(uses_jax=True)
      self.main()

    app.run(main, argv=[sys.argv[0], *argv], flags_parser=_parse_flags)


def run(command: Command | Program, argv: Sequence[str] | None = None) -> None:
  """Runs a `Command` or `Program` on arguments, by default those that were typed.

  A UserError, a disk that takes no more and a device without memory left end in one line on stderr
  and exit status 1; so do Ctrl-C and SIGTERM, with 130 and 143, as shells count them: the process
  ends at once then, once what was open is closed.
  """
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _terminate)
  try:
    try:
      command.start(list(sys.argv[1:] if argv is None else argv))
    finally:
      sys.stdout.flush()  # while a broken pipe can be caught
  except UserError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt as interrupt:
    ended = 'ended by SIGTERM' if isinstance(interrupt, _Terminated) else 'interrupted'
    print(f'error: {ended}; {command.interrupted}.', file=sys.stderr, flush=True)
    # Python would wait for all threads, of which one may read from a dead file system for ever.
    os._exit(143 if isinstance(interrupt, _Terminated) else 130)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    sys.exit(f'error: out of memory ({str(error).splitlines()[0]}); {command.memory}.')
  except OSError as error:
    advice = f'make room or mend the permissions, then {command.interrupted}'
    if error.errno in REFUSALS and error.filename is not None:
      path = pathlib.Path(error.filename)
      sys.exit(f'error: cannot use {path}: {reason(error, path)}; {advice}.')
    if error.errno not in (errno.EPIPE, *REFUSALS):
      raise
    # Whoever read has seen enough, or what is printed goes to a disk that is full. Python flushes
    # once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1 if error.errno == errno.EPIPE else f'error: cannot print ({error}); {advice}.')


class _Terminated(KeyboardInterrupt):
  """SIGTERM, which ends what a KeyboardInterrupt ends."""


def _terminate(number, frame):
  raise _Terminated


class _Parser(argparse.ArgumentParser):
  """Raises what is wrong instead of printing it with the usage."""

  def error(self, message):
    raise argparse.ArgumentError(None, message)


def _begin(uses_jax):
  """Opens the log, and then the folder of compiled programs, which may have something to say."""
  setup()  # before JAX looks for devices and talks about it
  if uses_jax:
    setup(jax.process_index() == 0)
    keep_programs()


def _parse_flags(argv):
  try:
    return flags.FLAGS(argv)
  except _MISTAKES as error:
    raise UserError(_words(error)) from error


def _no_others(arguments):
  if arguments:
    raise UserError(f'argument {arguments[0]!r} is not understood; every option is --NAME=VALUE.')


def _words(error):
  while isinstance(error, BaseException) and error.args:
    error = error.args[0]
  return ' '.join(str(error).split())


def path(text: str) -> pathlib.Path:
  """An argument as a path, for `type=`; what ~ stands for no shell fills in behind --out=."""
  return pathlib.Path(text).expanduser()


def set_data(data: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
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


def config_of(flag: flags.FlagHolder) -> ml_collections.ConfigDict:
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
