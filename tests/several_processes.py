"""One of several processes that train together: a program for tests/faults.

python tests/several_processes.py PORT INDEX COUNT WORKDIR MINUTES SIGNALLED NUMBER

At step 5 the process SIGNALLED sends itself the signal NUMBER. With MINUTES, the clock of the last
process alone runs, that of the others stands still.
"""

import functools
import logging
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from fake_experiment import MeanExperiment

import train as train_command
from configs import rot_vqvae
from vqjax import commands, sharding
from vqjax.runs.occasions import Occasions


class Shared(MeanExperiment):
  """Its batches are split over all devices of all processes."""

  def __init__(self, config, mesh, signals):
    super().__init__(config, mesh)
    self._mesh, self._signals = mesh, signals
    step = lambda mean, batch: 0.5 * mean + 0.5 * jnp.mean(batch)
    self._move = jax.jit(step, out_shardings=sharding.replicated(mesh))

  def step(self, state, batch, step):
    if step == 5:
      self._signals()
    own = np.split(batch, jax.process_count())[jax.process_index()]
    mean = self._move(state['mean'], sharding.put_batch(self._mesh, own))
    return {'mean': mean}, {'loss': mean}

  def look(self, state):
    return super().look({'mean': jax.device_get(state['mean'])})


def main():
  signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
  port, index, count, workdir, minutes, signalled, number = sys.argv[1:]
  jax.distributed.initialize(f'localhost:{port}', int(count), int(index))
  logging.getLogger('vqjax').setLevel(logging.INFO)
  if int(index) < int(count) - 1:
    train_command.Occasions = functools.partial(Occasions, clock=lambda: 0.0)
  config = rot_vqvae.get_config('demo')
  config.batch_size, config.total_steps, config.log_every = 8, 30, 10
  config.eval_every = config.checkpoint_every = 20
  config.checkpoint_minutes = float(minutes)

  def signals():
    if signalled == index:
      os.kill(os.getpid(), int(number))

  experiment = functools.partial(Shared, signals=signals)
  run = functools.partial(train_command.train, config, workdir, experiment=experiment)
  commands.run(commands.Command(__doc__, lambda parser: None, lambda args: run(), ''), [])


if __name__ == '__main__':
  main()
