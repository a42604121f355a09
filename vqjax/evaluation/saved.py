"""Evaluations that eval.py wrote, read again, and whether their numbers compare."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqjax import tensor_files
from vqjax.errors import UserError

# Entries of a protocol that do not decide whether numbers compare: three say which run it is, and
# the definitions of metrics are compared one by one.
OF_THE_RUN = ('run', 'weights', 'computed on', 'metrics')
_OWN_DEFINITION = ('rec_loss',)  # the objective of each run


class Evaluated(NamedTuple):
  """What eval.py wrote about one run."""

  folder: pathlib.Path
  numbers: dict[str, Any]  # of metrics.json
  protocol: dict[str, Any]
  pictures: dict[str, np.ndarray] | None  # by the names of `results.Pictures`


def named(runs: Sequence[str | pathlib.Path]) -> dict[str, str | pathlib.Path]:
  """Gives each run a short name: {name: run}.

  The name is that of the run's folder. Runs whose folders have the same name get their whole path
  instead, and a path that comes up again a number: 'out', 'out (2)'.
  """
  folders = [pathlib.Path(run) for run in runs]
  short = [(f.parent if f.name == 'eval' else f).resolve().name for f in folders]
  names: dict[str, str | pathlib.Path] = {}
  for run, folder, name in zip(runs, folders, short, strict=True):
    name = first = str(folder) if short.count(name) > 1 else name
    count = 1
    while name in names:
      count += 1
      name = f'{first} ({count})'
    names[name] = run
  return names


def read(run: str | pathlib.Path) -> Evaluated:
  """Reads an evaluation, by the folder of its run or its own.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  folder = pathlib.Path(run).expanduser()
  if folder.name != 'eval' and not (folder / 'metrics.json').exists():
    folder = folder / 'eval'
  path, images = folder / 'metrics.json', folder / 'pictures.npz'
  command = f'python eval.py --workdir={folder.parent}'
  pictures = None
  try:
    numbers = json.loads(path.read_text())
    protocol = numbers.pop('protocol')
    numbers.pop('baselines', None)  # of the run's own rate: they do not compare
    protocol['metrics'].items()
    if wrong := [name for name, x in numbers.items() if not isinstance(x, int | float | None)]:
      raise ValueError(f'{wrong[0]} is no number')
    if images.exists():
      with tensor_files.open_npz(images) as arrays:
        pictures = {name: read() for name, read in arrays.items()}
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist; make it with {command}') from error
  except (OSError, *tensor_files.DAMAGE) as error:
    raise UserError(
      f'{folder} cannot be read as an evaluation ({error!r}); make it anew with {command}'
    ) from error
  return Evaluated(folder, numbers, protocol, pictures)


def differences(found: Mapping[str, Evaluated]) -> dict[str, dict[str, Any]]:
  """What must be the same for numbers to compare, and is not: {field: {name: value}}.

  That is every entry of the protocols but those of the run itself, `num_images`, and the definition
  of every metric that more than one run has a number of, but for `rec_loss`.
  """
  fields: dict[str, dict[str, Any]] = {}
  for name, run in found.items():
    general = {field: v for field, v in run.protocol.items() if field not in OF_THE_RUN}
    general['num_images'] = run.numbers.get('num_images')
    for field, value in general.items():
      fields.setdefault(field, dict.fromkeys(found))[name] = value
    for metric, definition in run.protocol['metrics'].items():
      # Of a null it is no definition but what is missing.
      if run.numbers.get(metric) is not None and metric not in _OWN_DEFINITION:
        fields.setdefault(f'definition of {metric}', {})[name] = definition
  return {
    field: values
    for field, values in fields.items()
    if any(value != next(iter(values.values())) for value in values.values())
  }


def listed(differences: Mapping[str, Mapping[str, Any]]) -> str:
  """Differences as text: `field: 'value' in A, 'value' in B; ...`."""
  shown = lambda value: 'nothing' if value is None else repr(value)
  return '; '.join(
    f'{field}: {", ".join(f"{shown(value)} in {run}" for run, value in values.items())}'
    for field, values in differences.items()
  )
