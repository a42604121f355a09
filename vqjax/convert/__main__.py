"""Turns a published checkpoint into a run folder, for all that takes one.

python -m vqjax.convert SOURCE --out=DIR [--format=FORMAT] [--tokenizer=TOKENIZER]

SOURCE is a checkpoint file, a Hugging Face folder, or the name of one on the hub. The system is
recognised from its keys. Nothing in a file is executed, and PyTorch is not needed. Of a generator
TOKENIZER is what it was trained with, as `vqjax.load` takes it.
"""

import pathlib
from typing import Any

import jax
import ml_collections

from vqjax import commands, generator_sources, tokenizer
from vqjax.convert import FORMATS, GENERATORS, open_published, variables_from
from vqjax.data import default_data
from vqjax.errors import UserError
from vqjax.runs import checkpoint
from vqjax.runs.folder import open_run, saved_steps
from vqjax.runs.lock import locked


def convert(
  source: str | pathlib.Path, out: str | pathlib.Path, format: str = 'auto'
) -> pathlib.Path:
  """Writes the run folder `out` from a published checkpoint; returns its path.

  Raises:
    UserError: the source cannot be used, or `out` holds something already.
  """
  published = open_published(source, format)
  model = tokenizer.build(published.model, published.quantizer)
  variables = variables_from(published, model, source)
  params = variables.pop('params')
  config = ml_collections.ConfigDict(
    {
      'name': pathlib.Path(source).stem,
      'converted': {'source': str(source), 'format': published.format},
      'model': published.model,
      'quantizer': published.quantizer,
      'data': default_data(),  # how an evaluation cuts images; for its user to change
    }
  )
  path = _write(out, config, {'generator': {'params': params, 'variables': variables}})
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  print(
    f'{source} is a checkpoint of {published.format}: {count:,} parameters, '
    f'{model.quantizer.num_codes} codes, {model.downsample} pixels per token side.'
  )
  if published.skipped:
    print(f'left out: {len(published.skipped)} keys that are no part of it: {_some(published)}')
  print(f'written: {path}; next: python eval.py --workdir={path} --data_path=FOLDER')
  return path


def convert_generator(
  source: str | pathlib.Path,
  out: str | pathlib.Path,
  tokenizer: str | pathlib.Path,
  **published: Any,
) -> pathlib.Path:
  """Writes the run folder `out` from a published generator; returns its path.

  Arguments and errors as of `vqjax.load_generator`; or `out` holds something already.
  """
  gen = generator_sources.load_generator(source, tokenizer=tokenizer, **published)
  config = ml_collections.ConfigDict({'name': pathlib.Path(source).stem, **gen.config.to_dict()})
  path = _write(out, config, {'generator': {'params': gen.variables['params']}})
  count = sum(leaf.size for leaf in jax.tree.leaves(gen.variables))
  height, width = gen.model.layout.grid
  print(
    f'{source} is a generator: {count:,} parameters, {gen.num_classes} classes, {height}x{width} '
    f'tokens of {gen.tokenizer.source}.'
  )
  print(f'written: {path}; next: python -m vqjax.generate {path} --out=DIR')
  return path


def _write(out, config, state):
  path = pathlib.Path(out).expanduser()
  with locked(path, '--out'):
    if saved_steps(path / 'checkpoints'):  # before there is one, what was begun may be done again
      raise UserError(f'{out} holds a run already; choose another --out.')
    open_run(path, config)
    with checkpoint.Checkpoints(path / 'checkpoints') as checkpoints:
      checkpoints.require_room(state, 1)
      checkpoints.save(0, state, {'converted': config.converted.to_dict()})
  return path


def _some(published):
  parts = sorted({'.'.join(key.split('.')[:2]) for key in published.skipped})
  return ', '.join(parts)


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a published checkpoint')
  parser.add_argument('--out', required=True, type=commands.path, help='the run folder to write')
  parser.add_argument('--format', default='auto', choices=['auto', *FORMATS, *GENERATORS])
  parser.add_argument('--tokenizer', help='of a generator: what it was trained with')
  parser.add_argument('--image_size', type=int, help='of a generator that does not say it')
  parser.add_argument('--heads', type=int, help='of a generator, where no tensor says it')


def _main(args):
  of_generator = {'image_size': args.image_size, 'heads': args.heads}
  of_generator = {name: value for name, value in of_generator.items() if value is not None}
  if args.tokenizer is not None:
    convert_generator(args.source, args.out, args.tokenizer, format=args.format, **of_generator)
    return
  if of_generator or args.format in GENERATORS:
    raise UserError(
      'of a generator its tokenizer must be named: --tokenizer=..., as vqjax.load takes it.'
    )
  convert(args.source, args.out, args.format)


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.convert model.ckpt --out=runs/converted',
)

if __name__ == '__main__':
  commands.run(COMMAND)
