"""The evaluation of images that a generator made, by the protocol of the ADM evaluator."""

import logging
import pathlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from vqjax import sharding, weights
from vqjax.errors import UserError
from vqjax.evaluation import adm
from vqjax.evaluation.collect import spread
from vqjax.evaluation.nearest import Nearest
from vqjax.evaluation.references import Reference, open_reference, write_reference
from vqjax.evaluation.results import Evaluation, Generated
from vqjax.evaluation.shown import Shown, chosen
from vqjax.evaluation.step import make_sample_step
from vqjax.evaluation.table import OF_SAMPLES
from vqjax.runs.log import ImageProgress

log = logging.getLogger('vqjax')

WITH_NEAREST = 16  # samples beside which nearest images are shown
BATCH_SIZE = 32  # images that Inception sees at a time, where nothing else is said
_MESH = {'data': -1, 'fsdp': 1}


def evaluate_samples(
  samples: Iterable[np.ndarray],
  reference: str | pathlib.Path | Reference,
  *,
  num_images: int,
  name: str = 'samples',
  labels: Sequence[int] | np.ndarray | None = None,
  class_names: Sequence[str] = (),
  training: Iterable[np.ndarray] | None = None,
  batch_size: int | None = None,
  save_reference: str | pathlib.Path | None = None,
) -> Evaluation:
  """Judges images as they come; memory does not grow with their number.

  Every process judges all that it is given, on its own devices.

  Args:
    samples: batches of uint8 [b H W 3], all of one size.
    reference: what they are compared with, or where it is, see `references.open_reference`.
    num_images: how many samples there are; what comes after them is not asked for.
    name: of the samples, for the protocol.
    labels: class of each sample, int [N]; with them the report shows samples by class.
    class_names: of the labels.
    training: batches of the images that the generator learned from, uint8 [b H' W' 3], to show the
      nearest of them beside samples; by default those of the reference.
    batch_size: images that Inception sees at a time, of all devices together; 32, or one a device,
      by default. No number depends on it.
    save_reference: where to write what `reference` is, of images, in the layout of ADM's files.

  Raises:
    UserError: no Inception on this machine; samples of several sizes, or of another one than the
      reference's; a reference that cannot be read; fewer than two images.
  """
  check(num_images=num_images, batch_size=batch_size)
  mesh = sharding.make_mesh(_MESH, jax.local_devices())
  batch_size = batch_size or -(-BATCH_SIZE // mesh.size) * mesh.size
  sharding.check_batch_size(mesh, batch_size, '--batch_size')
  against = reference if isinstance(reference, Reference) else open_reference(reference)
  if save_reference and against.statistics:
    raise UserError(
      f'--save_reference={save_reference} is for a reference of images, and {against.path}'
      ' has statistics already: copy that file.'
    )
  see = _see(make_sample_step(mesh, {'inception': weights.load('inception')}), batch_size)

  seen, shown = adm.Seen(), Shown(chosen(num_images, labels))
  progress, position, size = ImageProgress(num_images), 0, None
  for batch in _up_to(samples, num_images):
    size = _checked(batch, size, against)
    for images, found in see(batch):
      seen.add(found)
      shown.add(position, images, found)
      position += len(images)
    progress.add(len(batch))
  if size is None or seen.pool is None or seen.pool.count < 2:
    raise UserError(f'{name}: {position} images; legal: 2 or more, for a covariance.')
  if labels is not None:
    shown.by_class(labels)
  beside = sorted(spread(len(shown.features), WITH_NEAREST))
  nearest = Nearest(np.stack([shown.features[i] for i in beside]))

  real = adm.Seen()
  if against.images is not None:
    _see_reference(see, against, real, nearest if training is None else None, batch_size)
  statistics = against.statistics or real.statistics
  if save_reference and jax.process_index() == 0:
    _save(save_reference, against, statistics)
  for batch in training or ():
    for images, found in see(batch):
      nearest.add(found['pool'], images)

  rows = None if against.images is None else real.rows
  numbers, missing = adm.numbers(seen, statistics, rows)
  every = {**numbers, 'num_images': seen.pool.count}
  return Evaluation(
    {metric: every.get(metric) for metric in OF_SAMPLES},
    missing,
    generated=Generated(
      np.array(shown.positions),
      np.stack(shown.images),
      None if labels is None else [_class(labels[i], class_names) for i in shown.positions],
      _nearest(beside, nearest),
      f'of the reference, {against.path}' if training is None else 'of the training data',
    ),
    protocol={
      'run': name,
      'data': _described(against),
      'images': f'{size[0]} x {size[1]}, 8 bits',
      'computed on': f'{jax.local_devices()[0].device_kind}, in float32',
      'metrics': _meanings(missing, seen, against, len(real.rows)),
    },
  )


def check(**options: int | None) -> None:
  """Refuses options that are given and below 1."""
  for name, value in options.items():
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; legal: 1 or more.')


def _see(step, batch_size):
  """A function of images [b H W 3] that gives pieces of them with what Inception says of each."""

  def see(batch):
    for start in range(0, len(batch), batch_size):
      images = batch[start : start + batch_size]
      missing = batch_size - len(images)
      filled = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])  # one program for all
      found = step({'image': filled})
      yield images, {name: array[: len(images)] for name, array in found.items()}

  return see


def _up_to(batches, count):
  for batch in batches:
    yield (batch := np.asarray(batch)[:count])
    count -= len(batch)
    if not count:
      return


def _checked(batch, size, against):
  """The size of images that can go on where those before were of `size`, or None."""
  if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
    raise UserError(
      f'samples are {batch.dtype} {list(batch.shape)}; legal: uint8 [B H W 3], colours of 0 to 255.'
    )
  height, width = found = batch.shape[1:3]
  wanted, whose = size, 'those before'
  if size is None and against.images is not None:
    wanted, whose = against.images.size, f'those of the reference {against.path}'
  if wanted not in (None, found):
    raise UserError(
      f'samples have {width} x {height} pixels, and {whose} {wanted[1]} x {wanted[0]}; make '
      'them of one size before: how they are resized moves the numbers.'
    )
  return found


def _see_reference(see, against, real, nearest, batch_size):
  """All images, for statistics, if these are not stored; else those that `rows` takes."""
  in_rows = against.positions()
  positions = sorted(in_rows) if against.statistics else range(len(against.images))
  progress, done = ImageProgress(len(positions)), 0
  for batch in against.images.batches(batch_size, positions):
    for images, found in see(batch):
      here = positions[done : done + len(images)]
      real.add(found, np.array([i in in_rows for i in here]))
      if nearest is not None:
        nearest.add(found['pool'], images)
      done += len(images)
    progress.add(len(batch))


def _save(path, against, statistics):
  text = f'{_described(against)}; {weights.provenance("inception")}; resized as ADM'
  write_reference(path, against, statistics, text)
  log.info('written: %s', path)


def _nearest(beside, nearest):
  """Of each sample its images and their distances; nothing where none were looked at."""
  found = zip(beside, nearest.images, nearest.distances, strict=True)
  return {i: (images, distances) for i, images, distances in found if images}


def _described(against):
  if not against.statistics:
    return f'{len(against.images)} images of {against.path}'
  of = f', {against.count} images' if against.count else ''
  return f'statistics of {against.path}{of}, {against.provenance or "origin unknown"}'


def _class(label, names):
  return names[label] if 0 <= label < len(names) else f'class {label}'


def _meanings(missing, seen, against, num_rows):
  """The meaning of every number, with what it depends on, or of a missing one what it needs."""
  behind = f'; weights: {weights.provenance("inception")}'
  few = ''
  if seen.pool.count <= len(seen.pool.mean):
    few = f'; far above that of many images, as there are only {seen.pool.count}'
    log.warning(
      'gfid of %d images is far above that of many: a covariance of %d features needs more images '
      'than that; published numbers are of 50,000',
      *(seen.pool.count, len(seen.pool.mean)),
    )
  more = dict.fromkeys(('gfid', 'sfid'), f'; against {_described(against)}{few}')
  for name in OF_SAMPLES:
    if name.startswith(('precision', 'recall')):
      more[name] = f'; {len(seen.rows)} samples, {num_rows} images of {against.path}'
  return {
    name: missing.get(name) or f'{metric.meaning}{more.get(name, "")}{behind}'
    for name, metric in OF_SAMPLES.items()
    if metric.meaning
  }
