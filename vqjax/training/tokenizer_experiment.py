"""The experiment of a tokenizer: it is trained on images, and looked at on held-out ones."""

import contextlib
import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_collections

from vqjax import compilation, sharding, weights
from vqjax import data as datasets
from vqjax.errors import UserError
from vqjax.evaluation.collect import collect, spread
from vqjax.evaluation.step import make_eval_step
from vqjax.report import pictures
from vqjax.training import guard
from vqjax.training import recipe as recipes
from vqjax.training import state as states
from vqjax.training.experiment import Batches, Look
from vqjax.training.step import latents, make_train_step, seed_codebooks
from vqjax.training.warm_start import warm_start

log = logging.getLogger('vqjax')


class TokenizerExperiment:
  """An `Experiment`, see there: the tokenizer of a config, on the devices of a mesh.

  Raises:
    UserError: a field of the config that is not legal, data that are not there, or weights of a
      perceptual term that were not fetched.
  """

  tokens_per_example = 0  # a pace in images says all
  next_command = 'python eval.py --workdir={workdir}'

  def __init__(self, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
    sharding.check_batch_size(mesh, config.batch_size, 'config.batch_size', config.accumulate)
    if config.seed < 0:
      raise UserError(f'config.seed is {config.seed}; legal: 0 or more.')
    self._config, self._mesh = config, mesh
    self._sources = {split: datasets.make_source(config.data, split) for split in ('train', 'eval')}
    for split, source in self._sources.items():
      log.info('%s data: %s', split, source.description)
    self.num_examples = len(self._sources['train'])
    self.total_steps = recipes.total_steps(config, self.num_examples)
    self.recipe = recipes.build(config, self.num_examples)
    recipes.warn_of_slow_average(config, self.total_steps)
    self.best_metric = self.recipe.task.best_metric
    self._perceptual = None  # parameters, constant: an argument of the step, in no checkpoint
    if self.recipe.perceptual is not None:
      params = weights.load(f'lpips_{self.recipe.perceptual.net}')
      self._perceptual = jax.device_put(params, sharding.replicated(mesh))

    self._key = jax.random.key(config.seed)
    size = config.data.image_size
    create = functools.partial(states.create, self.recipe, image_shape=(1, size, size, 3))
    abstract = jax.eval_shape(create, self._key)
    self._shardings = sharding.state(mesh, abstract)
    self.abstract_state = sharding.target(abstract, self._shardings)
    self.parameters = abstract.generator.params
    self._create = jax.jit(
      create, out_shardings=self._shardings, compiler_options=compilation.run_once()
    )
    self._step = make_train_step(
      self.recipe, mesh, self._shardings, skip_nonfinite=guard.allowed(config) > 0
    )
    self._eval_step = make_eval_step(
      self.recipe.tokenizer,
      self.recipe.loss_weights,
      mesh,
      network_params={},
      numbers=('psnr', 'ssim'),
    )

  def start(self) -> states.TrainState:
    """The state before the first step: initialised, or from `config.init_from`; codes seeded."""
    config, state = self._config, self._create(self._key)
    if config.init_from:
      log.info('starting from %s', config.init_from)
      state = warm_start(
        self.recipe, state, config.init_from, discriminator=config.init_discriminator
      )
      state = jax.device_put(state, self._shardings)
    if count := config.seed_codebook_batches:
      log.info('seeding the codebook from %d batches', count)
      with contextlib.closing(self.batches(0)) as batches:
        images = [sharding.put_batch(self._mesh, next(batches)['image']) for _ in range(count)]
      # One program for all batches: as one program of all, the encoder compiles once for each.
      encode = jax.jit(functools.partial(latents, self.recipe))
      z = [encode(state, batch) for batch in images]
      seed = functools.partial(seed_codebooks, self.recipe)
      state = jax.jit(seed, out_shardings=self._shardings)(state, z)
    return state

  def batches(self, examples_seen: int) -> Batches:
    """Batches {'image': uint8 [B S S 3], 'label': int32 [B]} of this process."""
    return datasets.train_batches(
      self._sources['train'],
      self._config.data,
      batch_size=self._config.batch_size,
      seed=self._config.seed,
      start=examples_seen,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def step(
    self, state: states.TrainState, batch: Mapping[str, Any], step: int
  ) -> tuple[states.TrainState, dict[str, jax.Array]]:
    """One step of the generator and, once its time has come, of the discriminator."""
    batch = sharding.put_batch(self._mesh, batch)
    stage = self.recipe.stage(step - 1)
    before = self.recipe.stage(step - 2) if step > 1 else recipes.Stage()
    for part in ('discriminator', 'generator'):
      if getattr(stage, part) and not getattr(before, part):
        log.info("step %d: the %s's GAN loss takes part from here on", step, part)
    return self._step(state, batch, stage=stage, perceptual=self._perceptual)

  def examples(self, numbers: Iterable[int]) -> list[str]:
    """The images by the names that their source has for them."""
    return datasets.train_names(self._sources['train'], numbers, seed=self._config.seed)

  def look(self, state: states.TrainState) -> Look:
    """Held-out numbers, and originals above their reconstructions."""
    config, source = self._config, self._sources['eval']
    batches = datasets.eval_batches(
      source,
      config.data,
      batch_size=config.batch_size // config.accumulate,
      limit=config.eval_images,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    found = collect(
      functools.partial(self._eval_step, state.eval_params, state.generator.variables),
      batches,
      num_codes=self.recipe.tokenizer.quantizer.num_codes,
      samples=spread(min(config.eval_images, len(source)), config.sample_images),
    )
    numbers = {name: value for name, value in found.metrics.items() if value is not None}
    count = int(numbers['num_images'])
    if not (samples := found.samples):
      return Look(count, numbers, {})
    picture = pictures.comparison(samples.originals, samples.reconstructions)
    return Look(count, numbers, {'held_out': picture})
