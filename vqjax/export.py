"""Writes a trained model to one file: for a published system's own code, or for vqjax.load.

python -m vqjax.export SOURCE --out=FILE [--format=FORMAT] [--dtype=DTYPE] [--step=N] [--overwrite]

SOURCE is anything that `vqjax.load` takes. Systems of PyTorch get a safetensors file, in the layout
of their state dict; `maskgit_flax` gets flax's msgpack. `--format=vqjax` writes any tokenizer, with
what its config says of network and quantizer, as a safetensors file that `vqjax.load` reads. A
generator's run goes to the keys of its published system, for that and for `vqjax.load_generator`.
"""

import json
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import serialization, traverse_util

from vqjax import commands, convert, pretrained, saved_models, tokenizer
from vqjax.convert import FORMATS, GENERATORS, OWN
from vqjax.errors import UserError
from vqjax.runs.folder import to_json
from vqjax.whole_files import reason, replacing

log = logging.getLogger('vqjax')

DTYPES = ('float32', 'float16', 'bfloat16')


def export(tok: pretrained.Pretrained, format: str = 'auto') -> tuple[str, dict[str, np.ndarray]]:
  """Tensors of a tokenizer by the keys of a format: (name of the format, tensors).

  Args:
    tok: the tokenizer.
    format: a name in `vqjax.convert.FORMATS`; 'auto' takes the first published system that fits.

  Raises:
    UserError: the system's own code could not compute what this tokenizer does.
  """
  if format not in ('auto', *FORMATS):
    raise UserError(f'format is {format!r}; legal: auto, {", ".join(FORMATS)}.')
  if format == OWN:  # holds any tokenizer
    return OWN, _tensors(tok, OWN)
  reasons = {}
  for name in [name for name in FORMATS if name != OWN] if format == 'auto' else [format]:
    try:
      tensors = _tensors(tok, name)
    except (KeyError, AttributeError):  # its keys need a field that this network does not have
      reasons[name] = 'its network is another'
      continue
    if not (difference := _difference(tok, name, tensors)):
      return name, tensors
    reasons[name] = difference
  listed = '; '.join(f'{name}: {reason}' for name, reason in reasons.items())
  raise UserError(
    f'this tokenizer is none that a published system can run ({listed}); --format={OWN} writes '
    'any, for vqjax.load.'
  )


def write(
  tok: pretrained.Pretrained,
  path: pathlib.Path,
  format: str = 'auto',
  dtype: str = 'float32',
) -> str:
  """Writes a tokenizer to a file; returns the name of the format.

  Args:
    tok: the tokenizer.
    path: of the file.
    format: see `export`.
    dtype: of the numbers in the file; one of half precision halves it, and `vqjax.load` makes
      float32 of them.

  Raises:
    UserError: see `export`; or numbers that do not fit `dtype`.
  """
  if dtype not in DTYPES:
    raise UserError(f'dtype is {dtype!r}; legal: {", ".join(DTYPES)}.')
  format, tensors = export(tok, format)
  cast = _cast(tensors, dtype)
  with replacing(path) as partial:
    partial.write_bytes(_content(format, cast, tok))
  return format


def write_generator(
  run: str | pathlib.Path,
  path: pathlib.Path,
  format: str = 'auto',
  dtype: str = 'float32',
  step: int | None = None,
) -> str:
  """Writes the generator of a run folder to a file; returns the name of the format.

  Raises:
    UserError: no such run, or it is of another format, or of tokens that no published system has.
  """
  folder, config = saved_models.read_generator_run(run)
  model = saved_models.build_generator(config)
  network = config.generator.network
  legal = [name for name, family in GENERATORS.items() if family.network == network]
  if format not in ('auto', *legal):
    raise UserError(f'--format is {format!r}; legal of a {network}: auto, {", ".join(legal)}.')
  if model.layout.parts > 1:
    raise UserError(
      f'the generator has {model.layout.parts} symbols a cell, of groups or digits, which no '
      'published system has; keep the run folder.'
    )
  variables, _ = saved_models.read_generator_variables(folder, config, model, step)
  section = config.generator.to_dict()
  tensors = convert.export_generator(jax.device_get(variables), section, legal[0])
  cast = _cast(tensors, dtype)
  with replacing(path) as partial:
    partial.write_bytes(_content(legal[0], cast))
  family, heads = GENERATORS[legal[0]], section['heads']
  if not family.says_heads and family.describe(tensors, {})['heads'] != heads:
    log.warning('%s does not say how many heads it has; load it with --heads=%d', path, heads)
  return legal[0]


def _cast(tensors, dtype):
  cast = dict(tensors)
  for key, tensor in tensors.items():
    if np.issubdtype(tensor.dtype, np.floating):
      with np.errstate(over='ignore'):
        cast[key] = tensor.astype(jnp.dtype(dtype))
      if np.isfinite(tensor).all() and not np.isfinite(cast[key]).all():
        raise UserError(f'{key} has numbers beyond {dtype}; legal: --dtype=bfloat16 or float32.')
  return cast


def _content(format, tensors, tok=None):
  if format in ('maskgit_flax', 'maskgit_transformer'):
    return serialization.to_bytes(traverse_util.unflatten_dict(tensors, '/'))
  if format != OWN:
    return safetensors.numpy.save(tensors, {'format': 'pt'})  # the layout is PyTorch's
  config = to_json(tok.config)
  parts = {name: config[name] for name in ('model', 'quantizer')}
  return safetensors.numpy.save(tensors, {'format': 'flax', 'config': json.dumps(parts)})


def _tensors(tok, name):
  fields = tok.config.model.to_dict()
  size = tok.config.get('data', {}).get('image_size', 256)
  buffers = FORMATS[name].buffers(fields, size)
  names = FORMATS[name].names(fields)
  return convert.export(jax.device_get(tok.variables), names) | buffers


def _difference(tok, name, tensors):
  """What the system would do differently, read off the tensors as `vqjax.load` would; or ''."""
  try:
    published = convert.take_apart({'tensors': tensors}, 'the export', name)
    other = tokenizer.build(published.model, published.quantizer)
    ours, theirs = (getattr(m.encoder, 'norm_groups', None) for m in (tok.model, other))
    if ours != theirs:  # a constant of their code
      return f'model.norm_groups is {ours}, there {theirs}'
    convert.variables_from(published, other, 'the export')
  except UserError as error:
    return str(error).splitlines()[0].partition('; legal')[0]
  for field in ('downsample', 'unit_latents', 'pixel_mean', 'pixel_std'):
    ours, theirs = getattr(tok.model, field), getattr(other, field)
    if not np.allclose(ours, theirs):
      return f'model.{field} is {ours}, there {theirs}'
  for field in ('sphere', 'unit_input'):
    ours, theirs = (getattr(m.quantizer, field) for m in (tok.model, other))
    if ours != theirs:
      return f'quantizer.{field} is {ours}, there {theirs}'
  latents = lambda model: jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), _image(model), method='encode')[0]
  )
  ours, theirs = (latents(model).indices.shape for model in (tok.model, other))
  return '' if ours == theirs else f'tokens of an image are {ours}, there {theirs}'


def _image(model):
  return model.normalize(jnp.zeros((1, 2 * model.downsample, 2 * model.downsample, 3)))


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a run folder, or a published checkpoint')
  parser.add_argument('--out', required=True, type=commands.path, help='the file to write')
  parser.add_argument('--format', default='auto', choices=['auto', *FORMATS, *GENERATORS])
  parser.add_argument('--dtype', default=DTYPES[0], choices=DTYPES, help='of the numbers')
  parser.add_argument('--overwrite', action='store_true', help='replace the file, if there is one')
  parser.add_argument('--step', type=int, help='checkpoint of a run; the best by default')


def _main(args):
  if args.out.exists() and not args.overwrite:
    raise UserError(f'{args.out} is there already; choose another --out, or add --overwrite.')
  try:
    if saved_models.is_generator_run(args.source):
      name = write_generator(args.source, args.out, args.format, args.dtype, args.step)
    else:
      tok = pretrained.load(args.source, step=args.step)
      name = write(tok, args.out, args.format, args.dtype)
  except OSError as error:
    raise UserError(
      f'cannot write {args.out}: {reason(error, args.out)}; choose another --out.'
    ) from error
  size = args.out.stat().st_size / 1e6
  print(f'written: {args.out}, {size:.1f} MB under the keys of {name}')


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.export runs/rot_vqgan_demo --out=model.safetensors',
)

if __name__ == '__main__':
  commands.run(COMMAND)
