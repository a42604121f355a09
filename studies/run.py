"""Makes a study: trains and evaluates all its runs, one after another, and draws up what they say.

python -m studies.run rotation|collapse|rate_distortion|network --data=FOLDER --out=DIR [--seeds=3]
                      [--size=small|gpu] [--tables_only]

FOLDER is one of images, as train.py takes it; `python -m studies.photographs FOLDER` makes one.
Every run is a call of train.py and one of eval.py: DIR/commands.sh has them, and DIR/runs/ the
folders, each with what the two said in train.log and eval.log. The same command again goes on where
a study stood; what failed is tried again. Writes DIR/table.md, DIR/table.json and DIR/figure.png,
and with --tables_only nothing but these, from what runs have left.
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO

import vqjax
from studies import collapse, figure, network, rate_distortion, rotation, table
from studies.plan import Run, plan, read_numbers
from studies.sizes import SIZES
from studies.study import Study
from vqjax import commands, weights
from vqjax.errors import UserError
from vqjax.evaluation.table import METRICS
from vqjax.whole_files import replacing

STUDIES = {
  'rotation': rotation.STUDY,
  'collapse': collapse.STUDY,
  'rate_distortion': rate_distortion.STUDY,
  'network': network.STUDY,
}
log = logging.getLogger('vqjax')


def run_study(
  study: Study, size: str, data: pathlib.Path, out: pathlib.Path, seeds: int = 3
) -> None:
  """Makes the runs that are missing in `out`, then the tables and the figure.

  Raises:
    UserError: images, `out` or a run in it that will not do; or runs that failed, when all others
      are done.
  """
  runs = plan(study, size, data, out, seeds)
  with _locked(out) as lock:
    _write(out / 'commands.sh', ''.join(f'# {run.name}\n{run.commands}' for run in runs))
    _warn_of_missing(study)
    waiting = [run for run in runs if not run.evaluated]
    log.info('%d runs, %d of them done; each in %s/runs', len(runs), len(runs) - len(waiting), out)
    # A program that a run has compiled is that of the other seeds too, and often of other points.
    environment = {'JAX_COMPILATION_CACHE_DIR': str(out / 'compiled'), **os.environ}
    started, failures = time.monotonic(), 0
    for done, run in enumerate(waiting, 1):
      reason = _make(run, lock, environment)
      failures += bool(reason)
      left = (time.monotonic() - started) / done * (len(waiting) - done)
      said = f'failed: {reason}' if reason else _words(read_numbers(run.folder))
      log.info(
        'run %d/%d | %s | %s | %s left',
        *(len(runs) - len(waiting) + done, len(runs), run.name, said),
        datetime.timedelta(seconds=round(left)),
      )
      write_tables(study, out)
    write_tables(study, out, picture=True)
  if failures:
    raise UserError(
      f'{failures} of {len(runs)} runs failed, see {out / "table.md"}; the same command tries them '
      'again.'
    )


def write_tables(study: Study, out: pathlib.Path, *, picture: bool = False) -> None:
  """Writes table.json and table.md, and with `picture` figure.png, from the folders of the runs."""
  found = table.collect(study, out)
  _write(out / 'table.json', json.dumps(found, indent=2) + '\n')
  _write(out / 'table.md', table.markdown(found, study.numbers))
  if picture:
    figure.draw(found, study.axes, study.numbers, out / 'figure.png')
    log.info('written: %s, table.json, figure.png', out / 'table.md')


def _make(run: Run, lock: IO[str], environment: Mapping[str, str]) -> str:
  """Trains and evaluates; returns why it failed, or ''."""
  failed = run.folder / table.FAILED
  with contextlib.suppress(FileNotFoundError):
    failed.unlink()
  run.folder.mkdir(parents=True, exist_ok=True)
  _write(run.folder / table.MADE, json.dumps(_circumstances(), indent=2) + '\n')
  for command in (run.train, run.evaluate):
    log_file = run.folder / f'{pathlib.Path(command[0]).stem}.log'
    with log_file.open('w') as output:
      # It holds the lock too: should this process be killed, nobody begins beside its orphan.
      code = subprocess.run(
        [sys.executable, *command],
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[lock.fileno()],
        check=False,
      ).returncode
    if code:
      lines = log_file.read_text(errors='replace').strip().splitlines()
      reason = lines[-1] if code > 0 and lines else f'ended with status {code}'
      reason = f'{command[0]}: {reason.removeprefix("error: ")}'
      _write(failed, reason + '\n')
      return reason
  return ''


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[IO[str]]:
  """The folder, for this study alone; gives the lock, which whoever inherits it holds as well."""
  out.mkdir(parents=True, exist_ok=True)
  with (out / 'lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(
        f'{out} is at work: a study, or a run that a killed one has left; wait for it, or choose '
        'another --out.'
      ) from error
    yield file


def _warn_of_missing(study):
  for name in study.numbers:
    network = METRICS[name].network if name in METRICS else ''
    if network and not weights.available(network):
      command = f'python -m vqjax.weights {weights.group_of(network)}'
      log.warning('%s will be missing; before the runs, call: %s', name, command)


def _circumstances():
  names = {'Python': platform.python_version(), 'vqjax': vqjax.__version__}
  names |= {name: importlib.metadata.version(name) for name in ('jax', 'flax')}
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  processors = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
  processor = processors[0] if processors else platform.processor() or platform.machine()
  return {
    'date': datetime.date.today().isoformat(),
    'machine': f'{platform.system()}, {processor}, {os.cpu_count()} cores',
    'versions': ', '.join(f'{name} {version}' for name, version in names.items()),
  }


def _words(numbers):
  return ', '.join(f'{name} {numbers[name]:.4g}' for name in ('psnr', 'usage') if name in numbers)


def _write(path, text):
  with replacing(path) as partial:
    partial.write_text(text)


def _arguments(parser):
  add = parser.add_argument
  add('name', metavar='NAME', choices=tuple(STUDIES), help='The study.')
  add('--data', type=commands.path, help='Folder of images.')
  add('--out', type=commands.path, required=True, help='Folder of the study.')
  add('--seeds', type=int, default=3, help='Runs of each point.')
  add('--size', choices=SIZES, default=SIZES[0], help='Of the runs.')
  add('--tables_only', action='store_true', help='Train nothing.')


def _main(args):
  try:
    _study(args)
  except OSError as error:
    raise UserError(
      f'cannot write {error.filename or args.out}: {error.strerror}; make room, or choose another '
      '--out.'
    ) from error


def _study(args):
  study = STUDIES[args.name]
  if args.tables_only:
    if not (args.out / 'runs').is_dir():
      raise UserError(f'{args.out} holds no study; name the --out of one that was begun.')
    write_tables(study, args.out, picture=True)
    return
  if args.data is None:
    raise UserError(
      '--data is missing; make a folder by: python -m studies.photographs runs/photographs.'
    )
  if args.seeds < 1:
    raise UserError(f'--seeds is {args.seeds}; legal: 1 or more.')
  run_study(study, args.size, args.data, args.out, args.seeds)


COMMAND = commands.Command(
  doc=__doc__,
  arguments=_arguments,
  main=_main,
  example='python -m studies.run rotation --data=runs/photographs --out=runs/rotation',
  uses_jax=False,  # this process: the runs have the devices for themselves
)

if __name__ == '__main__':
  commands.run(COMMAND)
