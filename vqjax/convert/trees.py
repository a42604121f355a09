"""Tensors of a published checkpoint -> variables of our modules, and back."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqjax import shipped, tensor_files
from vqjax.convert import generators, hub, names, recognise
from vqjax.convert.names import Names
from vqjax.errors import UserError
from vqjax.generation.contracts import Transformer
from vqjax.tokenizer import Tokenizer


def open_published(source: str | pathlib.Path, format: str = 'auto') -> recognise.Published:
  """Opens a published checkpoint: one that ships, a file, a Hugging Face folder, or a hub's name.

  Raises:
    UserError: there is no such source, or it is of no system known here, or not of `format`.
  """
  path = _find(source)
  content = tensor_files.read(path)
  try:
    return recognise.take_apart(content, path, format)
  except UserError:
    if generators.is_generator(content, path):
      raise UserError(
        f'{path} is a generator and no tokenizer; load it by vqjax.load_generator.'
      ) from None
    raise


def open_generator(
  source: str | pathlib.Path, format: str = 'auto', heads: int | None = None
) -> generators.PublishedGenerator:
  """Opens a published generator.

  Args:
    source: as in `open_published`.
    format: a name in `generators.GENERATORS`, or 'auto'.
    heads: of its attention, where no tensor says how many share the width; by default those of the
      published size that is so wide and so deep.

  Raises:
    UserError: there is no such source, or it is of no generator known here, or not of `format`, or
      of no published size and without `heads`, or of other heads.
  """
  path = _find(source)
  content = tensor_files.read(path)
  try:
    published = generators.take_apart_generator(content, path, format)
  except UserError:
    if recognise.is_tokenizer(content, path):
      raise UserError(f'{path} is a tokenizer and no generator; load it by vqjax.load.') from None
    raise
  generator = published.generator
  if heads in (None, generator['heads']):
    if generator['heads'] is not None:
      return published
    raise UserError(
      f'{path} is {generator["width"]} wide and {generator["depth"]} layers deep, which is no '
      'published size, and no tensor says how many heads share the width; name their number, heads.'
    )
  if generators.GENERATORS[published.format].says_heads:
    raise UserError(
      f'heads is {heads}, but {path} has {generator["heads"]}, as its tensors say; leave it out.'
    )
  return dataclasses.replace(published, generator=generator | {'heads': heads})


def _find(source):
  path = shipped.find(str(source)) or pathlib.Path(source).expanduser()
  return path if path.exists() else hub.fetch(str(source))


def variables_from(
  published: recognise.Published, model: Tokenizer, path: str | pathlib.Path
) -> dict[str, Any]:
  """Fills the variables of `model`, a tokenizer built from the checkpoint's config.

  Raises:
    UserError: a tensor is missing, unknown, or of another shape; lists the keys.
  """
  return fill(published.tensors, abstract_variables(model, path), published.names, path)


def abstract_variables(model: Tokenizer | Transformer, path: str | pathlib.Path) -> dict[str, Any]:
  """Shapes and types of the variables of a model, whose config is from the file `path`.

  Raises:
    UserError: no such network can be built.
  """
  try:
    return jax.eval_shape(initial_variables(model))
  except Exception as error:  # whatever a layer makes of a width that no network has
    reason = (str(error).splitlines() or [''])[0][:300]
    raise UserError(
      f'{path} describes a network that cannot be built ({type(error).__name__}: {reason}); mend '
      'its config, or fetch it again.'
    ) from error


def discriminator_from(
  published: recognise.Published,
  module: nn.Module,
  abstract: Mapping[str, Any],
  path: str | pathlib.Path,
) -> dict[str, Any]:
  """Fills the variables of a discriminator, {'params': ..., 'batch_stats': ...} like `abstract`.

  Raises:
    UserError: the checkpoint has none, or one of another kind or shape.
  """
  kind = type(module).__name__
  if kind not in _DISCRIMINATORS:
    raise UserError(
      f'{kind} has no published weights; legal: {", ".join(_DISCRIMINATORS)}, or '
      '--config.init_discriminator=False.'
    )
  if not published.discriminator:
    raise UserError(f'{path} has no discriminator; set --config.init_discriminator=False.')
  tensors = {k: v for k, v in published.discriminator.items() if not k.endswith(_CONSTANTS)}
  return fill(tensors, abstract, _DISCRIMINATORS[kind], path)


_DISCRIMINATORS = {'PatchGAN': names.PATCHGAN, 'StyleGAN2Discriminator': names.STYLEGAN2}
_CONSTANTS = ('.num_batches_tracked', '.kernel')  # of the counters and of the blurs


def generator_variables(
  published: generators.PublishedGenerator, module: Transformer, path: str | pathlib.Path
) -> dict[str, Any]:
  """Fills the variables of a transformer that was built from a published generator's description.

  Raises:
    UserError: no such network can be built, or a tensor is missing, unknown, or of another shape,
      such as positions of another grid than its layout has.
  """
  return fill(published.tensors, abstract_variables(module, path), published.names, path)


def fill(
  tensors: Mapping[str, np.ndarray],
  abstract: Mapping[str, Any],
  table: Names,
  path: str | pathlib.Path,
) -> dict[str, Any]:
  """A tree like `abstract` (collections of arrays) from tensors, in its dtypes, owned by us."""
  wanted = {}  # their key -> (our path, like)
  for key_path, like in jax.tree_util.tree_leaves_with_path(abstract):
    name = _name(key_path)
    wanted[table.key(name)] = (name, like)
  arrays, wrong = {}, []
  for key, (name, like) in wanted.items():
    if key in tensors:
      array = table.to_ours(name, np.asarray(tensors[key]), len(like.shape))
      if array.shape != like.shape:
        # Without memory: the shape is what a config claims.
        expected = table.to_theirs(name, np.broadcast_to(False, like.shape)).shape
        wrong.append(f'  different: {key} is {list(tensors[key].shape)}, expected {list(expected)}')
      arrays[name] = array
  wrong += [f'  missing: {key}' for key in wanted if key not in tensors]
  wrong += [
    f'  unexpected: {key} {list(tensors[key].shape)}' for key in tensors if key not in wanted
  ]
  if wrong:
    raise UserError(
      f'{path} does not fit the network; its keys are not those expected:\n' + '\n'.join(wrong)
    )
  take = lambda key_path, like: np.array(arrays[_name(key_path)], like.dtype, order='C')
  return jax.tree_util.tree_map_with_path(take, abstract)


def export(variables: Mapping[str, Any], table: Names) -> dict[str, np.ndarray]:
  """Variables, in their collections -> {their key: array}, the inverse of `fill`."""
  tensors = {}
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    name = _name(key_path)
    # Not ascontiguousarray, which gives a scalar an axis.
    tensors[table.key(name)] = np.array(table.to_theirs(name, np.asarray(leaf)), order='C')
  return tensors


def export_generator(
  variables: Mapping[str, Any], generator: Mapping[str, Any], format: str
) -> dict[str, np.ndarray]:
  """Variables of a transformer -> {their key: array}, the inverse of `generator_variables`.

  Args:
    variables: in their collections.
    generator: the part of its config.
    format: name in `generators.GENERATORS`.
  """
  family = generators.GENERATORS[format]
  tensors = export(variables, family.names(dict(generator)))
  return tensors | {copy: tensors[kept] for copy, kept in family.tied.items()}


def initial_variables(model: Tokenizer | Transformer) -> Callable[[], Mapping[str, Any]]:
  """A function without arguments that initialises the variables of a tokenizer or a generator."""
  key: Any = jax.random.key(0)
  if isinstance(model, Tokenizer):
    # The smallest image: no parameter depends on its size.
    images = jnp.zeros((1, model.downsample, model.downsample, 3))
    return lambda: model.init(key, model.normalize(images), train=True)
  symbols, labels = jnp.zeros((1, model.layout.length), jnp.int32), jnp.zeros((1,), jnp.int32)
  network: Any = model
  return lambda: network.init(key, symbols, labels)


def _name(key_path):
  """Path below the collection, joined."""
  return jax.tree_util.keystr(key_path[1:], simple=True, separator='/')
