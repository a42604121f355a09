"""Makes a study: trains and evaluates all its runs, and draws up what they say.

python -m studies.run rotation|collapse|rate_distortion|network --data=FOLDER --out=DIR [--seeds=3]
                      [--size=small|gpu] [--jobs=1] [--only=PATTERN] [--tables_only]

FOLDER is one of images, as train.py takes it; `python -m studies.photographs FOLDER` makes one.
Every run is a call of train.py and one of eval.py: DIR/commands.sh has them, and DIR/runs/ the
folders, each with what the two said in train.log and eval.log. The same command again goes on where
a study stood; what failed is tried again. Writes DIR/table.md, DIR/table.json and DIR/figure.png,
and with --tables_only nothing but these, from what runs have left.

--jobs=N makes up to N runs at a time: on a GPU they share the card; on a CPU more than half as many
as it has cores gain nothing. --only=PATTERN makes a part: the points whose folder in DIR/runs
matches, as in --only='kmeans-8-*'.
"""

import datetime
import fnmatch
import json
import logging
import os
import pathlib

from studies import collapse, figure, network, rate_distortion, rotation, table
from studies.making import making
from studies.plan import plan, read_numbers
from studies.sizes import SIZES
from studies.study import Study, label
from vqjax import commands, weights
from vqjax.errors import UserError
from vqjax.evaluation.table import METRICS
from vqjax.runs.lock import locked
from vqjax.whole_files import replacing

STUDIES = {
  'rotation': rotation.STUDY,
  'collapse': collapse.STUDY,
  'rate_distortion': rate_distortion.STUDY,
  'network': network.STUDY,
}
log = logging.getLogger('vqjax')


def run_study(
  study: Study,
  size: str,
  data: pathlib.Path,
  out: pathlib.Path,
  seeds: int = 3,
  jobs: int = 1,
  only: str = '*',
) -> None:
  """Makes the runs that are missing in `out`, then the tables and the figure.

  Args:
    study: of which.
    size: of the runs, one of `SIZES`.
    data: folder of images.
    out: folder of the study.
    seeds: runs of each point.
    jobs: how many runs are made at a time.
    only: what the `label` of a point must match, as a file's name does in a shell.

  Raises:
    UserError: a pattern that no point matches; images, `out` or a run in it that will not do; or
      runs that failed, when all others are done.
  """
  chosen = _matching(study, only)
  runs = plan(study, size, data, out, seeds)
  with locked(out, '--out') as lock:
    _write(out / 'commands.sh', ''.join(f'# {run.name}\n{run.commands}' for run in runs))
    _warn_of_missing(study)
    runs = [run for run in runs if label(run.point) in chosen]
    waiting = [run for run in runs if not run.evaluated]
    log.info('%d runs, %d of them done; each in %s/runs', len(runs), len(runs) - len(waiting), out)
    took, failures = [], 0
    with making(waiting, jobs, lock, _environment(jobs)) as made:
      for run, reason, seconds in made:
        if reason:
          _write(run.folder / table.FAILED, reason + '\n')
          failures += 1
        took.append(seconds)
        left = sum(took) / len(took) * (len(waiting) - len(took)) / jobs
        said = f'failed: {reason}' if reason else _words(read_numbers(run.folder))
        log.info(
          'run %d/%d | %s | %s | %s left',
          *(len(runs) - len(waiting) + len(took), len(runs), run.name, said),
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


def _matching(study, pattern):
  labels = [label(point) for point in study.points]
  if not (matching := fnmatch.filter(labels, pattern)):
    raise UserError(
      f'--only is {pattern!r}, which no point matches; legal: a pattern of {", ".join(labels)}.'
    )
  return matching


def _environment(jobs):
  # JAX reserves three quarters of a GPU's memory as it starts, and leaves no room for a second.
  ours = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} if jobs > 1 else {}
  return {**ours, **os.environ}


def _warn_of_missing(study):
  for name in study.numbers:
    network = METRICS[name].network if name in METRICS else ''
    if network and not weights.available(network):
      command = f'python -m vqjax.weights {weights.group_of(network)}'
      log.warning('%s will be missing; before the runs, call: %s', name, command)


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
  jobs = 'Runs made at a time; on a CPU more than half as many as cores gain nothing.'
  add('--jobs', type=int, default=1, help=jobs)
  add('--only', metavar='PATTERN', default='*', help="Points to make, such as 'kmeans-8-*'.")
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
  for name in ('seeds', 'jobs'):
    if (value := getattr(args, name)) < 1:
      raise UserError(f'--{name} is {value}; legal: 1 or more.')
  run_study(study, args.size, args.data, args.out, args.seeds, args.jobs, args.only)


COMMAND = commands.Command(
  doc=__doc__,
  arguments=_arguments,
  main=_main,
  example='python -m studies.run rotation --data=runs/photographs --out=runs/rotation',
  uses_jax=False,  # this process: the runs have the devices for themselves
)

if __name__ == '__main__':
  commands.run(COMMAND)
