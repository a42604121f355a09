"""Trains a tokenizer, or a generator on the tokens of one.

python train.py --config=configs/NAME.py[:ARG] [--workdir=runs/NAME] [--config.KEY=VALUE ...]

Run again on the same folder, it goes on where it stopped, bit for bit.
"""

import contextlib
import logging
import pathlib
import signal
import time
from collections.abc import Callable

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

import vqjax
from vqjax import commands, sharding
from vqjax.errors import UserError
from vqjax.evaluation import table
from vqjax.runs import stopping
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.folder import open_run, to_json
from vqjax.runs.lock import locked
from vqjax.runs.log import Progress, RunWriter, parameter_summary
from vqjax.runs.occasions import Occasions
from vqjax.training import durations, guard
from vqjax.training.experiment import Experiment
from vqjax.training.generator_experiment import GeneratorExperiment
from vqjax.training.tokenizer_experiment import TokenizerExperiment
from vqjax.training.window import Window

log = logging.getLogger('vqjax')

# What is trained, by the part that its config has.
EXPERIMENTS: dict[str, Callable[[ConfigDict, Mesh], Experiment]] = {
  'model': TokenizerExperiment,
  'generator': GeneratorExperiment,
}


def train(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  *,
  allow_config_change: bool = False,
  experiment: Callable[[ConfigDict, Mesh], Experiment] | None = None,
) -> dict[str, float]:
  """Trains `config` in the folder `workdir`; returns the numbers of the last held-out look.

  Args:
    config: every field of `configs/common.py`, or of `configs/generation.py`.
    workdir: a new folder, or that of this run, which is gone on with.
    allow_config_change: go on although the config is not the one in the folder.
    experiment: what is trained; what `config` has a part for by default.

  Raises:
    UserError: anything that the user can mend.
  """
  ####### Backend and devices
  first = jax.process_index() == 0
  backend = jax.default_backend()
  log.info(
    'backend %s, %d device(s): %s', backend, jax.device_count(), jax.devices()[0].device_kind
  )
  if config.require_backend and config.require_backend != backend:
    raise UserError(
      f'config.require_backend is {config.require_backend!r} but JAX found {backend!r}; install '
      'the build for it (requirements.txt) or set --config.require_backend= to train here.'
    )
  mesh = sharding.make_mesh(config.mesh)

  ####### What is trained: data, networks, losses, optimizer
  experiment = experiment or next(EXPERIMENTS[part] for part in EXPERIMENTS if part in config)
  trained = experiment(config, mesh)
  total = trained.total_steps
  every = {
    key: durations.steps(
      config,
      key,
      where='config',
      batch_size=config.batch_size,
      num_examples=trained.num_examples,
      total_steps=total,
    )
    for key in ('log_every', 'eval_every', 'checkpoint_every')
  }
  occasions, allowed = Occasions(mesh, config.checkpoint_minutes), guard.allowed(config)
  due = lambda key, step: step == total or (every[key] and step % every[key] == 0)

  with contextlib.ExitStack() as stack:
    ####### Run folder
    if first:
      stack.enter_context(locked(pathlib.Path(workdir).expanduser(), '--workdir'))
    workdir, changes = open_run(
      workdir, config, allow_config_change=allow_config_change, write=first
    )
    for name, (old, new) in changes.items():
      log.info('config.%s was %r and is now %r', name, old, new)

    ####### Checkpoint, or a fresh start
    checkpoints = stack.enter_context(
      Checkpoints(
        workdir / 'checkpoints',
        keep=config.keep_checkpoints,
        best_metric=trained.best_metric,
      )
    )
    restored = checkpoints.restore(trained.abstract_state)
    if first and (restored is None or restored[1]['step'] < total):
      # One is deleted only when its successor is there.
      checkpoints.require_room(trained.abstract_state, 2 if restored is None else 1)
    if restored is None:
      log.info(parameter_summary(trained.parameters))
      state, start, seen, skipped = trained.start(), 0, 0, 0
    else:
      state, record = restored
      start, seen = record['step'], record['examples_seen']
      skipped = record.get('skipped_steps', 0)  # not there before 0.2
      log.info('going on from step %d of %s', start, workdir / 'checkpoints')

    ####### The loop
    writer = stack.enter_context(RunWriter(workdir, resume_step=start, enabled=first))
    writer.parameters(trained.parameters)
    batches = stack.enter_context(contextlib.closing(trained.batches(seen)))
    progress = Progress(
      *(total, config.batch_size), tokens_per_image=trained.tokens_per_example, start_step=start
    )
    window = Window(workdir / 'checkpoints', trained.examples, allowed=allowed, skipped=skipped)
    held_out, started = {}, time.perf_counter()
    wish = stack.enter_context(stopping.asked())

    for step in range(start + 1, total + 1):
      state, reported = trained.step(state, next(batches), step)
      window.add(step, reported, range(seen, seen + config.batch_size))
      seen += config.batch_size
      if step == start + 1:
        jax.block_until_ready(reported)
        progress.start(step)
        log.info('first step after %.0f s', time.perf_counter() - started)

      stop, late = occasions.behind(step, wish.by)
      saves = due('checkpoint_every', step) or late or stop
      # Not at the first step of a run that goes on: means are of the same steps as without a break.
      if due('log_every', step) or saves or step == 1:
        summary = window.summary()
        log.info(progress.line(step, table.line('progress', summary)))
        writer.scalars(step, summary | progress.pace)

      if due('eval_every', step):
        with progress.pause():
          look = trained.look(state)
        held_out = look.numbers
        writer.scalars(step, {f'eval/{name}': value for name, value in held_out.items()})
        for name, picture in look.pictures.items():
          writer.images(step, name, picture)
        words = ', '.join(table.line('held out', held_out))
        log.info('step %d: %d held-out images, %s', step, look.num_images, words)

      if saves:
        with progress.pause():
          record = {'config': to_json(config), 'examples_seen': seen, 'vqjax': vqjax.__version__}
          record['skipped_steps'] = window.skipped
          checkpoints.save(step, state, record, held_out if due('checkpoint_every', step) else {})
        occasions.saved()
      if stop and step < total:
        checkpoints.wait()
        log.info('%s: saved step %d; the same command goes on from there', stop.name, step)
        if stop == signal.SIGINT:
          raise KeyboardInterrupt
        return held_out

  log.info('done: %d steps in %s', total, workdir)
  log.info('next: %s', trained.next_command.format(workdir=workdir))
  return held_out


if __name__ == '__main__':
  config_flag = config_flags.DEFINE_config_file('config', help_string='configs/NAME.py[:ARG]')
  workdir_flag = flags.DEFINE_string('workdir', None, 'Run folder; runs/<config name> by default.')
  allow_flag = flags.DEFINE_bool(
    'allow_config_change', False, 'Resume although the config differs from the one in the folder.'
  )

  def main():
    """Reads the flags and trains."""
    config = commands.config_of(config_flag)
    workdir = workdir_flag.value or f'runs/{config.name}'
    train(config, workdir, allow_config_change=allow_flag.value)

  commands.run(commands.Program(main))
