"""Evaluates a trained tokenizer on held-out images.

python eval.py --workdir=runs/NAME [--step=N] [--num_images=N] [--data_path=FOLDER]

Writes eval/metrics.json, eval/reconstructions.png and eval/report.html into the run folder, and
prints the numbers with their protocol.
"""

import json
import logging

import jax
from absl import flags

from vqjax import commands, evaluation, pretrained, recipe, report, run_folder, sharding
from vqjax import data as datasets
from vqjax import logging as run_logging
from vqjax.errors import UserError

log = logging.getLogger('vqjax')


def evaluate(config, workdir, *, step=None, num_images=None) -> dict:
  """Evaluates the run in `workdir`, trained by `config`; returns what metrics.json holds.

  Args:
    config: the run's config, possibly with other `data` fields.
    workdir: folder of the run.
    step: of the checkpoint; None for the best by held-out PSNR (accuracy of a classifier).
    num_images: how many held-out images; None for all.

  Raises:
    UserError: no usable checkpoint, or data that cannot be read.
  """
  run_logging.setup()  # before JAX looks for devices and talks about it
  first = jax.process_index() == 0
  run_logging.setup(first)
  mesh = sharding.make_mesh(config.mesh)
  batch_size = config.batch_size // config.accumulate
  sharding.check_batch_size(mesh, batch_size, 'config.batch_size / config.accumulate')
  source = datasets.make_source(config.data, 'eval')
  size = config.data.image_size
  plan = recipe.for_evaluation(config)
  plan.tokenizer.check_size(size, size)
  variables, step = pretrained.read_variables(
    workdir,
    config,
    plan.tokenizer,
    step,
    place=lambda tree: sharding.target(tree, sharding.state(mesh, tree)),
  )
  params = variables.pop('params')

  result = evaluation.evaluate(
    evaluation.make_eval_step(plan, mesh),
    mesh,
    params,
    variables,
    datasets.eval_batches(
      source,
      config.data,
      batch_size=batch_size,
      limit=num_images,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ),
    pictures=evaluation.spread(min(num_images or len(source), len(source)), 32),
  )
  numbers = {**result.metrics, **dict.fromkeys(evaluation.NOT_COMPUTED), 'step': step}
  protocol = {
    'run': str(workdir),
    'data': source.description,
    'images': f'{size} x {size}, ' + json.dumps(config.data.eval.to_dict()),
    'rounding': 'clipped to [0, 1], rounded to 8 bits',
    # A Sinkhorn assignment depends on the whole batch, so the reader must know.
    'tokens': f'taken by {getattr(plan.tokenizer.quantizer.core, "eval_assign", "rounding")}',
    'weights': 'moving average' if config.ema_decay else 'as trained',
    'computed on': f'{jax.devices()[0].device_kind}, model in {config.model.dtype}',
    'metrics': evaluation.PROTOCOL | evaluation.NOT_COMPUTED,
  }
  if first:
    report.write(workdir / 'eval', numbers, protocol, result)
    log.info(report.table(numbers, protocol))
    log.info('written: %s', workdir / 'eval' / 'report.html')
  return numbers


if __name__ == '__main__':
  workdir_flag = flags.DEFINE_string(
    'workdir', None, 'Folder of a run of train.py, or of vqjax.convert.'
  )
  step_flag = flags.DEFINE_integer(
    'step', None, 'Checkpoint; the best by held-out PSNR by default.'
  )
  num_images_flag = flags.DEFINE_integer('num_images', None, 'Held-out images; all by default.')
  data_path_flag = flags.DEFINE_string(
    'data_path', None, 'Another config.data.path than trained on.'
  )

  def main():
    """Reads the flags and evaluates."""
    if not workdir_flag.value:
      raise UserError('--workdir is missing; for example --workdir=runs/rot_vqgan_demo.')
    workdir, config = run_folder.read_config(workdir_flag.value)
    if data_path_flag.value:
      config.data.path = data_path_flag.value
    evaluate(config, workdir, step=step_flag.value, num_images=num_images_flag.value)

  commands.run(main)
