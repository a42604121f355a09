"""The folder of a run: which config it belongs to, and what may change when a run resumes."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from vqjax.errors import UserError
from vqjax.whole_files import reason, replacing

# Fields that a resumed run may change without becoming another run.
FREE = (
  'total_steps',
  'total_epochs',
  'total_examples',
  'log_every',
  'eval_every',
  'checkpoint_every',
  'checkpoint_minutes',
  'keep_checkpoints',
  'eval_images',
  'sample_images',
  'on_nonfinite',
  'max_nonfinite_steps',
  'require_backend',
  'mesh.',
  'tokenizer',
  'tokens.path',
  'tokens.eval_path',
  'sampler.',
  'data.path',
  'data.eval_path',
  'data.threads',
  'data.prefetch',
  'data.max_unreadable',
  'data.stall_seconds',
  'optimizer.name',  # a field of version 0.1, always adam
)

_LONGEST, _DEEPEST = 2**20, 32  # bytes of a config.json, and dicts within one another


def open_run(
  workdir: str | pathlib.Path,
  config: ml_collections.ConfigDict,
  *,
  allow_config_change: bool = False,
  write: bool = True,
) -> tuple[pathlib.Path, dict[str, tuple[Any, Any]]]:
  """Creates the folder, or checks that it belongs to `config`; writes `config.json` if `write`.

  A folder belongs to a config once it has a checkpoint: before, there is nothing to lose, and
  what failed may be tried again with another.

  Returns:
    (path, changes): the folder, and the fields that differ from the earlier run as
    `{'optimizer.learning_rate': (old, new)}`.

  Raises:
    UserError: the folder cannot be made, holds something else, or belongs to another config.
  """
  path = pathlib.Path(workdir).expanduser()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'cannot make the run folder {path}: {error.strerror}; choose another with --workdir=...'
    ) from error
  changes = {}
  if (path / 'config.json').exists():
    changes = difference(flatten(read_config(path)[1]), flatten(to_json(config)))
    other = [name for name in changes if not name.startswith(FREE)]
    if other and saved_steps(path / 'checkpoints') and not allow_config_change:
      listed = '; '.join(f'{n}: {changes[n][0]!r} there, {changes[n][1]!r} now' for n in other)
      raise UserError(
        f'{path} belongs to a run with another config ({listed}); choose another --workdir, use '
        'the values it has, or add --allow_config_change to go on with the new ones.'
      )
  elif (path / 'checkpoints').exists():
    raise UserError(f'{path} holds checkpoints but no config.json; choose another --workdir=...')
  if not write:
    return path, changes
  try:
    with replacing(path / 'config.json') as partial:
      partial.write_text(json.dumps(to_json(config), indent=2, sort_keys=True) + '\n')
  except OSError as error:
    raise UserError(
      f'cannot write {path / "config.json"}: {reason(error, path)}; choose another --workdir=...'
    ) from error
  return path, changes


def saved_steps(checkpoints: pathlib.Path) -> list[int]:
  """The steps whose checkpoint is finished, ascending; none where there is no such folder."""
  # A finished checkpoint's folder is named by the step alone: renaming it so is what finishes it.
  if not checkpoints.exists():
    return []
  return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def read_config(
  workdir: str | pathlib.Path,
) -> tuple[pathlib.Path, ml_collections.ConfigDict]:
  """Reads a run folder: (its path, its resolved ConfigDict).

  Raises:
    UserError: the folder is missing or no run's.
  """
  folder = pathlib.Path(workdir).expanduser()
  path = folder / 'config.json'
  try:
    if path.exists() and not path.is_file():
      raise ValueError('it is no regular file')  # a pipe, which would be waited for
    if path.stat().st_size > _LONGEST:
      raise ValueError(f'it is longer than {_LONGEST} bytes')
    fields = json.loads(path.read_text())
    if not isinstance(fields, dict):
      raise ValueError('no JSON object')
    if _depth(fields) > _DEEPEST:
      raise ValueError(f'its fields are nested more than {_DEEPEST} times')
    return folder, ml_collections.ConfigDict(fields)
  except FileNotFoundError as error:
    raise UserError(
      f'{path} does not exist; name the folder of a run of train.py or of vqjax.convert.'
    ) from error
  except (OSError, ValueError, TypeError, RecursionError) as error:
    raise UserError(f'{path} cannot be read: {error}; restore it from a checkpoint.') from error


def _depth(fields):
  """How deep dicts and lists are nested, level by level; no deeper than is legal, and one more."""
  level, depth = [fields], 0
  while level and depth <= _DEEPEST:
    within = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
    level, depth = [x for part in within for x in part], depth + 1
  return depth


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """A config as plain JSON types."""
  return json.loads(json.dumps(config.to_dict()))


def flatten(
  config: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = ''
) -> dict[str, Any]:
  """Nested fields -> {'model.channels': value}."""
  flat: dict[str, Any] = {}
  for name, value in dict(config).items():
    if isinstance(value, dict | ml_collections.ConfigDict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = list(value) if isinstance(value, tuple) else value
  return flat


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Fields that differ, as {name: (old, new)}; None stands for a field that is not there."""
  names = sorted(old.keys() | new.keys())
  return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}
