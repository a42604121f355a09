"""When a run is saved beside its steps for that, by a signal or the clock: all processes at once.

Processes have clocks and signals of their own, and a save is a step of all of them. So every fourth
step each says what it has heard, and all read the largest of that four steps later: the devices
have made it out by then and go on with later steps, and all act at the same one, at most eight
behind a signal. JAX's own `reached_preemption_sync_point` hears SIGTERM alone, and once.
"""

import math
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vqjax import sharding
from vqjax.errors import UserError

EVERY = 4  # steps between two rounds of several processes


class Occasion(NamedTuple):
  """What is to be done behind a step, beside what its number says."""

  stop: signal.Signals | None = None  # save, and end: who asked for it
  late: bool = False  # save, since the last time is long ago


class Occasions:
  """Tells behind each step whether to save or stop; all processes get the same answer.

  Args:
    mesh: all devices of all processes.
    minutes: `config.checkpoint_minutes`, from one save to the next; 0 for any number. They count
      from the first step: before, there is nothing to lose.
    clock: returns seconds.

  Raises:
    UserError: minutes that are negative.
  """

  def __init__(
    self, mesh: Mesh, minutes: float, *, clock: Callable[[], float] = time.monotonic
  ) -> None:
    if not minutes >= 0:
      raise UserError(f'config.checkpoint_minutes is {minutes}; legal: 0 (none) or more.')
    self._mesh, self._seconds, self._clock = mesh, 60 * minutes, clock
    self._saved = math.nan  # no step yet
    self._asked: jax.Array | None = None  # of several processes, in the round before
    self._largest = jax.jit(lambda x: jnp.max(x, 0), out_shardings=sharding.replicated(mesh))

  def behind(self, step: int, heard: signal.Signals | None) -> Occasion:
    """What is to be done behind this step; `heard` is the signal that this process got."""
    if math.isnan(self._saved):
      self.saved()
    late = bool(self._seconds) and self._clock() - self._saved >= self._seconds
    if jax.process_count() == 1:
      return Occasion(heard, late)
    if step % EVERY:
      return Occasion()
    agreed = Occasion()
    if self._asked is not None:
      number, answer = np.asarray(self._asked).tolist()
      agreed = Occasion(signal.Signals(number) if number else None, bool(answer))
    self._asked = self._ask(heard or 0, late and not agreed.late)  # if it is, it is saved right now
    return agreed

  def saved(self) -> None:
    """Counts from now."""
    self._saved = self._clock()

  def _ask(self, *own: int) -> jax.Array:
    local = np.tile(np.array(own, np.int32), (jax.local_device_count(), 1))
    return self._largest(sharding.put_batch(self._mesh, local))
