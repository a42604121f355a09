"""Trains a tokenizer.

python train.py --config=configs/NAME.py[:ARG] [--workdir=runs/NAME] [--config.KEY=VALUE ...]

Run again on the same folder, it goes on where it stopped, bit for bit.
"""

import contextlib
import functools
import logging
import time

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

import vqjax
from vqjax import commands, sharding, weights
from vqjax import data as datasets
from vqjax.errors import UserError
from vqjax.evaluation import totals as evaluation
from vqjax.report import pictures
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.folder import open_run, to_json
from vqjax.runs.log import Progress, RunWriter, parameter_overview, setup
from vqjax.training import durations, recipe, state
from vqjax.training import step as step_functions
from vqjax.training.warm_start import warm_start

log = logging.getLogger('vqjax')

# Shown in the progress line, where the run has them; metrics.jsonl has everything.
SHOWN = (
  *('loss', 'l1', 'l2', 'perceptual', 'cross_entropy', 'accuracy'),
  *('commitment', 'generator', 'gan_weight'),
  *('usage', 'perplexity', 'dead'),
)
HELD_OUT = {
  'psnr': 'PSNR {:.2f} dB',
  'psnr_mean_color': 'of the mean colour alone {:.2f}',
  'ssim': 'SSIM {:.3f}',
  'accuracy': 'accuracy {:.1%}',
  'usage': 'usage {:.0%}',
}


def train(config, workdir, *, allow_config_change=False) -> dict:
  """Trains `config` in the folder `workdir`; returns the metrics of the last evaluation.

  Raises:
    UserError: anything that the user can mend.
  """
  ####### Backend and devices
  setup()  # before JAX looks for devices and talks about it
  first = jax.process_index() == 0
  setup(first)
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
  sharding.check_batch_size(mesh, config.batch_size, 'config.batch_size', config.accumulate)
  if config.seed < 0:
    raise UserError(f'config.seed is {config.seed}; legal: 0 or more.')

  ####### Data
  sources = {split: datasets.make_source(config.data, split) for split in ('train', 'eval')}
  for split, source in sources.items():
    log.info('%s data: %s', split, source.description)

  ####### Recipe: networks, losses, optimizer
  num_examples = len(sources['train'])
  plan = recipe.build(config, num_examples)
  perceptual = None  # parameters, constant: an argument of the step and in no checkpoint
  if plan.perceptual is not None:
    perceptual = weights.load(f'lpips_{plan.perceptual.net}')
    perceptual = jax.device_put(perceptual, sharding.replicated(mesh))
  total = recipe.total_steps(config, num_examples)
  every = {
    key: durations.steps(
      config,
      key,
      where='config',
      batch_size=config.batch_size,
      num_examples=num_examples,
      total_steps=total,
    )
    for key in ('log_every', 'eval_every', 'checkpoint_every')
  }
  due = lambda key, step: step == total or (every[key] and step % every[key] == 0)

  ####### Run folder
  workdir, changes = open_run(workdir, config, allow_config_change=allow_config_change, write=first)
  for name, (old, new) in changes.items():
    log.info('config.%s was %r and is now %r', name, old, new)

  ####### State, born sharded
  size = config.data.image_size
  create = functools.partial(state.create, plan, image_shape=(1, size, size, 3))
  key = jax.random.key(config.seed)
  abstract = jax.eval_shape(create, key)
  shardings = sharding.state(mesh, abstract)
  train_step = jax.jit(
    functools.partial(step_functions.train_step, plan),
    static_argnames='stage',
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  eval_step = evaluation.make_eval_step(plan, mesh)

  with contextlib.ExitStack() as stack:
    ####### Checkpoint, or a fresh start
    checkpoints = stack.enter_context(
      Checkpoints(
        workdir / 'checkpoints',
        keep=config.keep_checkpoints,
        best_metric=plan.tokenizer.best_metric,
      )
    )
    restored = checkpoints.restore(sharding.target(abstract, shardings))
    if restored is None:
      now = jax.jit(create, out_shardings=shardings)(key)
      start, seen = 0, 0
      log.info(parameter_overview(now.generator.params))
      if config.init_from:
        log.info('starting from %s', config.init_from)
        now = warm_start(plan, now, config.init_from, discriminator=config.init_discriminator)
        now = jax.device_put(now, shardings)
    else:
      now, record = restored
      start, seen = int(now.step), record['examples_seen']
      log.info('going on from step %d of %s', start, workdir / 'checkpoints')

    ####### The loop
    writer = stack.enter_context(RunWriter(workdir, resume_step=start, enabled=first))
    processes = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    batches = stack.enter_context(
      contextlib.closing(
        datasets.train_batches(
          sources['train'],
          config.data,
          batch_size=config.batch_size,
          seed=config.seed,
          start=seen,
          **processes,
        )
      )
    )
    if restored is None and config.seed_codebook_batches:
      log.info('seeding the codebook from %d batches', config.seed_codebook_batches)
      now = _seed_codebooks(plan, config, sources['train'], mesh, shardings, now, processes)
    progress = Progress(total, config.batch_size, start_step=start)
    pending, held_out, started = [], {}, time.perf_counter()
    stage = recipe.Stage()

    for step in range(start + 1, total + 1):
      batch = sharding.put_batch(mesh, next(batches))
      before, stage = stage, plan.stage(step - 1)
      for part in ('discriminator', 'generator'):
        if getattr(stage, part) and not getattr(before, part):
          log.info("step %d: the %s's GAN loss takes part from here on", step, part)
      now, scalars = train_step(now, batch, stage=stage, perceptual=perceptual)
      seen += config.batch_size
      pending.append((step, scalars))
      if step == start + 1:
        jax.block_until_ready(scalars)
        progress.start(step)
        log.info('first step after %.0f s', time.perf_counter() - started)

      if due('log_every', step) or due('checkpoint_every', step) or step == start + 1:
        shown = _summary(pending, workdir)
        pending = []
        log.info(progress.line(step, {k: shown[k] for k in SHOWN if k in shown}))
        if progress.images_per_second is not None:
          shown['images_per_second'] = progress.images_per_second
        writer.scalars(step, shown)

      if due('eval_every', step):
        with progress.pause():
          held_out = _evaluate(
            config, plan, sources['eval'], eval_step, now, writer, step, processes
          )

      if due('checkpoint_every', step):
        with progress.pause():
          record = {
            'config': to_json(config),
            'examples_seen': seen,
            'vqjax': vqjax.__version__,
          }
          checkpoints.save(step, now, record, held_out)

  log.info('done: %d steps in %s', total, workdir)
  log.info('next: python eval.py --workdir=%s', workdir)
  return held_out


def _seed_codebooks(plan, config, source, mesh, shardings, now, processes):
  """The first training batches, drawn beside the loop's own, through k-means."""
  with contextlib.closing(
    datasets.train_batches(
      source, config.data, batch_size=config.batch_size, seed=config.seed, start=0, **processes
    )
  ) as batches:
    images = [
      sharding.put_batch(mesh, next(batches)['image']) for _ in range(config.seed_codebook_batches)
    ]
  seed = jax.jit(functools.partial(step_functions.seed_codebooks, plan), out_shardings=shardings)
  return seed(now, images)


def _summary(pending, workdir):
  """Means over the steps since the last summary; usage and perplexity over all their tokens.

  Raises:
    UserError: a term that is not finite; names the first step and the terms.
  """
  window = jax.device_get(pending)
  for step, scalars in window:
    bad = [name for name, value in scalars.items() if not np.isfinite(value).all()]
    if bad:
      raise UserError(
        f'step {step}: {", ".join(sorted(bad))} not finite; training stopped and the last '
        f'checkpoint in {workdir / "checkpoints"} is from before. Lower '
        '--config.optimizer.learning_rate or set --config.optimizer.clip_norm=1.0, with '
        '--allow_config_change to go on from there.'
      )
  scalars = [scalars for _, scalars in window]
  counts = sum(s.pop('code_counts') for s in scalars)
  names = dict.fromkeys(name for s in scalars for name in s)
  summary = {name: float(np.mean([s[name] for s in scalars if name in s])) for name in names}
  used = counts / counts.sum()
  summary['usage'] = float((counts > 0).mean())
  summary['perplexity'] = float(np.exp(-np.sum(used * np.log(np.where(used > 0, used, 1)))))
  return summary


def _evaluate(config, plan, source, eval_step, now, writer, step, processes):
  """Evaluates on held-out images, logs numbers and a picture; returns the numbers."""
  batches = datasets.eval_batches(
    source,
    config.data,
    batch_size=config.batch_size // config.accumulate,
    limit=config.eval_images,
    **processes,
  )
  found = evaluation.evaluate(
    functools.partial(eval_step, now.eval_params, now.generator.variables),
    batches,
    num_codes=plan.num_codes,
    samples=evaluation.spread(min(config.eval_images, len(source)), config.sample_images),
  )
  numbers = {name: value for name, value in found.metrics.items() if value is not None}
  writer.scalars(step, {f'eval/{name}': value for name, value in numbers.items()})
  if found.samples:
    samples = found.samples
    picture = pictures.comparison(samples.originals, samples.reconstructions)
    writer.images(step, 'held_out', picture)
  shown = [text.format(numbers[name]) for name, text in HELD_OUT.items() if name in numbers]
  log.info('step %d: %d held-out images, %s', step, numbers['num_images'], ', '.join(shown))
  return numbers


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

  commands.run(main)
