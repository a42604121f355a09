"""Models that are on disk: a run folder's config, checked, and weights, and their digest."""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from vqjax import convert, fields, tokenizer
from vqjax.data import READING, default_data
from vqjax.errors import UserError
from vqjax.generation import build
from vqjax.generation.objectives import BEST_METRIC
from vqjax.runs import checkpoint
from vqjax.runs.folder import read_config
from vqjax.task import task_of

# What a run's config may say beside `model` and `quantizer`, and what its readers take of it.
_PARTS: dict[str, Any] = {
  'batch_size': 1,
  'accumulate': 1,
  'ema_decay': 0.0,
  'mesh': {'data': -1, 'fsdp': 1},
  'loss': {},
  'data': default_data(),
}


def read_run(
  workdir: str | pathlib.Path, *, data: bool = False
) -> tuple[pathlib.Path, ml_collections.ConfigDict]:
  """Reads a run folder as `read_config`, and checks the types of what its readers use.

  Args:
    workdir: the folder.
    data: whether the part `data` is needed too.

  Raises:
    UserError: the folder is missing or no run's, or a field was edited to what it cannot be.
  """
  path, config = read_config(workdir)
  if 'generator' in config:
    raise UserError(
      f'{path} is the run of a generator, not of a tokenizer; load it by vqjax.load_generator, '
      f'make images by python -m vqjax.generate {path} --out=DIR.'
    )
  if isinstance(config.get('data'), ml_collections.ConfigDict):
    for name in set(READING) - set(config.data):  # the run is of before there was such a field
      config.data[name] = _PARTS['data'][name]
  where, written = f'{path / "config.json"}: config', config.to_dict()
  fields.check(written, {'model': {}, 'quantizer': {}}, where)
  there = [part for part in _PARTS if part in written or (data and part == 'data')]
  fields.check(written, {part: _PARTS[part] for part in there}, where)
  if written.get('accumulate', 1) < 1:
    raise UserError(f'{where}.accumulate is {written["accumulate"]}; legal: at least 1.')
  for name, weight in written.get('loss', {}).items():
    if name != 'perceptual_net':
      fields.check_type(weight, float, f'{where}.loss.{name}')
  return path, config


# What a generator's run says of itself, so that it can be used with its tokenizer alone.
_GENERATOR_PARTS: dict[str, Any] = {
  'generator': {},
  'sampler': {},
  'tokenizer': '',
  'tokens': {'shape': (1,), 'num_codes': 1, 'weights_sha256': '', 'step': 0},
}


def read_generator_run(
  workdir: str | pathlib.Path,
) -> tuple[pathlib.Path, ml_collections.ConfigDict]:
  """Reads the run folder of a generator, and checks the types of what its readers use.

  Raises:
    UserError: the folder is missing or no generator's, or a field was edited to what it cannot be.
  """
  path, config = read_config(workdir)
  if 'generator' not in config:
    raise UserError(
      f'{path} is the run of a tokenizer, not of a generator; load it by vqjax.load, or name the '
      'run of a generator that was trained on its tokens.'
    )
  where = f'{path / "config.json"}: config'
  fields.check(config.to_dict(), _GENERATOR_PARTS, where)
  fields.check_type(config.get('class_names', ()), tuple[str, ...], f'{where}.class_names')
  shape, codes = config.tokens.shape, config.tokens.num_codes
  if len(shape) not in (2, 3) or min(*shape, codes) < 1:
    raise UserError(
      f'{where}.tokens has shape={list(shape)} and num_codes={codes}; legal: [height, width] or '
      '[height, width, groups], all 1 or more; mend them there.'
    )
  return path, config


def is_run(source: str | pathlib.Path) -> bool:
  """Whether a source is a run folder; otherwise it is a published checkpoint, or nothing."""
  return (pathlib.Path(source).expanduser() / 'checkpoints').is_dir()


def is_generator_run(source: str | pathlib.Path) -> bool:
  """Whether a source is the run folder of a generator."""
  return is_run(source) and 'generator' in read_config(pathlib.Path(source).expanduser())[1]


def build_generator(config: ml_collections.ConfigDict, dtype: str | None = None) -> Any:
  """The network of a generator's config; with another `dtype`, of its arithmetic, if it is given.

  Raises:
    UserError: a field that is not legal.
  """
  section = config.generator.to_dict()
  layout = build.layout(section, config.tokens.shape, config.tokens.num_codes)
  return build.build(section if dtype is None else {**section, 'dtype': dtype}, layout)


def read_generator_variables(
  path: str | pathlib.Path,
  config: ml_collections.ConfigDict,
  model: Any,
  step: int | None = None,
  place: Callable[[Any], Any] | None = None,
) -> tuple[dict[str, Any], int]:
  """Reads a run folder's weights of the generator; arguments and errors as `read_variables`."""
  params = convert.abstract_variables(model, path)['params']
  averaged = bool(config.get('ema_decay'))
  wanted = {'ema': params} if averaged else {'generator': {'params': params}}
  found, step = read_part(path, wanted, BEST_METRIC, step, place)
  return {'params': found['ema'] if averaged else found['generator']['params']}, step


def read_variables(
  path: str | pathlib.Path,
  config: ml_collections.ConfigDict,
  model: tokenizer.Tokenizer,
  step: int | None = None,
  place: Callable[[Any], Any] | None = None,
) -> tuple[dict[str, Any], int]:
  """Reads a run folder's weights of the tokenizer, the moving average where there is one.

  Args:
    path: the folder.
    config: its config.
    model: the tokenizer that they are for.
    step: of the checkpoint; the best by held-out images by default.
    place: function that gives a tree of shapes the shardings to read into; one device by default.

  Returns:
    (variables, step).

  Raises:
    UserError: there is no checkpoint, or not this one, or it is of another network.
  """
  variables = convert.abstract_variables(model, path)
  params = variables.pop('params', {})
  averaged = bool(config.get('ema_decay'))
  wanted: dict[str, Any] = {'ema': params} if averaged else {'generator': {'params': params}}
  if variables:
    wanted.setdefault('generator', {})['variables'] = variables
  found, step = read_part(path, wanted, task_of(model).best_metric, step, place)
  params = found['ema'] if averaged else found['generator']['params']
  return {'params': params, **found.get('generator', {}).get('variables', {})}, step


def read_part(
  path: str | pathlib.Path,
  wanted: Mapping[str, Any],
  best_metric: str,
  step: int | None = None,
  place: Callable[[Any], Any] | None = None,
) -> tuple[dict[str, Any], int]:
  """Reads the arrays of `wanted`, a tree of dicts, from a run folder's checkpoint: (tree, step)."""
  with checkpoint.Checkpoints(
    pathlib.Path(path) / 'checkpoints', best_metric=best_metric, read_only=True
  ) as checkpoints:
    step = checkpoints.best_step() if step is None else step
    restored = checkpoints.restore((place or _on_one_device)(wanted), step, part=True)
  if restored is None:
    raise UserError(f'{path} has no checkpoint yet; train first, or wait for the first one.')
  found, record = restored
  return found, record['step']


def _on_one_device(tree):
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def override(
  config: ml_collections.ConfigDict,
  eval_assign: str | Mapping[str, Any] | None = None,
  dtype: str | None = None,
) -> None:
  """Sets what may differ from how a tokenizer was trained, where it is not None."""
  if dtype is not None:
    config.model.dtype = dtype
  if eval_assign is not None:
    quantizer = config.quantizer
    while 'base' in quantizer:
      quantizer = quantizer.base
    with quantizer.ignore_type():
      quantizer.eval_assign = eval_assign


def sha256_of(variables: Mapping[str, Any]) -> str:
  """A digest of names, types, shapes and values: that of other weights is another."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()
