"""Makes images by a trained generator.

python -m vqjax.generate SOURCE --out=DIR --num_images=N [--classes=0,1,7] [--guidance=S] [...]

SOURCE is a run folder of a generator, or a published checkpoint with --tokenizer=TOKENIZER. DIR
gets images/NUMBER_CLASS.png, sheet.png, which shows the first of them, by class where classes are
few, generate.json, which says how they were made, and with --npz samples.npz, as the ADM evaluator
reads it. Image n depends on the seed, n and its class alone. If the command is stopped and run
again, it goes on with the images that are missing.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import vqjax
from vqjax import commands, generated, generator, generator_sources, sharding
from vqjax.errors import UserError
from vqjax.runs import outputs
from vqjax.runs.lock import InUse, locked
from vqjax.runs.log import ImageProgress
from vqjax.whole_files import replacing

log = logging.getLogger('vqjax')

RECORD = 'generate.json'
LABELS = ('balanced', 'random')
_FORMAT = 1  # of the record
# Fields of the record that may differ between two runs without any image being different.
_FREE = ('format', 'vqjax', 'source', 'tokenizer', 'finished')
_SETTINGS = {'guidance': float, 'steps': int, 'temperature': float, 'top_k': int, 'top_p': float}


def generate(
  gen: generator.Generator,
  out: str | pathlib.Path,
  num_images: int,
  *,
  classes: Sequence[int] | None = None,
  labels: str = 'balanced',
  seed: int = 0,
  batch_size: int | None = None,
  npz: bool = False,
  process_index: int = 0,
  process_count: int = 1,
  **settings: Any,
) -> dict[str, Any]:
  """Writes images to the folder `out`; returns what its generate.json says.

  Processes share the images and nothing else, each with its own devices; the last one to finish
  completes the folder. A file depends neither on how many there are nor on interruptions, and on
  `batch_size` no more than `Generator` says.

  Args:
    gen: the generator.
    out: the folder; what an earlier call with the same arguments left unfinished is completed.
    num_images: how many.
    classes: those to make images of; all by default.
    labels: 'balanced', each class in turn, as RAR's numbers are of, or 'random', each image's drawn
      from the seed and its number, as LlamaGen's.
    seed: of everything that is drawn.
    batch_size: of this process, a multiple of its devices; 16 or the next one by default.
    npz: write samples.npz too, `arr_0` uint8 [N H W 3] in the order of the numbers, and where there
      are classes `arr_1` int32 [N].
    process_index: of this process.
    process_count: how many processes share the work.
    **settings: of the sampler, in place of its own.

  Raises:
    UserError: an argument or a folder that cannot be used, or that another process is writing the
      same share of; the message says why.
  """
  if num_images < 1:
    raise UserError(f'--num_images is {num_images}; legal: 1 or more.')
  if not 0 <= seed <= generator.MOST_SEED:
    raise UserError(f'--seed is {seed}; legal: 0 to {generator.MOST_SEED}.')
  mesh, _ = gen.tokenizer.everywhere
  batch_size = -(-16 // mesh.size) * mesh.size if batch_size is None else batch_size
  sharding.check_batch_size(mesh, batch_size, '--batch_size')
  every = labels_of(gen, num_images, classes, labels, seed)
  sampler = gen.check(batch_size, **settings)
  record = _describe(gen, sampler, num_images, classes, labels, seed)
  out = pathlib.Path(out).expanduser()
  outputs.refuse_foreign(out, RECORD)
  # Each process has a lock of its own: they share the folder.
  with locked(out, '--out', f'.lock-{process_index}'):
    record = _open(out, record)
    (out / 'images').mkdir(exist_ok=True)
    files = [out / 'images' / name for name in names(gen, every)]
    own = range(process_index * batch_size, num_images, process_count * batch_size)
    starts = [n for n in own if not all(f.exists() for f in files[n : n + batch_size])]
    _sweep(out, {file.name for n in starts for file in files[n : n + batch_size]})
    images = sum(len(files[n : n + batch_size]) for n in starts)
    log.info('%d of %d images are to be made here, by %s', images, num_images, sampler)
    progress = ImageProgress(images)

    def begun():
      for first in starts:
        # Always a whole batch, so that there is one program; what is beyond the last is cut off.
        batch = np.resize(every[first : first + batch_size], batch_size)
        yield first, gen.sample(batch, key=seed, first=first, **settings)

    with concurrent.futures.ThreadPoolExecutor() as pool:
      # The devices make the next batch while this one is written.
      for (first, made), _ in itertools.pairwise(itertools.chain(begun(), [None])):
        batch = files[first : first + batch_size]
        list(pool.map(generated.write_png, batch, np.asarray(made)))
        progress.add(len(batch))
    return _finish(out, record, files, every, gen, npz)


def labels_of(
  gen: generator.Generator,
  num_images: int,
  classes: Sequence[int] | None = None,
  labels: str = 'balanced',
  seed: int = 0,
) -> np.ndarray:
  """The labels int32 [N] of the images 0 to N - 1, arguments as in `generate`.

  Raises:
    UserError: a class or a way to choose that there is not.
  """
  if labels not in LABELS:
    raise UserError(f'--labels is {labels!r}; legal: {", ".join(LABELS)}.')
  if not gen.num_classes:
    if classes is not None:
      raise UserError('--classes is given, but the generator knows no classes; leave it out.')
    return np.zeros(num_images, np.int32)
  chosen = np.arange(gen.num_classes) if classes is None else np.asarray(classes)
  if not len(chosen) or chosen.min() < 0 or chosen.max() >= gen.num_classes:
    raise UserError(
      f'--classes is {",".join(map(str, chosen))}; legal: some of 0 to {gen.num_classes - 1}.'
    )
  if labels == 'balanced':
    return np.resize(chosen, num_images).astype(np.int32)
  # Not a number that an image has.
  key = jax.random.fold_in(jax.random.key(seed), np.uint32(2**32 - 1))
  of = lambda n: jax.random.randint(jax.random.fold_in(key, n), (), 0, len(chosen))
  return chosen[np.asarray(jax.vmap(of)(np.arange(num_images, dtype=np.uint32)))].astype(np.int32)


def names(gen: generator.Generator, labels: np.ndarray) -> list[str]:
  """Files of images of these labels, in the order of their numbers: 000012_7.png."""
  digits = max(6, len(str(len(labels) - 1)))
  classes = [f'_{label}' if gen.num_classes else '' for label in labels]
  return [f'{n:0{digits}d}{label}.png' for n, label in enumerate(classes)]


def _describe(gen, sampler, num_images, classes, labels, seed):
  """The record before anything is written."""
  grid, unit = gen.model.layout.grid, gen.tokenizer.model.downsample
  return {
    'format': _FORMAT,
    'num_images': num_images,
    'image_size': [side * unit for side in grid],
    'classes': None if classes is None else [int(label) for label in classes],
    'labels': labels if gen.num_classes else None,
    'seed': seed,
    'sampler': {'name': type(sampler).__name__, **dataclasses.asdict(sampler)},
    'source': gen.source,
    'step': gen.step,
    'weights_sha256': gen.weights_sha256,
    'dtype': str(np.dtype(gen.model.dtype)),
    'tokenizer': gen.tokenizer.source,
    'tokenizer_sha256': gen.tokenizer.weights_sha256,
    'vqjax': vqjax.__version__,
    'finished': False,
  }


def _open(out, record):
  """Gives the folder this record, or checks that it has it; returns what it has."""
  path = out / RECORD
  try:
    there = json.loads(path.read_text())
    if there['format'] != _FORMAT:
      raise ValueError(f'it is of format {there["format"]}, legal here: {_FORMAT}')
  except FileNotFoundError:
    _save(out, record)
    return record
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise UserError(
      f'{path} cannot be read ({error}); choose another --out, or remove the folder.'
    ) from error
  outputs.refuse_other(out, 'images', there, record, _FREE)
  return there


def _sweep(out, names):
  """Removes what this process's share was left with when it was killed."""
  for path in (out / 'images').glob('.*'):
    if f'{path.name[1:].partition(".png")[0]}.png' in names:
      path.unlink()


def _save(out, record):
  with replacing(out / RECORD) as partial:
    partial.write_text(json.dumps(record, indent=2) + '\n')


def _finish(out, record, files, labels, gen, npz):
  """Completes the folder if all images are there; returns the record."""
  if missing := sum(not file.exists() for file in files):
    log.info('%d of %d images are still to come from other processes', missing, len(files))
    return record
  try:
    # Several may find at once that all images are there.
    with locked(out, '--out', '.lock-finish'):
      return _complete(out, record, files, labels, gen, npz)
  except InUse:
    log.info('all %d images are there; another process completes %s', len(files), out)
    return record


def _complete(out, record, files, labels, gen, npz):
  for name in ('sheet.png', 'samples.npz'):
    for path in out.glob(f'.{name}.*'):  # of a process that was killed
      path.unlink()
  if not (out / 'sheet.png').exists():
    generated.write_png(out / 'sheet.png', generated.sheet(files, labels))
  if npz and not (out / 'samples.npz').exists():
    classes = labels if gen.num_classes else None
    generated.write_npz(out / 'samples.npz', files, tuple(record['image_size']), classes)
  record = {**record, 'finished': True}
  _save(out, record)
  log.info('done: %d images, %s', len(files), out)
  log.info('next: python eval.py --samples=%s --reference=FOLDER --out=EVALUATION', out / 'images')
  return record


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a run folder, or a published checkpoint')
  parser.add_argument('--out', required=True, help='the folder to write')
  parser.add_argument('--num_images', type=int, default=64, help='(%(default)s)')
  parser.add_argument('--classes', help='numbers or names, joined by commas; all by default')
  parser.add_argument('--labels', default=LABELS[0], choices=LABELS, help='how classes are chosen')
  for name, kind in _SETTINGS.items():
    parser.add_argument(f'--{name}', type=kind, help="of the sampler, in place of the run's")
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--batch_size', type=int, help='of a process; about 16 by default')
  parser.add_argument('--npz', action='store_true', help='write samples.npz too')
  parser.add_argument('--tokenizer', help='in place of the one that the run names')
  parser.add_argument('--step', type=int, help='checkpoint of a run; the best by default')
  parser.add_argument('--dtype', choices=['float32', 'bfloat16'], help='of the arithmetic')
  parser.add_argument('--image_size', type=int, help='of a published checkpoint that says none')
  parser.add_argument('--heads', type=int, help='of a published one that does not say it')


def _main(args):
  of_published = {name: getattr(args, name) for name in ('image_size', 'heads')}
  gen = generator_sources.load_generator(
    args.source,
    tokenizer=args.tokenizer,
    step=args.step,
    dtype=args.dtype,
    **{name: value for name, value in of_published.items() if value is not None},
  )
  settings = {name: getattr(args, name) for name in _SETTINGS}
  generate(
    gen,
    args.out,
    args.num_images,
    classes=None
    if args.classes is None
    else [gen.class_number(c) for c in args.classes.split(',')],
    labels=args.labels,
    seed=args.seed,
    batch_size=args.batch_size,
    npz=args.npz,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    **{name: value for name, value in settings.items() if value is not None},
  )


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.generate runs/llamagen_gpt_b_256_demo --out=images --num_images=100',
  interrupted='run the same command again to go on',
  memory='fewer images at a time need less: --batch_size=N',
)

if __name__ == '__main__':
  commands.run(COMMAND)
