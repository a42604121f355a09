"""Starting a run from weights that exist: fine-tuning."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vqjax import convert, saved_models
from vqjax.errors import UserError
from vqjax.training.recipe import Recipe
from vqjax.training.state import Network, TrainState


def warm_start(
  recipe: Recipe,
  state: TrainState,
  source: str | pathlib.Path,
  *,
  discriminator: bool = False,
) -> TrainState:
  """Puts the weights of `source`, as `vqjax.load` takes it, into a fresh state.

  The moving average starts from them too, where the run keeps one; optimizers start anew. With
  `discriminator` its weights are taken as well.

  Raises:
    UserError: there is no such source, or its network is not the recipe's; lists what differs.
  """
  if discriminator and state.discriminator is None:
    raise UserError(
      'config.init_discriminator is True, but config.gan.weight is 0 and there is none; set one.'
    )
  path = pathlib.Path(source).expanduser()
  published = None
  if saved_models.is_run(path):
    _, config = saved_models.read_run(path)
    variables, _ = saved_models.read_variables(path, config, recipe.tokenizer)
  else:
    published = convert.open_published(source)
    variables = convert.fill(published.tensors, _all(state.generator), published.names, source)
  generator = _with(state.generator, variables)
  state = state.replace(
    generator=generator, ema=None if state.ema is None else jax.tree.map(jnp.copy, generator.params)
  )
  if discriminator:
    state = state.replace(discriminator=_discriminator(recipe, state, path, published))
  return state


def _discriminator(recipe, state, path, published):
  network = state.discriminator
  # The averages of logits that LeCam looks at start anew.
  kept = {name: tree for name, tree in network.variables.items() if name == 'lecam'}
  wanted = {name: tree for name, tree in _all(network).items() if name not in kept}
  if published is not None:
    module = recipe.gan.discriminator
    return _with(network, convert.discriminator_from(published, module, wanted, path) | kept)
  params = wanted.pop('params')
  wanted = {'discriminator': {'params': params, **({'variables': wanted} if wanted else {})}}
  found, _ = saved_models.read_part(path, wanted, recipe.task.best_metric)
  found = found['discriminator']
  return _with(network, {'params': found['params'], **found.get('variables', {}), **kept})


def _all(network: Network) -> dict[str, Any]:
  return {'params': network.params, **network.variables}


def _with(network: Network, variables: Mapping[str, Any]) -> Network:
  others = dict(variables)
  return network.replace(params=others.pop('params'), variables=others)
