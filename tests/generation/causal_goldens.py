"""The goldens of causal transformers, opened."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from golden_data import checkpoint

from vqjax import convert
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT
from vqjax.generation.rar import RAR

GOLDENS = ('llamagen_gpt_16_a', 'llamagen_gpt_24_a', 'rar_a')
KINDS = {'llamagen': GPT, 'rar': RAR}


@dataclasses.dataclass
class Opened:
  """A golden: its file, its transformer, and its inputs as this takes them."""

  path: Any
  io: dict
  sidecar: dict
  published: convert.PublishedGenerator
  model: Any
  variables: dict

  @property
  def symbols(self):
    return jnp.asarray(self.io['tokens'], jnp.int32)

  @property
  def labels(self):
    """Theirs of RAR are rows of the table that the codes are in."""
    if 'condition_ids' in self.io:
      return jnp.asarray(self.io['condition_ids'], jnp.int32) - self.model.layout.base - 1
    return jnp.asarray(self.io['labels'], jnp.int32)

  @property
  def orders(self):
    return jnp.asarray(self.io['orders'], jnp.int32)


@functools.cache
def opened(name):
  """The golden of this name, its transformer read from the file."""
  path, io, sidecar = checkpoint(name, 'generation')
  shape = sidecar['architecture']
  layout = Layout((int(io['tokens'].shape[1] ** 0.5),) * 2, io['logits'].shape[-1])
  published = convert.open_generator(path, heads=shape.get('n_head'))
  fields = dict(published.generator)
  model = KINDS[fields.pop('network')](layout, published.num_classes(layout), **fields)
  variables = convert.generator_variables(published, model, path)
  return Opened(path, io, sidecar, published, model, variables)
