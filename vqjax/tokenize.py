"""Writes the tokens of a data set's images, to train another model on.

python -m vqjax.tokenize SOURCE --out=DIR [--split=train|eval] [--augment=flip|ten_crop]
                         [--config.data.KEY=VALUE ...]

SOURCE is anything that `vqjax.load` takes. The images are those of one split, each cut as
evaluation cuts it (config.data.eval) whatever the split: no random crops and flips, but with
--augment the mirror image too, or ten crops (five and their mirror images). DIR gets shards
and an index.json that says what is in them; `vqjax.data.Tokens(DIR)` reads them, and
`vqjax.load(SOURCE).decode` makes images of them. If the command is stopped and run again, it goes
on with the first shard that is missing.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

import vqjax
from vqjax import commands, pretrained, sharding
from vqjax import data as datasets
from vqjax.data import tokens
from vqjax.errors import UserError
from vqjax.runs import outputs
from vqjax.runs.folder import to_json
from vqjax.runs.lock import locked
from vqjax.runs.log import ImageProgress

log = logging.getLogger('vqjax')

# Fields of the index that may differ between two runs without any token being different.
_FREE = (
  *('format', 'vqjax', 'source', 'images', 'class_names', 'config_sha256', 'num_records', 'shards'),
)


def tokenize(
  tok: pretrained.Pretrained,
  data: ml_collections.ConfigDict,
  out: str | pathlib.Path,
  *,
  split: str = 'train',
  batch_size: int = 16,
  num_images: int | None = None,
  shard_size: int = 10_000,
  augment: str = 'none',
  process_index: int = 0,
  process_count: int = 1,
) -> dict[str, Any]:
  """Writes the tokens of the images that `data` describes to the folder `out`; returns its index.

  Processes share the shards and nothing else, each with its own devices; the last one to finish
  completes the index with `shards` and `num_records`. A file depends neither on how many processes
  there are nor on interruptions. With a quantizer whose `eval_assign` looks at the whole batch, as
  `Sinkhorn` does, tokens depend on `batch_size`, which the index then has too.

  Args:
    tok: the tokenizer.
    data: section of a config, see `vqjax.data.default_data`.
    out: the folder; what an earlier call with the same arguments left unfinished is completed.
    split: of the data, 'train' or 'eval'.
    batch_size: of this process, a multiple of its devices.
    num_images: how many, in the order of the source; all by default.
    shard_size: images per shard.
    augment: a name in `vqjax.data.VIEWS`; every view of an image has a record of its own.
    process_index: of this process.
    process_count: how many processes share the work.

  Raises:
    UserError: an argument, data or a folder that cannot be used, or that another process is writing
      the same share of; the message says why.
  """
  for name, value in (('num_images', num_images), ('shard_size', shard_size)):
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; legal: 1 or more.')
  mesh = sharding.make_mesh({'data': -1, 'fsdp': 1}, jax.local_devices())
  sharding.check_batch_size(mesh, batch_size, '--batch_size')
  tok.model.check_size(data.image_size, data.image_size)
  source = datasets.make_source(data, split)
  count = min(num_images or len(source), len(source))
  index = _describe(tok, data, split, source, count, shard_size, batch_size, augment)
  views = index.get('views', 1)
  if views > 1:
    source = datasets.Views(source, data, augment)
    data = source.data
  out = pathlib.Path(out).expanduser()
  outputs.refuse_foreign(out, tokens.INDEX)
  # Each process has a lock of its own: they share the folder.
  with locked(out, '--out', f'.lock-{process_index}'):
    index = _open(out, index)
    names = tokens.shard_names(count, shard_size)
    own = range(process_index, len(names), process_count)
    shards = [i for i in own if not (out / names[i]).exists()]
    if 'shards' in index and not shards:
      log.info('%s is finished: %d records in %d shards', out, index['num_records'], len(names))
      return index
    log.info('%s: %s', split, source.description)
    log.info('%d of %d shards are to be written', len(shards), len(own))
    spans = {i: (i * shard_size, min((i + 1) * shard_size, count)) for i in shards}
    progress = ImageProgress(views * sum(stop - start for start, stop in spans.values()))
    for i, (first, last) in spans.items():
      start, stop = views * first, views * last
      batches = tok.batched(source, data, batch_size=batch_size, start=start, limit=stop)
      with contextlib.closing(batches):
        numbers = [min(batch_size, stop - at) for at in range(start, stop, batch_size)]
        tokens.write_shard(out / names[i], _records(index, batches, numbers, progress))
    return _finish(out, index, names)


def _records(index, batches, numbers, progress):
  """The records of batches of so many images, as bytes: of each all its views, or none.

  Unreadable ones are among the numbers.
  """
  kind = tokens.record_type(index['token_shape'], index['num_codes'])
  views = index.get('views', 1)

  def every():
    for batch, number in zip(batches, numbers, strict=True):
      rows = np.zeros(len(batch.index), kind)
      rows['label'], rows['tokens'] = batch.label, batch.tokens
      rows['index'] = batch.index // views
      yield from rows
      progress.add(number)

  for _, rows in itertools.groupby(every(), lambda row: row['index']):
    of_one = [row.tobytes() for row in rows]  # whose views may be of two batches
    if len(of_one) == views:
      yield from of_one


def _describe(tok, data, split, source, count, shard_size, batch_size, augment):
  """The index before anything is written."""
  model, size = tok.model, data.image_size
  shape = tok.token_shape(size, size)
  codes = model.quantizer.num_codes
  fields = data.to_dict()
  # No token depends on how images are read, or on how training cuts them.
  data = {name: fields[name] for name in fields if name not in (*datasets.READING, 'train')}
  config = ml_collections.ConfigDict(
    {'model': tok.config.model, 'quantizer': tok.config.quantizer, 'data': data}
  )
  config = to_json(config)
  assign = model.quantizer.eval_rule
  batch = batch_size if model.quantizer.batch_dependent else None
  if batch:
    log.warning('%s looks at the whole batch: tokens depend on --batch_size=%d', assign, batch)
  augmented = {} if augment == 'none' else {'augment': augment, 'views': datasets.VIEWS[augment][1]}
  classes = getattr(source, 'class_names', None)
  return {
    'format': tokens.FORMAT,
    'record': 'label int32, position of the image in the source int32, tokens; little-endian',
    'dtype': str(tokens.record_type(shape, codes)['tokens'].base),
    'token_shape': list(shape),
    'num_codes': codes,
    'bits_per_token': (codes - 1).bit_length(),
    'assignment': 'rounding' if assign is None else str(assign),
    'batch_size': batch,  # if tokens depend on it
    'images': source.description,
    **({} if classes is None else {'class_names': list(classes)}),  # of the labels
    'split': split,
    'num_images': count,
    **augmented,  # so many records of each image, one after the other
    'shard_size': shard_size,
    'image_size': size,
    'preprocessing': 'config.data.eval: no random crop or flip beyond what it says',
    'source': tok.source,
    'step': tok.step,
    'weights_sha256': tok.weights_sha256,
    'config_sha256': hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    'config': config,
    'vqjax': vqjax.__version__,
  }


def _open(out, index):
  """Gives the folder this index, or checks that it has it; returns what it has."""
  if not (out / tokens.INDEX).exists():
    tokens.write_index(out, index)
    return index
  there = tokens.read_index(out)
  outputs.refuse_other(out, 'tokens', there, index, _FREE)
  return there


def _finish(out, index, names):
  """Completes the index if all shards are there; returns it."""
  if missing := [name for name in names if not (out / name).exists()]:
    log.info('%d of %d shards are still to come from other processes', len(missing), len(names))
    return index
  shards = [{'name': name, 'records': tokens.count_records(out / name)} for name in names]
  total = sum(shard['records'] for shard in shards)
  if not total:
    raise UserError(
      f'none of {index["images"]} could be read; the log names them and says why: mend them, remove'
      f' {out}, and run the same command again.'
    )
  index = {**index, 'num_records': total, 'shards': shards}
  tokens.write_index(out, index)
  if missing := index['num_images'] - total // index.get('views', 1):
    log.warning(
      *('%d of %d images could not be read and have no tokens', missing, index['num_images'])
    )
  log.info('done: %d records in %d shards, %s', total, len(names), out)
  log.info('next: tokens = vqjax.data.Tokens(%r)', str(out))
  return index


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a run folder, or a published checkpoint')
  parser.add_argument('--out', required=True, help='the folder to write')
  parser.add_argument('--split', default='train', choices=['train', 'eval'])
  parser.add_argument(
    '--augment',
    default='none',
    choices=list(datasets.VIEWS),
    help='views of each image',
  )
  parser.add_argument('--step', type=int, help='checkpoint of a run; the best by default')
  parser.add_argument('--num_images', type=int, help='the first so many; all by default')
  parser.add_argument('--batch_size', type=int, help="of a process; the run's by default")
  parser.add_argument(
    '--shard_size', type=int, default=10_000, help='images a file, what a crash costs (%(default)s)'
  )


def _main(args):
  tok = pretrained.load(args.source, step=args.step)
  config = tok.config
  data = config.get('data', ml_collections.ConfigDict(datasets.default_data()))
  commands.set_data(data, args.config)
  batch_size = config.get('batch_size', 16) // config.get('accumulate', 1)
  tokenize(
    tok,
    data,
    args.out,
    split=args.split,
    batch_size=batch_size if args.batch_size is None else args.batch_size,
    num_images=args.num_images,
    shard_size=args.shard_size,
    augment=args.augment,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.tokenize runs/rot_vqgan_demo --out=tokens',
  interrupted='run the same command again to go on',
  memory='fewer images at a time need less: --batch_size=N',
  config=True,
  workdir=True,
)

if __name__ == '__main__':
  commands.run(COMMAND)
