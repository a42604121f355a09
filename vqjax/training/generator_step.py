"""The training step of a transformer over tokens, and the look at one held-out batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from vqjax import pretrained, sharding
from vqjax.generation import objectives
from vqjax.tokenizer import Tokenizer
from vqjax.training import guard, micro_batches
from vqjax.training.state import Network, TrainState, moving_average, update


@dataclasses.dataclass(frozen=True)
class GeneratorRecipe:
  """Everything static that a training step needs."""

  network: Any  # a `generation.contracts.Transformer`
  objective: objectives.Objective
  optimizer: optax.GradientTransformation
  schedule: Callable[[jax.Array], ArrayLike]  # step -> learning rate
  total_steps: int
  tokenizer: Tokenizer | None = None  # of batches that are images
  accumulate: int = 1
  sum_gradients: bool = False
  ema_decay: float = 0.0


def create(recipe: GeneratorRecipe, key: jax.Array) -> TrainState:
  """Initialises the state; call it under jit with `out_shardings`."""
  rng, network_key = jax.random.split(key)
  symbols = jnp.zeros((1, recipe.network.layout.length), jnp.int32)
  variables = recipe.network.init(network_key, symbols, jnp.zeros((1,), jnp.int32))
  params = variables.pop('params')
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    rng=rng,
    generator=Network(params, variables, recipe.optimizer.init(params)),
    discriminator=None,
    # A copy: donating one buffer twice is an error.
    ema=jax.tree.map(jnp.copy, params) if recipe.ema_decay else None,
  )


def generator_step(
  recipe: GeneratorRecipe,
  state: TrainState,
  batch: Mapping[str, jax.Array],
  tokenizer: Any = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimizer step on a batch: (state, float32 scalars by name).

  A batch is {'label': int32 [B]} with 'tokens' int32 [B h w], or with 'image' uint8 [B H W 3],
  which the tokenizer with the variables `tokenizer` makes tokens of, as evaluation does.
  """
  step_key = jax.random.fold_in(state.rng, state.step)
  objective_key, dropout_key = jax.random.split(step_key)
  keys = jax.random.split(objective_key, len(batch['label']))
  progress = state.step.astype(jnp.float32) / recipe.total_steps
  network = state.generator

  def phase(carry, xs):
    examples, keys, dropout = xs
    symbols = _symbols(recipe, tokenizer, examples)

    def loss(params):
      apply = functools.partial(
        recipe.network.apply,
        {'params': params, **network.variables},
        train=True,
        rngs={'dropout': dropout},
      )
      losses, numbers = recipe.objective(
        *(apply, symbols, examples['label'], keys, progress), null=recipe.network.num_classes
      )
      numbers = {'loss': losses, **numbers}
      return jnp.mean(losses), {name: jnp.mean(value) for name, value in numbers.items()}

    gradient, scalars = jax.grad(loss, has_aux=True)(network.params)
    return gradient, carry, (scalars,)

  count = recipe.accumulate
  xs = *micro_batches.split((dict(batch), keys), count), jax.random.split(dropout_key, count)
  gradient, _, (scalars,) = micro_batches.accumulate(
    phase, (), xs, count, sum_gradients=recipe.sum_gradients
  )
  network, scalars['grad_norm'] = update(recipe.optimizer, network, gradient)
  with jax.numpy_dtype_promotion('standard'):
    scalars['learning_rate'] = jnp.asarray(recipe.schedule(state.step), jnp.float32)
  average = moving_average(state.ema, network.params, recipe.ema_decay)
  return TrainState(state.step + 1, state.rng, network, None, average), scalars


def make_generator_step(
  recipe: GeneratorRecipe, mesh: Mesh, shardings: Any, *, skip_nonfinite: bool = False
) -> Any:
  """`generator_step` of a recipe, compiled for a mesh: (state, batch, tokenizer); see `step`."""
  step: guard.Step = functools.partial(generator_step, recipe)
  return jax.jit(
    guard.leaving_out(step) if skip_nonfinite else step,
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )


def make_held_out_step(
  recipe: GeneratorRecipe, mesh: Mesh
) -> Callable[[Any, Any, jax.Array, Mapping[str, Any]], dict[str, Any]]:
  """The look at a process's own batch, jitted: (params, tokenizer, key, batch) -> `results.Found`.

  A batch has 'mask' bool [B] too, and 'position' int32 [B] of each image in the held-out set, from
  which comes all that is drawn for it: so numbers depend neither on the batch size nor on the step.
  """
  objective = objectives.held_out(recipe.objective)

  def step(params, tokenizer, key, batch):
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(batch['position'])
    apply = functools.partial(recipe.network.apply, {'params': params})
    losses, numbers = objective(
      *(apply, _symbols(recipe, tokenizer, batch), batch['label'], keys, jnp.float32(1)),
      null=recipe.network.num_classes,
    )
    return {'mask': batch['mask'], 'values': {'token_loss': losses, **numbers}}

  jitted = jax.jit(step, out_shardings=sharding.replicated(mesh))

  def on_host(params, tokenizer, key, local):
    return jax.device_get(jitted(params, tokenizer, key, sharding.put_batch(mesh, local)))

  return on_host


def _symbols(recipe, tokenizer, batch):
  """The symbols [B N] of a batch."""
  if 'tokens' in batch:
    tokens = batch['tokens']
  else:
    mask = batch.get('mask', jnp.ones(len(batch['image']), jnp.bool_))
    tokens = pretrained.encode(recipe.tokenizer, tokenizer, batch['image'], mask)
  return recipe.network.layout.symbols(tokens)
