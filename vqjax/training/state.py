"""Everything that changes while training, in one struct."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vqjax.training.recipe import Recipe


class Network(flax.struct.PyTreeNode):
  """One network with its optimizer."""

  params: Any
  variables: Any  # what it owns beside parameters: {'vq': ...} or {'batch_stats': ...}
  opt_state: Any


class TrainState(flax.struct.PyTreeNode):
  """The whole state of a run; donated to the step, sharded at birth, checkpointed as it is."""

  step: jax.Array  # int32 []: optimizer steps done
  rng: jax.Array  # typed key []; step t uses fold_in(rng, t)
  generator: Network  # the tokenizer; variables hold the quantizer's collection `vq`
  discriminator: Network | None
  ema: Any  # moving average of the generator's parameters, or None

  @property
  def eval_params(self) -> Any:
    """Parameters to evaluate and export: the average where there is one."""
    return self.generator.params if self.ema is None else self.ema


def create(recipe: Recipe, key: jax.Array, image_shape: Sequence[int]) -> TrainState:
  """Initialises the state for images `[B H W 3]`; call it under jit with `out_shardings`."""
  rng, generator_key, discriminator_key = jax.random.split(key, 3)
  images = jnp.zeros((*image_shape[:-1], recipe.tokenizer.channels), jnp.float32)

  def network(module, optimizer, key, **kwargs):
    variables = module.init(key, images, **kwargs)
    params = variables.pop('params')
    return Network(params, variables, optimizer.init(params))

  generator = network(recipe.tokenizer, recipe.optimizer, generator_key, train=True)
  gan, discriminator = recipe.gan, None
  if gan:
    discriminator = network(gan.discriminator, gan.optimizer, discriminator_key)
    if gan.lecam:
      zero = lambda: jnp.zeros((), jnp.float32)
      averages = {'lecam': {'real': zero(), 'fake': zero()}}
      discriminator = discriminator.replace(variables=discriminator.variables | averages)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    rng=rng,
    generator=generator,
    discriminator=discriminator,
    # A copy: donating one buffer twice is an error.
    ema=jax.tree.map(jnp.copy, generator.params) if recipe.ema_decay else None,
  )


def update(
  optimizer: optax.GradientTransformation, network: Network, gradient: Any
) -> tuple[Network, jax.Array]:
  """Steps the optimizer: (network, global norm of the gradient before clipping)."""
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes: decay ** count
    updates, opt_state = optimizer.update(gradient, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return network.replace(params=params, opt_state=opt_state), optax.tree.norm(gradient)


def moving_average(average: Any, params: Any, decay: float) -> Any:
  """The average one step on; None where there is none."""
  if average is None:
    return None
  return optax.incremental_update(params, average, 1 - decay)
