"""What the steps between two lines of the log reported."""

import logging
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.errors import UserError
from vqjax.evaluation.metrics import token_entropy

_NAMED = 16  # examples of a bad step in an error; the log has all

_add = jax.jit(jnp.add, donate_argnums=0)
_log = logging.getLogger('vqjax')


class Window:
  """Collects what steps report, without waiting for them, until a summary is asked for.

  Counts of codes are added up on the device: of 2^22 codes, those of one step are 16 MiB.

  Args:
    checkpoints: the run's folder of them, for messages.
    examples: gives the names of examples by their numbers, for messages.
    allowed: how many steps of the run may be not finite, see `guard.allowed`.
    skipped: how many have been, before this window.

  Attributes:
    skipped: how many of the steps that were summed up have been, and those before.
  """

  def __init__(
    self,
    checkpoints: pathlib.Path,
    examples: Callable[[range], list[str]],
    *,
    allowed: int = 0,
    skipped: int = 0,
  ) -> None:
    self._checkpoints, self._examples, self._allowed = checkpoints, examples, allowed
    self.skipped = skipped
    self._clear()

  def _clear(self):
    self._steps, self._counts = [], None

  def add(self, step: int, reported: Mapping[str, jax.Array], drawn: range) -> None:
    """Adds what a step reported: scalars by name, and perhaps `code_counts` [K].

    `drawn` are the numbers of its examples.
    """
    reported = dict(reported)
    counts = reported.pop('code_counts', None)
    if counts is not None:
      self._counts = counts if self._counts is None else _add(self._counts, counts)
    self._steps.append((step, drawn, reported))

  def summary(self) -> dict[str, float]:
    """Means over the steps since the last summary; usage and perplexity are of all their tokens.

    A step with a term that is not finite is left out, and named in the log with its examples.

    Raises:
      UserError: there are more of those than are allowed.
    """
    steps, counts = jax.device_get((self._steps, self._counts))
    self._clear()
    found = []
    for step, drawn, scalars in steps:
      if bad := sorted(name for name, value in scalars.items() if not np.isfinite(value)):
        self._skip(step, drawn, ', '.join(bad))
      else:
        found.append(scalars)
    if not found:
      return {}
    names = dict.fromkeys(name for scalars in found for name in scalars)
    summary = {name: float(np.mean([s[name] for s in found if name in s])) for name in names}
    if counts is not None:
      summary['usage'] = float(np.mean(counts > 0))
      summary['perplexity'] = 2 ** token_entropy(counts)
    return summary

  def _skip(self, step, drawn, terms):
    """Counts a step that was not finite, or raises."""
    self.skipped += 1
    stops = self.skipped > self._allowed
    done = '' if stops else f' and skipped, {self.skipped} so far of {self._allowed}'
    examples = self._examples(drawn)
    _log.warning(
      'step %d: %s not finite%s; its examples: %s', step, terms, done, ', '.join(examples)
    )
    if not stops:
      return
    limit = f', beyond config.max_nonfinite_steps={self._allowed}' if self._allowed else ''
    more = f' and {len(examples) - _NAMED} more, which the log names' * (len(examples) > _NAMED)
    more_of_them = f'allow more of them by --config.max_nonfinite_steps={2 * self._allowed}'
    skip = more_of_them if self._allowed else 'skip such steps by --config.on_nonfinite=skip'
    raise UserError(
      f'step {step}: {terms} not finite{limit}; training stopped and the last checkpoint in '
      f'{self._checkpoints} is from before. The examples of the step were '
      f'{", ".join(examples[:_NAMED])}{more}. Lower --config.optimizer.learning_rate or set '
      f'--config.optimizer.clip_norm=1.0, with --allow_config_change to go on from there, or '
      f'{skip}.'
    )
