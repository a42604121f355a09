"""Turns a published checkpoint into a run folder, for eval.py, vqjax.load and vqjax.export.

python -m vqjax.convert SOURCE --out=DIR [--format=FORMAT]

SOURCE is a checkpoint file, a Hugging Face folder, or the name of one on the hub. The system is
recognised from its keys. Nothing in a file is executed, and PyTorch is not needed.
"""

import pathlib

import jax
import ml_collections

from vqjax import commands, tokenizer
from vqjax.convert import FORMATS, open_published, variables_from
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
  path = pathlib.Path(out).expanduser()
  with locked(path, '--out'):
    if saved_steps(path / 'checkpoints'):  # before there is one, what was begun may be done again
      raise UserError(f'{out} holds a run already; choose another --out.')
    open_run(path, config)
    with checkpoint.Checkpoints(path / 'checkpoints') as checkpoints:
      state = {'generator': {'params': params, 'variables': variables}}
      checkpoints.require_room(state, 1)
      checkpoints.save(0, state, {'converted': config.converted.to_dict()})
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  print(
    f'{source} is a checkpoint of {published.format}: {count:,} parameters, '
    f'{model.quantizer.num_codes} codes, {model.downsample} pixels per token side.'
  )
  if published.skipped:
    print(f'left out: {len(published.skipped)} keys that are no part of it: {_some(published)}')
  print(f'written: {path}; next: python eval.py --workdir={path} --data_path=FOLDER')
  return path


def _some(published):
  parts = sorted({'.'.join(key.split('.')[:2]) for key in published.skipped})
  return ', '.join(parts)


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a published checkpoint')
  parser.add_argument('--out', required=True, type=commands.path, help='the run folder to write')
  parser.add_argument('--format', default='auto', choices=['auto', *FORMATS])


def _main(args):
  convert(args.source, args.out, args.format)


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.convert model.ckpt --out=runs/converted',
)

if __name__ == '__main__':
  commands.run(COMMAND)
