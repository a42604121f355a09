"""The evaluation of a trained tokenizer on held-out images, or of any two folders of images."""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from vqjax import data as datasets
from vqjax import quantizers, saved_models, sharding, tokenizer, weights
from vqjax.data.pairs import open_pairs, pair_batches
from vqjax.errors import UserError
from vqjax.evaluation import baselines as others
from vqjax.evaluation import scoring, statistics
from vqjax.evaluation.cloud import cloud
from vqjax.evaluation.collect import collect, spread
from vqjax.evaluation.results import Evaluation, Found
from vqjax.evaluation.step import make_eval_step, make_pair_step
from vqjax.evaluation.totals import Subset
from vqjax.task import task_of

SAMPLES = 32  # images to be shown, evenly spread over the set
# What a converted checkpoint's config does not say.
_OBJECTIVE = {'l2': 1.0}
_MESH = {'data': -1, 'fsdp': 1}
_BATCH_SIZE = 16


def evaluate_run(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  *,
  step: int | None = None,
  num_images: int | None = None,
  batch_size: int | None = None,
  rounding: str = 'uint8',
  baselines: bool = True,
  **more: Any,
) -> Evaluation:
  """Evaluates the run in `workdir`, trained by `config`.

  Args:
    config: the run's config, possibly with other `data` fields. Its parts `model`, `quantizer` and
      `data` are enough, as a converted checkpoint's: `rec_loss` then is the mean squared error.
    workdir: folder of the run.
    step: of the checkpoint; None for the best by held-out PSNR (accuracy of a classifier).
    num_images: how many held-out images; None for all.
    batch_size: of all devices together; by default what training has at a time, and 16 for a
      converted checkpoint. No number depends on it, unless the quantizer's `eval_assign` looks at
      the whole batch, as `Sinkhorn` does.
    rounding: of reconstructions before they are compared, a name in `scoring.ROUNDINGS`.
    baselines: measure what JPEG, WebP and k-means on patches make of the same images, see
      evaluation/baselines.py; not of a classifier. The first process does, alone.
    **more: `reference`, `save_reference` and `quick`, see `evaluate_folders`.

  Raises:
    UserError: no usable checkpoint, or data that cannot be read.
  """
  _check(num_images, batch_size)
  mesh = sharding.make_mesh(config.get('mesh', _MESH))
  batch_size = batch_size or config.get('batch_size', _BATCH_SIZE) // config.get('accumulate', 1)
  sharding.check_batch_size(mesh, batch_size, 'the batch size of the evaluation')
  source = datasets.make_source(config.data, 'eval')
  size = config.data.image_size
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  model.check_size(size, size)
  task = task_of(model)
  variables, step = saved_models.read_variables(
    workdir,
    config,
    model,
    step,
    place=lambda tree: sharding.target(tree, sharding.state(mesh, tree)),
  )
  params = variables.pop('params')
  setup = _Setup((size, size), images=task.makes_images, **more)
  loss_weights = task.weights(config.get('loss', _OBJECTIVE))
  eval_step = make_eval_step(
    model, loss_weights, mesh, network_params=setup.network_params, rounding=rounding
  )
  batches = lambda: datasets.eval_batches(
    source,
    config.data,
    batch_size=batch_size,
    limit=num_images,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  total = min(num_images or len(source), len(source))
  beside = baselines and task.makes_images and jax.process_index() == 0
  subset = Subset(spread(total, others.MOST_IMAGES)) if beside else None
  found = setup.collect(
    functools.partial(eval_step, params, variables),
    batches(),
    total=total,
    num_codes=model.quantizer.num_codes,
    subset=subset,
  )
  found.metrics['step'] = step
  found.curves = pathlib.Path(workdir) / 'metrics.jsonl'
  with contextlib.closing(batches()) as first:
    found.cloud = cloud(model, mesh, params, variables, next(first))
  if subset is not None:
    rate = found.metrics['bits_per_pixel']
    assert rate is not None  # there are images, or `collect` had raised
    training = _training_data(config.data, workdir)
    found.baselines = others.measure(
      subset, rate, training, setup.network_params, quick=setup.quick
    )
  found.protocol = {
    'run': str(workdir),
    'data': source.description,
    'images': f'{size} x {size}: {datasets.make_transform(config.data, "eval")}',
    'rounding': scoring.ROUNDINGS[rounding].meaning,
    'tokens': _tokens(model.quantizer, batch_size),
    'weights': 'moving average' if config.get('ema_decay') else 'as trained',
    'computed on': f'{_device()}, model in {config.model.dtype}',
  } | found.protocol
  return found


def evaluate_folders(
  originals: str | pathlib.Path,
  reconstructions: str | pathlib.Path,
  *,
  num_images: int | None = None,
  batch_size: int | None = None,
  reference: str | pathlib.Path | None = None,
  save_reference: str | pathlib.Path | None = None,
  quick: bool = False,
) -> Evaluation:
  """Evaluates images that another program made.

  Args:
    originals: folder of images.
    reconstructions: folder with images of the same names, whatever their suffix, and size.
    num_images: how many, in the order of their names; None for all.
    batch_size: of all devices together; two a device by default. No number depends on it.
    reference: an `.npz` of statistics, for rFID to compare with in place of the originals.
    save_reference: where the caller is going to save those of the originals, `statistics` of what
      is returned: an error where there will be none.
    quick: without LPIPS and Inception, which take nearly all the time.

  Raises:
    UserError: folders or images that do not fit together, or cannot be read.
  """
  _check(num_images, batch_size)
  mesh = sharding.make_mesh(_MESH)
  batch_size = batch_size or 2 * mesh.size
  sharding.check_batch_size(mesh, batch_size, '--batch_size')
  pairs = open_pairs(originals, reconstructions)
  total = min(num_images or len(pairs), len(pairs))
  height, width = pairs.size
  setup = _Setup(pairs.size, reference=reference, save_reference=save_reference, quick=quick)
  step = make_pair_step(mesh, setup.network_params)
  found = setup.collect(step, pair_batches(pairs, batch_size, total), total=total)
  found.protocol = {
    'run': str(reconstructions),
    'data': f'{total} images of {originals}',
    'images': f'{height} x {width}, as they are in the files',
    'rounding': 'none: 8 bits as they are in the files',
    'computed on': _device(),
  } | found.protocol
  return found


def save_statistics(found: Evaluation, path: str | pathlib.Path) -> None:
  """Writes the statistics of the originals' features, with what they are of.

  Raises:
    UserError: the file cannot be written.
  """
  of = *(found.protocol[name] for name in ('data', 'images')), weights.provenance('inception')
  assert found.statistics is not None  # `save_reference` asked for them
  found.statistics.save(path, '; '.join(of))


class _Setup:
  """Pretrained networks and reference statistics; made before any work, so as to fail before it."""

  def __init__(self, size, *, images=True, reference=None, save_reference=None, quick=False):
    self.quick = quick
    self.network_params = {} if quick else scoring.load_network_params()
    self._missing = scoring.missing(self.network_params, size) if images else {}
    for name, path in (('reference', reference), ('save_reference', save_reference)):
      if path and (not images or 'inception' not in self.network_params):
        why = self._missing.get('rfid', 'a classifier has no images')
        why = 'left out by --quick' if quick else why
        raise UserError(f'--{name}={path} is for rfid, and there is none: {why}.')
    if quick:
      slow = self._missing.keys() - scoring.PIXELS.keys()
      self._missing |= dict.fromkeys(slow, 'left out by --quick')
    self._path = reference
    self._reference = statistics.load(reference, width=2048) if reference else None

  def collect(
    self,
    step: Callable[[Any], Found],
    batches: Any,
    *,
    total: int,
    num_codes: int | None = None,
    subset: Subset | None = None,
  ) -> Evaluation:
    """Runs over the batches; `protocol` of what is returned has the meaning of every number."""
    found = collect(
      step,
      batches,
      num_codes=num_codes,
      samples=spread(total, SAMPLES),
      reference=self._reference,
      missing=self._missing,
      subset=subset,
    )
    meaning = scoring.definitions(self.network_params) | found.missing
    if found.metrics.get('rfid') is not None:
      meaning['rfid'] += self._against(found.statistics)
    named = {name: meaning[name] for name in found.metrics if name in meaning}
    found.protocol = {'metrics': named}
    return found

  def _against(self, originals):
    """What rFID was compared with, and whether that were enough images."""
    if self._reference is None:
      text = '; against the originals of the same images'
    else:
      of = f', {self._reference.count} images' if self._reference.count else ''
      text = f'; against {self._path}{of}, {self._reference.provenance or "origin unknown"}'
    if originals.count <= len(originals.mean):
      text += f'; far above that of many images, as there are only {originals.count}'
    return text


def _training_data(evaluated, workdir):
  """The data that the run was trained on, whatever it is evaluated on, and cut as that is."""
  own = saved_models.read_run(workdir)[1].data.to_dict()
  cut = {name: evaluated[name] for name in ('image_size', 'eval')}
  return ml_collections.ConfigDict(own | cut)


def _check(num_images, batch_size):
  for name, value in (('num_images', num_images), ('batch_size', batch_size)):
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; legal: 1 or more.')


def _tokens(quantizer, batch_size):
  """How tokens are taken; by what looks at a whole batch, they depend on its size."""
  rule = quantizer.eval_rule
  if isinstance(rule, quantizers.Nearest | None):
    return 'each the nearest code, by search or by rounding'
  if quantizer.batch_dependent:
    return f'of {batch_size} images together, taken by {rule}'
  return f'each by {rule}'


def _device():
  # JAX adds its options to the class while it is imported.
  precision = jax.config.jax_default_matmul_precision or 'default'  # type: ignore[attr-defined]
  return f'{jax.devices()[0].device_kind}, products of the model in {precision} precision'
