"""The smallest thing to train: a number that is pulled to the mean of the batches."""

import jax
import jax.numpy as jnp
import numpy as np

from vqjax import sharding
from vqjax.training.experiment import Look


class Counter:
  """Batches of an endless stream of numbers, which do not depend on where it was cut."""

  def __init__(self, size, seen):
    self._size, self._next, self.closed = size, seen, False

  def __iter__(self):
    return self

  def __next__(self):
    self._next += self._size
    return np.arange(self._next - self._size, self._next, dtype=np.float32)

  def close(self):
    self.closed = True


class MeanExperiment:
  """An `Experiment` without images, networks or codes."""

  num_examples = 1000
  best_metric = 'accuracy'
  tokens_per_example = 0
  next_command = 'look at {workdir}'

  def __init__(self, config, mesh):
    self.total_steps, self._size = config.total_steps, config.batch_size
    place = sharding.replicated(mesh)
    self.abstract_state = {'mean': jax.ShapeDtypeStruct((), jnp.float32, sharding=place)}
    self.parameters = {'mean': jax.ShapeDtypeStruct((), jnp.float32)}
    self._place = place
    self.opened = []

  def start(self):
    return {'mean': jax.device_put(jnp.zeros((), jnp.float32), self._place)}

  def batches(self, examples_seen):
    self.opened.append(Counter(self._size, examples_seen))
    return self.opened[-1]

  def step(self, state, batch, step):
    mean = 0.5 * state['mean'] + 0.5 * jnp.mean(batch)
    return {'mean': mean}, {'loss': jnp.square(mean), 'accuracy': jnp.float32(1 / step)}

  def examples(self, numbers):
    return [f'number {n}' for n in numbers]

  def look(self, state):
    picture = np.full((4, 6, 3), int(state['mean']) % 256, np.uint8)
    return Look(3, {'accuracy': 0.25}, {'drawn': picture})
