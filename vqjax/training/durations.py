"""Durations in steps, epochs, examples or percent of the run, by the suffix of the key."""

import math
from collections.abc import Mapping
from typing import Any

from vqjax.errors import UserError

UNITS = ('steps', 'epochs', 'examples', 'percent')


def steps(
  config: Mapping[str, Any],
  key: str,
  *,
  where: str,
  batch_size: int,
  num_examples: int | None = None,
  total_steps: int | None = None,
) -> int | None:
  """Reads the duration `key` of `config` in steps.

  Looks for `key_steps`, `key_epochs`, `key_examples`, `key_percent`, or `key` itself, which means
  steps; fractions round to the nearest step.

  Args:
    config: the part of the config that holds the key.
    key: name without suffix, such as `log_every`.
    where: path of that part, for messages.
    batch_size: global batch size, for epochs and examples.
    num_examples: size of the training set, for epochs.
    total_steps: length of the run, for percent.

  Returns:
    At least 0; None if no form of the key is there.

  Raises:
    UserError: two units at once, a negative value, or a unit that cannot be resolved.
  """
  found = [name for name in (key, *(f'{key}_{unit}' for unit in UNITS)) if name in config]
  found = [name for name in found if config[name] is not None]
  if not found:
    return None
  if len(found) > 1:
    raise UserError(f'{where}: {" and ".join(found)} are the same duration twice; keep one.')
  (name,) = found
  value, unit = config[name], name.removeprefix(key).removeprefix('_') or 'steps'
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 <= value < math.inf:
    raise UserError(f'{where}.{name} is {value!r}; legal: a number that is not negative.')
  scale: float = 1
  if unit == 'epochs':
    if num_examples is None:
      raise UserError(f'{where}.{name}: the number of training images is unknown; use {key}_steps.')
    scale = num_examples / batch_size
  elif unit == 'examples':
    scale = 1 / batch_size
  elif unit == 'percent':
    if total_steps is None:
      raise UserError(f'{where}.{name}: percent of itself; use {key}_steps or {key}_epochs.')
    scale = total_steps / 100
  return round(value * scale)
