"""The runs of a study: which command trains and evaluates each, and how far each is."""

import dataclasses
import json
import pathlib
import shlex
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from studies.study import Point, Study, label
from vqjax import data as datasets
from vqjax.errors import UserError
from vqjax.runs.folder import difference, flatten, read_config, to_json


@dataclasses.dataclass(frozen=True)
class Run:
  """One training run of a study, and its evaluation.

  Attributes:
    point: what is changed.
    seed: of the run.
    folder: of the run.
    train: arguments behind `python`.
    evaluate: likewise.
    config: what `train` asks for.
  """

  point: Point
  seed: int
  folder: pathlib.Path
  train: tuple[str, ...]
  evaluate: tuple[str, ...]
  config: ConfigDict

  @property
  def name(self) -> str:
    return f'{label(self.point)} seed {self.seed}'

  @property
  def commands(self) -> str:
    """Both as one types them."""
    return ''.join(f'python {shlex.join(command)}\n' for command in (self.train, self.evaluate))

  @property
  def evaluated(self) -> bool:
    """Whether the last step of training has been evaluated."""
    numbers = read_numbers(self.folder)
    return numbers is not None and numbers.get('step') == self.config.total_steps


def plan(study: Study, size: str, data: pathlib.Path, out: pathlib.Path, seeds: int) -> list[Run]:
  """The runs in the order in which they are made: all points with seed 0, then with seed 1, ...

  Raises:
    UserError: no images at `data`, or a folder of a run that belongs to another config.
  """
  runs = [
    _run(study, point, seed, size, data, out) for seed in range(seeds) for point in study.points
  ]
  for split in ('train', 'eval'):
    datasets.make_source(runs[0].config.data, split)
  for run in runs:
    if (run.folder / 'config.json').exists():
      there, asked = read_config(run.folder)[1], to_json(run.config)
      there = flatten(there)
      # A field that is not there came later: it had no other value then.
      changed = difference(there, {n: v for n, v in flatten(asked).items() if n in there})
      if changed:
        listed = '; '.join(
          f'{n}: {old!r} there, {new!r} asked' for n, (old, new) in changed.items()
        )
        raise UserError(
          f'{run.folder} belongs to a run with another config ({listed}); choose another --out, or '
          'remove that folder.'
        )
  return runs


def _run(study, point, seed, size, data, out):
  argument = ','.join(f'{name}={value}' for name, value in {**point, 'size': size}.items())
  settings = (
    f'--config={study.config}:{argument}',
    f'--config.seed={seed}',
    '--config.data.source=folder',
    f'--config.data.path={data}',
  )
  config, folder = _config(settings), run_folder(out, point, seed)
  return Run(
    point,
    seed,
    folder,
    ('train.py', *settings, f'--workdir={folder}'),
    ('eval.py', f'--workdir={folder}', f'--step={config.total_steps}', *study.options),
    config,
  )


def run_folder(out: pathlib.Path, point: Point, seed: int | str) -> pathlib.Path:
  """Where the run of a point is; of all its seeds with `seed='*'`, as a pattern."""
  return out / 'runs' / label(point) / f'seed{seed}'


def _config(settings):
  """The config that train.py makes of these arguments."""
  values, argv = flags.FlagValues(), ['', *settings]
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
  values(argv)
  return values.config


def read_numbers(folder: pathlib.Path) -> dict[str, Any] | None:
  """A run's eval/metrics.json; None where there is none, or one that was cut while written."""
  try:
    return json.loads((folder / 'eval' / 'metrics.json').read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    return None
