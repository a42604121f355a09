"""What the steps between two lines of the log reported."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.errors import UserError
from vqjax.evaluation.metrics import token_entropy

_add = jax.jit(jnp.add, donate_argnums=0)


class Window:
  """Collects what steps report, without waiting for them, until a summary is asked for.

  Counts of codes are added up on the device: of 2^22 codes, those of one step are 16 MiB.

  Args:
    checkpoints: the run's folder of them, for the message.
  """

  def __init__(self, checkpoints: pathlib.Path) -> None:
    self._checkpoints = checkpoints
    self._clear()

  def _clear(self):
    self._steps, self._counts = [], None

  def add(self, step: int, reported: Mapping[str, jax.Array]) -> None:
    """Adds what a step reported: scalars by name, and perhaps `code_counts` [K]."""
    reported = dict(reported)
    counts = reported.pop('code_counts', None)
    if counts is not None:
      self._counts = counts if self._counts is None else _add(self._counts, counts)
    self._steps.append((step, reported))

  def summary(self) -> dict[str, float]:
    """Means over the steps since the last summary; usage and perplexity are of all their tokens.

    Raises:
      UserError: a term that is not finite; names the first step and the terms.
    """
    steps, counts = jax.device_get((self._steps, self._counts))
    self._clear()
    for step, scalars in steps:
      if bad := [name for name, value in scalars.items() if not np.isfinite(value)]:
        raise UserError(
          f'step {step}: {", ".join(sorted(bad))} not finite; training stopped and the last '
          f'checkpoint in {self._checkpoints} is from before. Lower '
          '--config.optimizer.learning_rate or set --config.optimizer.clip_norm=1.0, with '
          '--allow_config_change to go on from there.'
        )
    found = [scalars for _, scalars in steps]
    names = dict.fromkeys(name for scalars in found for name in scalars)
    summary = {name: float(np.mean([s[name] for s in found if name in s])) for name in names}
    if counts is not None:
      summary['usage'] = float(np.mean(counts > 0))
      summary['perplexity'] = 2 ** token_entropy(counts)
    return summary
