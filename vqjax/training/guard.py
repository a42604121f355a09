"""What happens at a step that is not finite: the run stops, or the step leaves no trace."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from vqjax.errors import UserError
from vqjax.training.state import TrainState

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def allowed(config: ml_collections.ConfigDict) -> int:
  """How many steps of a run may be not finite: 0 where the first one stops it.

  Raises:
    UserError: a value outside the legal ones.
  """
  if config.on_nonfinite not in ('stop', 'skip'):
    raise UserError(f'config.on_nonfinite is {config.on_nonfinite!r}; legal: stop, skip.')
  if config.max_nonfinite_steps < 1:
    raise UserError(
      f'config.max_nonfinite_steps is {config.max_nonfinite_steps}; legal: 1 or more, or '
      "config.on_nonfinite='stop'."
    )
  return config.max_nonfinite_steps if config.on_nonfinite == 'skip' else 0


def finite(reported: Mapping[str, jax.Array]) -> jax.Array:
  """Whether all scalars that a step reported are finite: bool [].

  Norms of the gradients are among them, so all gradients are. Not of a step's new parameters: an
  optimizer that overflows by itself is found by the next loss.
  """
  scalars = [value for name, value in reported.items() if name != 'code_counts']
  return jnp.isfinite(jnp.stack(scalars)).all()


def leaving_out(step: Step) -> Step:
  """A training step that leaves the state as it was where what it reports is not finite.

  Parameters, optimizers, averages, codebooks and the discriminator keep every bit, and no codes are
  counted; only `state.step` goes on, and with it the data, the random numbers and the reported
  learning rate. The learning rate that is used counts steps that were made. The old state is held
  to the end of the step, in memory of its own where the new one cannot take its place piece by
  piece.
  """

  def guarded(
    state: TrainState, *args: Any, **kwargs: Any
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    new, reported = step(state, *args, **kwargs)
    good = finite(reported)
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)
    if (counts := reported.get('code_counts')) is not None:
      reported['code_counts'] = jnp.where(good, counts, jnp.zeros_like(counts))
    return kept.replace(step=new.step), reported

  return guarded
