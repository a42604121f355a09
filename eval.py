"""Evaluates a trained tokenizer on held-out images, or any two folders of images.

python eval.py --workdir=runs/NAME [--out=FOLDER] [--step=N] [--data_path=FOLDER]
               [--rounding=uint8|none|wrap] [--eval_assign=NAME]
python eval.py --originals=FOLDER --reconstructions=FOLDER --out=FOLDER

Both take --num_images=N, --batch_size=N, --reference=FILE, --save_reference=FILE and --quick.
Writes metrics.json, reconstructions.png, pictures.npz and report.html into the run's folder eval/,
or into --out, and prints the numbers, each with its protocol.
"""

import contextlib
import functools
import logging
import pathlib

import jax
from absl import flags

from vqjax import commands, pretrained, quantizers, sharding, weights
from vqjax import data as datasets
from vqjax.data.pairs import open_pairs, pair_batches
from vqjax.errors import UserError
from vqjax.evaluation import scoring
from vqjax.evaluation import statistics as feature_statistics
from vqjax.evaluation import totals as evaluation
from vqjax.report import report
from vqjax.runs.folder import read_config
from vqjax.runs.log import setup
from vqjax.training import recipe

log = logging.getLogger('vqjax')

SAMPLES = 32  # images in the report, evenly spread over the set


def evaluate(
  config,
  workdir,
  *,
  step=None,
  num_images=None,
  batch_size=None,
  rounding='uint8',
  out=None,
  **more,
) -> dict:
  """Evaluates the run in `workdir`, trained by `config`; returns the numbers of metrics.json.

  Args:
    config: the run's config, possibly with other `data` fields.
    workdir: folder of the run.
    step: of the checkpoint; None for the best by held-out PSNR (accuracy of a classifier).
    num_images: how many held-out images; None for all.
    batch_size: of all devices together; the config's by default. No number depends on it, unless
      the quantizer's `eval_assign` looks at the whole batch, as `Sinkhorn` does.
    rounding: of reconstructions before they are compared, a name in `scoring.ROUNDINGS`.
    out: folder for the report; `eval` in the run's by default.
    **more: `reference`, `save_reference` and `quick`, see `compare_folders`.

  Raises:
    UserError: no usable checkpoint, or data that cannot be read.
  """
  _start()
  _check(num_images, batch_size)
  mesh = sharding.make_mesh(config.mesh)
  batch_size = batch_size or config.batch_size // config.accumulate
  sharding.check_batch_size(mesh, batch_size, 'the batch size of the evaluation')
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
  networks = _networks(more)
  batches = lambda: datasets.eval_batches(
    source,
    config.data,
    batch_size=batch_size,
    limit=num_images,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  evaluator = evaluation.make_eval_step(plan, mesh, networks=networks, rounding=rounding)

  def look():
    with contextlib.closing(batches()) as first:
      return evaluation.cloud(plan, mesh, params, variables, next(first))

  return _evaluate(
    functools.partial(evaluator, params, variables),
    batches(),
    networks,
    (size, size),
    pathlib.Path(out or pathlib.Path(workdir) / 'eval'),
    {
      'run': str(workdir),
      'data': source.description,
      'images': f'{size} x {size}: {datasets.make_transform(config.data, "eval")}',
      'rounding': scoring.ROUNDING_PROTOCOL[rounding],
      'tokens': _tokens(plan.tokenizer.quantizer, batch_size),
      'weights': 'moving average' if config.ema_decay else 'as trained',
      'computed on': f'{_device()}, model in {config.model.dtype}',
    },
    total=min(num_images or len(source), len(source)),
    num_codes=plan.num_codes,
    classifies=plan.tokenizer.classifies,
    step=step,
    curves=pathlib.Path(workdir) / 'metrics.jsonl',
    look=look,
    **more,
  )


def compare_folders(
  originals,
  reconstructions,
  out,
  *,
  num_images=None,
  batch_size=None,
  reference=None,
  save_reference=None,
  quick=False,
) -> dict:
  """Evaluates images that another program made; returns the numbers of metrics.json.

  Args:
    originals: folder of images.
    reconstructions: folder with images of the same names, whatever their suffix, and size.
    out: folder for the report.
    num_images: how many, in the order of their names; None for all.
    batch_size: of all devices together; two a device by default. No number depends on it.
    reference: an `.npz` of statistics, for rFID to compare with in place of the originals.
    save_reference: such a file to be written, of the originals.
    quick: without LPIPS and Inception, which take nearly all the time.

  Raises:
    UserError: folders or images that do not fit together, or cannot be read.
  """
  _start()
  _check(num_images, batch_size)
  mesh = sharding.make_mesh({'data': -1, 'fsdp': 1})
  batch_size = batch_size or 2 * mesh.size
  sharding.check_batch_size(mesh, batch_size, '--batch_size')
  pairs = open_pairs(originals, reconstructions)
  more = {'reference': reference, 'save_reference': save_reference, 'quick': quick}
  networks = _networks(more)
  total = min(num_images or len(pairs), len(pairs))
  height, width = pairs.size
  return _evaluate(
    evaluation.make_pair_step(mesh, networks),
    pair_batches(pairs, batch_size, total),
    networks,
    pairs.size,
    pathlib.Path(out),
    {
      'run': str(reconstructions),
      'data': f'{total} images of {originals}',
      'images': f'{height} x {width}, as they are in the files',
      'rounding': 'none: 8 bits as they are in the files',
      'computed on': _device(),
    },
    total=total,
    **more,
  )


def _start():
  setup()  # before JAX looks for devices and talks about it
  setup(jax.process_index() == 0)


def _check(num_images, batch_size):
  for name, value in (('num_images', num_images), ('batch_size', batch_size)):
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; legal: 1 or more.')


def _tokens(quantizer, batch_size):
  """How tokens are taken; by what looks at a whole batch, they depend on its size."""
  assign = getattr(quantizer.core, 'eval_assign', None)
  if isinstance(assign, quantizers.Nearest | None):
    return 'each the nearest code, by search or by rounding'
  return f'of {batch_size} images together, taken by {assign}'


def _device():
  precision = jax.config.jax_default_matmul_precision or 'default'
  return f'{jax.devices()[0].device_kind}, products of the model in {precision} precision'


def _networks(more):
  return {} if more.get('quick') else scoring.load_networks()


def _evaluate(
  evaluator,
  batches,
  networks,
  size,
  out,
  protocol,
  *,
  total,
  num_codes=None,
  classifies=False,
  step=None,
  curves=None,
  look=None,
  reference=None,
  save_reference=None,
  quick=False,
):
  """Runs it, completes the protocol, and writes everything into the folder `out`."""
  missing = {} if classifies else scoring.missing(networks, size)
  for name, path in (('reference', reference), ('save_reference', save_reference)):
    if path and (classifies or 'inception' not in networks):
      why = 'left out by --quick' if quick else missing.get('rfid', 'a classifier has no images')
      raise UserError(f'--{name}={path} is for rfid, and there is none: {why}.')
  if quick:
    missing |= dict.fromkeys(missing.keys() - scoring.PIXELS.keys(), 'left out by --quick')
  statistics = feature_statistics.load(reference, width=2048) if reference else None
  out = out.expanduser()
  try:
    out.mkdir(parents=True, exist_ok=True)  # before the work rather than after it
  except OSError as error:
    raise UserError(f'cannot make {out}: {error.strerror}; choose another --out.') from error
  found = evaluation.evaluate(
    evaluator,
    batches,
    num_codes=num_codes,
    samples=evaluation.spread(total, SAMPLES),
    reference=statistics,
    missing=missing,
  )
  meaning = scoring.definitions(networks) | found.missing
  if found.metrics.get('rfid') is not None:
    meaning['rfid'] += _against(found.statistics, reference, statistics)
  protocol['metrics'] = {name: meaning[name] for name in found.metrics if name in meaning}
  numbers = dict(found.metrics) if step is None else {**found.metrics, 'step': step}
  if look is not None:
    found.cloud = look()
  if jax.process_index() == 0:
    report.write(out, numbers, protocol, found, curves)
    log.info(report.table(numbers, protocol))
    log.info('written: %s', out / 'report.html')
    if save_reference:
      of = (protocol[name] for name in ('data', 'images'))
      found.statistics.save(save_reference, '; '.join((*of, weights.provenance('inception'))))
      log.info('written: %s', save_reference)
  return numbers


def _against(originals, path, statistics):
  """What rFID was compared with, and whether that were enough images."""
  if statistics is None:
    text = '; against the originals of the same images'
  else:
    of = f', {statistics.count} images' if statistics.count else ''
    text = f'; against {path}{of}, {statistics.provenance or "origin unknown"}'
  if originals.count <= len(originals.mean):
    text += f'; far above that of many images, as there are only {originals.count}'
  return text


if __name__ == '__main__':
  string, integer = flags.DEFINE_string, flags.DEFINE_integer
  workdir_flag = string('workdir', None, 'Folder of a run of train.py, or of vqjax.convert.')
  step_flag = integer('step', None, 'Checkpoint; the best by held-out PSNR by default.')
  data_path_flag = string('data_path', None, 'Images in place of those that the run held out.')
  eval_assign_flag = string(
    'eval_assign', None, "How codes are assigned, in place of the quantizer's own eval_assign."
  )
  rounding_flag = flags.DEFINE_enum(
    'rounding', 'uint8', list(scoring.ROUNDINGS), 'Of reconstructions before they are compared.'
  )
  originals_flag = string('originals', None, 'Folder of images, in place of a run.')
  reconstructions_flag = string('reconstructions', None, 'Folder of what was made of them.')
  out_flag = string('out', None, "Folder for the report; a run's is eval/ in it by default.")
  num_images_flag = integer('num_images', None, 'So many images; all by default.')
  batch_size_flag = integer(
    'batch_size', None, "Images at a time; by default the run's, or 2 a device."
  )
  reference_flag = string('reference', None, 'Statistics (.npz) that rFID compares with.')
  save_reference_flag = string('save_reference', None, 'Where to write those of the originals.')
  quick_flag = flags.DEFINE_bool('quick', False, 'Without LPIPS, rFID and Inception score.')

  def main():
    """Reads the flags and evaluates."""
    shared = {
      'num_images': num_images_flag.value,
      'batch_size': batch_size_flag.value,
      'reference': reference_flag.value,
      'save_reference': save_reference_flag.value,
      'quick': quick_flag.value,
    }
    if originals_flag.value or reconstructions_flag.value:
      folders = originals_flag.value, reconstructions_flag.value, out_flag.value
      of_runs = ('workdir', 'step', 'data_path', 'eval_assign', 'rounding')
      if not all(folders) or any(flags.FLAGS[name].present for name in of_runs):
        raise UserError(
          'two folders of images are evaluated by --originals, --reconstructions and --out '
          f'together, without {", ".join(f"--{name}" for name in of_runs)}.'
        )
      compare_folders(*folders, **shared)
      return
    if not workdir_flag.value:
      raise UserError('--workdir is missing; for example --workdir=runs/rot_vqgan_demo.')
    workdir, config = read_config(workdir_flag.value)
    datasets.choose_images(config.data, data_path_flag.value)
    pretrained.override(config, eval_assign=eval_assign_flag.value)
    evaluate(
      config,
      workdir,
      step=step_flag.value,
      rounding=rounding_flag.value,
      out=out_flag.value,
      **shared,
    )

  commands.run(
    commands.Program(
      main,
      interrupted='run the same command again',
      memory='fewer images at a time need less: --batch_size=N',
    )
  )
