"""Images that a generator made, from where they are: files, or the run that makes them."""

import contextlib
import logging
import pathlib
from typing import Any

import numpy as np

from vqjax.data import make_source
from vqjax.data.image_sets import Cut, open_images
from vqjax.errors import UserError
from vqjax.evaluation.collect import spread
from vqjax.evaluation.references import IMAGES, Reference, array_names
from vqjax.evaluation.results import Evaluation
from vqjax.evaluation.samples import BATCH_SIZE, check, evaluate_samples
from vqjax.generator_sources import load_generator

log = logging.getLogger('vqjax')

_NUM_IMAGES = 1_000


def evaluate_files(
  samples: str | pathlib.Path,
  reference: str | pathlib.Path,
  *,
  num_images: int | None = None,
  **more: Any,
) -> Evaluation:
  """Evaluates images that any program made.

  Args:
    samples: folder of images, or an `.npz` with `arr_0`, uint8 [N H W 3], and classes in `arr_1`
      if there are such; in the order of their names, or of the array.
    reference: see `references.open_reference`.
    num_images: the first so many samples; None for all.
    **more: `batch_size` and `save_reference`, see `evaluate_samples`.

  Raises:
    UserError: images or a reference that cannot be read, or do not fit together.
  """
  check(num_images=num_images, batch_size=more.get('batch_size'))
  images = open_images(samples, 'samples')
  if 'mu' in array_names(samples):
    raise UserError(
      f'--samples={samples} has statistics (mu), which the ADM evaluator would take in place '
      'of its images; name images alone, or give this file as --reference.'
    )
  total = min(num_images or len(images), len(images))
  batch_size = more.get('batch_size') or BATCH_SIZE
  with contextlib.closing(images.batches(batch_size, range(total))) as batches:
    return evaluate_samples(
      batches,
      reference,
      num_images=total,
      name=str(samples),
      labels=images.labels,
      class_names=images.class_names,
      **more,
    )


def evaluate_generator(
  workdir: str | pathlib.Path,
  *,
  reference: str | pathlib.Path | None = None,
  num_images: int | None = None,
  step: int | None = None,
  seed: int = 0,
  **more: Any,
) -> Evaluation:
  """Evaluates what the generator of a run makes: so many images of each class in turn.

  They are those of `vqjax.generate` with the same seed, by the run's own sampler.

  Args:
    workdir: folder of the run.
    reference: see `references.open_reference`; by default the images that the run was trained on,
      cut as evaluation cuts them, where it was trained on images. With one, these are shown where
      they are nearest to samples, if they are there.
    num_images: how many; 1,000 by default, far fewer than the 50,000 of published numbers.
    step: of the checkpoint; None for the best by held-out tokens.
    seed: of the images.
    **more: `batch_size` and `save_reference`, see `evaluate_samples`.

  Raises:
    UserError: a run that cannot be used, or no reference.
  """
  check(num_images=num_images, batch_size=more.get('batch_size'))
  gen = load_generator(workdir, step=step)
  count, config = num_images or _NUM_IMAGES, gen.config
  training = None
  if 'data' in config and not config.tokens.path:
    try:
      training = Cut(make_source(config.data, 'train'), config.data)
    except UserError as error:
      if reference is None:
        raise
      log.warning('the nearest of the training images are not shown: %s', error)
  elif reference is None:
    raise UserError(
      f'{workdir} was not trained on images, which its own could be compared with; give '
      '--reference=FILE_OR_FOLDER.'
    )
  against = reference or Reference(f'the training images of {workdir}', {}, training)
  labels = np.arange(count) % max(gen.num_classes, 1)
  size = more.get('batch_size') or BATCH_SIZE
  made = (
    np.asarray(gen.sample(np.resize(labels[first : first + size], size), key=seed, first=first))
    for first in range(0, count, size)
  )
  found = evaluate_samples(
    made,
    against,
    num_images=count,
    name=f'{workdir}, step {gen.step}, {gen.sampler}, seed {seed}',
    labels=labels if gen.num_classes else None,
    class_names=gen.class_names,
    training=None if training is None or reference is None else _some(training),
    **more,
  )
  found.curves = pathlib.Path(workdir).expanduser() / 'metrics.jsonl'
  return found


def _some(images):
  """Batches of 10,000 of them at most, evenly spread."""
  return images.batches(BATCH_SIZE, sorted(spread(len(images), IMAGES)))
