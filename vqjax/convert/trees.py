"""Tensors of a published checkpoint -> variables of our modules, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.convert import files, recognise
from vqjax.convert.names import Names
from vqjax.errors import UserError


def open_published(path, format='auto') -> recognise.Published:
  """Reads and recognises a published checkpoint; see `recognise.take_apart`."""
  return recognise.take_apart(files.read(path), path, format)


def variables_from(published: recognise.Published, model, path):
  """Fills the variables of `model`, a tokenizer built from the checkpoint's config.

  Raises:
    UserError: a tensor is missing, unknown, or of another shape; lists the keys.
  """
  return fill(published.tensors, jax.eval_shape(initial_variables(model)), published.names, path)


def fill(tensors, abstract, table: Names, path):
  """A tree like `abstract` (collections of arrays) from tensors; float32, owned by us."""
  wanted = {}  # their key -> (our path, like)
  for key_path, like in jax.tree_util.tree_leaves_with_path(abstract):
    name = _name(key_path)
    wanted[table.key(name)] = (name, like)
  arrays, wrong = {}, []
  for key, (name, like) in wanted.items():
    if key in tensors:
      array = table.to_ours(name, np.asarray(tensors[key]), len(like.shape))
      if array.shape != like.shape:
        expected = table.to_theirs(name, np.zeros(like.shape, bool)).shape
        wrong.append(f'  different: {key} is {list(tensors[key].shape)}, expected {list(expected)}')
      arrays[name] = array
  wrong += [f'  missing: {key}' for key in wanted if key not in tensors]
  wrong += [
    f'  unexpected: {key} {list(tensors[key].shape)}' for key in tensors if key not in wanted
  ]
  if wrong:
    raise UserError(
      f'{path} does not fit the network that its other tensors describe; fetch it again, or name '
      'its --format.\n' + '\n'.join(wrong)
    )
  take = lambda key_path, like: np.array(arrays[_name(key_path)], np.float32, order='C')
  return jax.tree_util.tree_map_with_path(take, abstract)


def export(variables, table: Names):
  """Variables -> {their key: array}, the inverse of `fill`."""
  tensors = {}
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    name = _name(key_path)
    tensors[table.key(name)] = np.ascontiguousarray(table.to_theirs(name, np.asarray(leaf)))
  return tensors


def initial_variables(model):
  """A function without arguments that initialises the variables of a tokenizer."""
  # The smallest image: no parameter depends on its size.
  images = jnp.zeros((1, model.downsample, model.downsample, 3))
  return lambda: model.init(jax.random.key(0), model.normalize(images), train=True)


def _name(key_path):
  """Path below the collection, joined."""
  return jax.tree_util.keystr(key_path[1:], simple=True, separator='/')
