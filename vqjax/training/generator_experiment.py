"""The experiment of a generator: trained on tokens, looked at by held-out tokens and by samples."""

import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vqjax import compilation, pretrained, sharding
from vqjax.errors import UserError
from vqjax.evaluation.collect import collect
from vqjax.generation import build, objectives
from vqjax.report import pictures
from vqjax.training import generator_step as steps
from vqjax.training import guard, optimizer
from vqjax.training import recipe as recipes
from vqjax.training.experiment import Batches, Look
from vqjax.training.state import TrainState
from vqjax.training.token_source import TokenSource

log = logging.getLogger('vqjax')


class GeneratorExperiment:
  """An `Experiment`, see there: the generator of a config, on the devices of a mesh.

  Raises:
    UserError: a field of the config that is not legal, or data or a tokenizer that are not there.
  """

  best_metric = objectives.BEST_METRIC
  next_command = 'python -m vqjax.generate {workdir} --out={workdir}/generated --num_images=100'

  def __init__(self, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
    sharding.check_batch_size(mesh, config.batch_size, 'config.batch_size', config.accumulate)
    if config.seed < 0:
      raise UserError(f'config.seed is {config.seed}; legal: 0 or more.')
    self._config, self._mesh = config, mesh
    self._source = TokenSource(config)
    for split, description in self._source.descriptions().items():
      log.info('%s data: %s', split, description)
    self.num_examples = self._source.num_examples
    self.total_steps = recipes.total_steps(config, self.num_examples)
    self.recipe = self._recipe()
    recipes.warn_of_slow_average(config, self.total_steps)
    self.tokens_per_example = self.recipe.network.layout.length
    self._sampler = build.build_sampler(config.sampler.to_dict(), config.generator.network)

    self._key = jax.random.key(config.seed)
    create = functools.partial(steps.create, self.recipe)
    abstract = jax.eval_shape(create, self._key)
    self._shardings = sharding.state(mesh, abstract)
    self.abstract_state = sharding.target(abstract, self._shardings)
    self.parameters = abstract.generator.params
    self._create = jax.jit(
      create, out_shardings=self._shardings, compiler_options=compilation.run_once()
    )
    self._tokenizer = jax.device_put(self._source.tokenizer.variables, sharding.replicated(mesh))
    self._step = steps.make_generator_step(
      self.recipe, mesh, self._shardings, skip_nonfinite=guard.allowed(config) > 0
    )
    self._held_out_step = steps.make_held_out_step(self.recipe, mesh)
    self._sample = jax.jit(self._draw, out_shardings=sharding.replicated(mesh))
    if config.sample_images:  # what is wrong with the sampler, now rather than at the first look
      jax.eval_shape(self._draw, abstract.eval_params, self._tokenizer)

  def start(self) -> TrainState:
    """The state before the first step."""
    return self._create(self._key)

  def batches(self, examples_seen: int) -> Batches:
    """Batches of this process: tokens or images, and labels; see `steps.generator_step`."""
    return self._source.train(examples_seen)

  def step(
    self, state: TrainState, batch: Mapping[str, Any], step: int
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step."""
    batch = sharding.put_batch(self._mesh, self._labelled(batch))
    return self._step(state, batch, self._tokenizer)

  def examples(self, numbers: Iterable[int]) -> list[str]:
    """Images or records by the names that their source has for them."""
    return self._source.names(numbers)

  def look(self, state: TrainState) -> Look:
    """Held-out numbers, and samples: of class after class, in as many columns as there are."""
    config = self._config
    batches = self._source.held_out(config.batch_size // config.accumulate)
    found = collect(
      functools.partial(
        self._held_out_step, state.eval_params, self._tokenizer, jax.random.fold_in(self._key, 1)
      ),
      _Positioned(batches, self._labelled),
    )
    numbers = {name: value for name, value in found.metrics.items() if value is not None}
    count, shown = int(numbers['num_images']), config.sample_images
    if not shown:
      return Look(count, numbers, {})
    images = jax.device_get(self._sample(state.eval_params, self._tokenizer))[:shown]
    classes = config.generator.num_classes
    columns = classes if 1 < classes <= shown else 8
    return Look(count, numbers, {'samples': pictures.grid(images, columns)})

  def _draw(self, params, tokenizer):
    """Images of `sample_images` labels, and as many more as fill the devices: uint8 [n H W 3]."""
    network, mesh, shown = self.recipe.network, self._mesh, self._config.sample_images
    classes = network.num_classes
    numbers = np.arange(-(-shown // mesh.size) * mesh.size, dtype=np.int32)
    if 0 < classes <= shown:  # every class in turn
      labels = numbers % classes
    else:  # at even distances, or 0, the null class of none
      labels = numbers % shown * classes // shown
    labels, key = jnp.asarray(labels), jax.random.fold_in(self._key, 2)
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
    labels, keys = jax.lax.with_sharding_constraint((labels, keys), sharding.batch(mesh))
    symbols = self._sampler(network, params, labels, keys)
    tokens = network.layout.tokens(symbols)
    return pretrained.decode(self._source.tokenizer.model, tokenizer, tokens)

  def _labelled(self, batch):
    """A batch with labels that the network has; without classes all are 0, the null class."""
    classes, labels = self._config.generator.num_classes, batch['label']
    if not classes:
      return {**batch, 'label': np.zeros_like(labels)}
    if labels.min() < 0 or labels.max() >= classes:
      bad = labels[(labels < 0) | (labels >= classes)][0]
      raise UserError(
        f'an image has the label {bad}, but config.generator.num_classes is {classes}; legal: 0 to '
        f'{classes - 1}: set it to the number of classes of the data, or to 0, and '
        'config.sampler.guidance too, for no labels.'
      )
    return batch

  def _recipe(self):
    config = self._config
    recipes.check_updates(config)
    section = config.generator.to_dict()
    layout = build.layout(section, self._source.shape, config.tokens.num_codes)
    network = build.build(section, layout)
    names, classes = self._source.class_names, network.num_classes
    if names is not None and classes not in (0, len(names)):
      raise UserError(
        f'config.generator.num_classes is {classes}, but the data has {len(names)}; set '
        f'--config.generator.num_classes={len(names)}{", or 0 for no labels" if names else ""}.'
      )
    objective = build.build_objective(config.objective.to_dict(), section['network'])
    if objective.label_drop and not network.has_null:
      raise UserError(
        f'config.objective.label_drop is {objective.label_drop}, but the network '
        f'{section["network"]!r} has no null class to train; set it to 0.'
      )
    transformation, schedule = optimizer.build(
      config.optimizer,
      batch_size=config.batch_size,
      num_examples=self.num_examples,
      total_steps=self.total_steps,
    )
    return steps.GeneratorRecipe(
      network=network,
      objective=objective,
      optimizer=transformation,
      schedule=schedule,
      total_steps=self.total_steps,
      tokenizer=self._source.tokenizer.model if self._source.tokenizes else None,
      accumulate=config.accumulate,
      sum_gradients=config.accumulate_gradients == 'sum',
      ema_decay=config.ema_decay,
    )


class _Positioned:
  """Held-out batches, each example with its 'position' in the set; see `data.eval_batches`."""

  def __init__(self, batches, prepare):
    self._batches, self._prepare, self._seen = batches, prepare, 0

  def __iter__(self):
    return self

  def __next__(self):
    batch = next(self._batches)
    # Process p has every example n with n mod process_count = p.
    count, processes = len(batch['label']), jax.process_count()
    places = self._seen + np.arange(count) * processes + jax.process_index()
    self._seen += count * processes
    return self._prepare({**batch, 'position': places.astype(np.int32)})

  def close(self):
    self._batches.close()
