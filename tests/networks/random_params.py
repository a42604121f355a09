"""Networks with parameters drawn by NumPy: initialising and compiling is what such tests spend."""

import jax
import numpy as np

QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def random_params(module, *inputs, seed=0):
  """Parameters of the module for `inputs`, all of them normal, with deviation 0.2."""
  rng = np.random.default_rng(seed)
  abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))['params']
  draw = lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(leaf.dtype)
  return jax.tree.map(draw, abstract)


def compiled(module):
  """`(params, *inputs) -> outputs` of the module, compiled in a hurry."""
  run = lambda params, *inputs: module.apply({'params': params}, *inputs)
  return jax.jit(run, compiler_options=QUICK)
