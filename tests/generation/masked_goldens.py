"""The masked transformers among the goldens, with the weights that their authors' code wrote."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from golden_data import checkpoint

from vqjax import tensor_files
from vqjax.convert import generators, trees
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
  published = generators.take_apart_generator(tensor_files.read(path), path)
  grid = architecture.get('input_size') or architecture['latent']
  layout = Layout((grid, grid), architecture['codebook_size'])
  fields = dict(published.generator)
  network = NETWORKS[fields.pop('network')]
  fields['heads'] = fields['heads'] or architecture['heads']  # which a small one's keys do not say
  model = network(layout, published.num_classes(layout), **fields)
  variables = trees.fill(published.tensors, abstract(model), published.names, path)
  return model, variables, published, io, sidecar


def abstract(model):
  """Shapes of a network's variables."""
  symbols = jnp.zeros((1, model.layout.length), jnp.int32)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), symbols, symbols[:, 0]))


def symbols(codes, num_codes):
  """Their codes [.. h w], K or more where masked -> symbols int32 [.. N]."""
  codes = np.where(codes >= num_codes, MASKED, codes).astype(np.int32)
  return jnp.asarray(codes.reshape(*codes.shape[:-2], -1))
