"""Quantizer layers: a codebook, and six independent choices of what to do with it.

vq = VectorQuantizer(8192, estimator=rotation, learner=Ema(decay=0.99))
variables = vq.init(key, z, train=True)                            # z [... D]
out, updated = vq.apply(variables, z, train=True, mutable=['vq'])  # out.z_q, updated['vq']
z_q = vq.apply(variables, out.indices, method='lookup')
"""

# Which code a row takes.
from vqjax.quantizers.assignments import Nearest

# A quantizer from a plain dict.
from vqjax.quantizers.build import build

# What the gradient sees in place of the rounding step.
from vqjax.quantizers.estimators import (
  Estimator,
  Reflection,
  Rotation,
  StraightThrough,
  reflection,
  rotation,
  straight_through,
  tangent_rotation,
)

# Who moves the codebook when it is not the gradient.
from vqjax.quantizers.learners import Ema, EmaState

# The search behind Nearest.
from vqjax.quantizers.lookup import nearest_code

# Statistics and norms.
from vqjax.quantizers.ops import code_counts, masked_mean, perplexity, unit, usage

# The layer and what it returns.
from vqjax.quantizers.vector import (
  NormalCodebook,
  Quantized,
  VectorQuantizer,
  uniform_codebook,
)

__all__ = [
  'Ema',
  'EmaState',
  'Estimator',
  'Nearest',
  'NormalCodebook',
  'Quantized',
  'Reflection',
  'Rotation',
  'StraightThrough',
  'VectorQuantizer',
  'build',
  'code_counts',
  'masked_mean',
  'nearest_code',
  'perplexity',
  'reflection',
  'rotation',
  'straight_through',
  'tangent_rotation',
  'uniform_codebook',
  'unit',
  'usage',
]
