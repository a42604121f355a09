"""The masked transformers among the goldens, with the weights that their authors' code wrote."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from golden_data import checkpoint

from vqjax import convert
from vqjax.generation.halton_maskgit import MaskedTransformer
from vqjax.generation.layout import MASKED, Layout
from vqjax.generation.maskgit import MaskGITTransformer

HALTON = ('halton_16_a', 'halton_24_a', 'halton_conf_8_a')
MASKGIT = ('maskgit_8_a', 'maskgit_16_a')
NETWORKS = {'halton_maskgit': MaskedTransformer, 'maskgit': MaskGITTransformer}


@functools.cache
def load(name):
  """A golden: (network, its variables, what the checkpoint was taken apart into, io, sidecar)."""
  path, io, sidecar = checkpoint(name, 'generation')
  architecture = sidecar['architecture']
  published = convert.open_generator(path, heads=architecture.get('heads'))
  grid = architecture.get('input_size') or architecture['latent']
  layout = Layout((grid, grid), architecture['codebook_size'])
  fields = dict(published.generator)
  network = NETWORKS[fields.pop('network')]
  model = network(layout, published.num_classes(layout), **fields)
  return model, convert.generator_variables(published, model, path), published, io, sidecar


def abstract(model):
  """Shapes of a network's variables."""
  symbols = jnp.zeros((1, model.layout.length), jnp.int32)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), symbols, symbols[:, 0]))


def symbols(codes, num_codes):
  """Their codes [.. h w], K or more where masked -> symbols int32 [.. N]."""
  codes = np.where(codes >= num_codes, MASKED, codes).astype(np.int32)
  return jnp.asarray(codes.reshape(*codes.shape[:-2], -1))
