"""Quantizer layers: a codebook, and six independent choices of what to do with it.

vq = VectorQuantizer(8192, estimator=rotation, learner=Ema(decay=0.99))
variables = vq.init(key, z, train=True)                            # z [... D]
out, updated = vq.apply(variables, z, train=True, mutable=['vq'])  # out.z_q, updated['vq']
z_q = vq.apply(variables, out.indices, method='lookup')
"""

# Which code a row takes.
from vqjax.quantizers.assignments import Assignment, Gumbel, Nearest, Relaxed, Stochastic

# Without a codebook: quantizers that keep the sign of every channel.
from vqjax.quantizers.binary import BSQ, LFQ

# A quantizer from a plain dict.
from vqjax.quantizers.build import build

# Structure: groups of channels, levels of residuals.
from vqjax.quantizers.composite import Grouped, Residual

# What the gradient sees in place of the rounding step.
from vqjax.quantizers.estimators import (
  Directional,
  Estimator,
  EstimatorLike,
  Reflection,
  Rotation,
  StraightThrough,
  Sync,
  reflection,
  rotation,
  straight_through,
  tangent_rotation,
)

# What the gradient would be without rounding: two studies.
from vqjax.quantizers.exact_gradient import double_forward, hessian_vector

# Where a codebook starts.
from vqjax.quantizers.initializers import Initializer, NormalCodebook, uniform_codebook
from vqjax.quantizers.kmeans import kmeans, kmeans_plus_plus, lloyd

# Without a codebook: a quantizer that rounds every channel to one of a few levels.
from vqjax.quantizers.lattice import FSQ

# Who moves the codebook when it is not the gradient.
from vqjax.quantizers.learners import Alternating, Ema, EmaState, Frozen, Learner

# The search behind Nearest.
from vqjax.quantizers.lookup import nearest_code

# Statistics and norms.
from vqjax.quantizers.ops import code_counts, masked_mean, perplexity, unit, usage

# Optimizers by name, for Alternating.
from vqjax.quantizers.optimizers import NamedOptimizer

# The published systems, one function each: presets.taming(), presets.optvq(), ...
from vqjax.quantizers import presets  # isort: skip

# What every quantizer is and returns.
from vqjax.quantizers.quantizer import Quantized, Quantizer

# Further terms of the loss.
from vqjax.quantizers.regularizers import (
  Entropy,
  KLToUniform,
  Orthogonality,
  Regularizer,
  kl_to_uniform,
)

# Which codes are dead.
from vqjax.quantizers.replacement import LeastRecent, RarelyUsed, Replacement

# Rows over dead codes, between steps.
from vqjax.quantizers.reviving import replace_dead_codes

# Codebooks on k-means centres, before step 0.
from vqjax.quantizers.seeding import seed_codebooks

# The assignment of OptVQ.
from vqjax.quantizers.sinkhorn import Sinkhorn

# A plain dict from a quantizer.
from vqjax.quantizers.spec import spec

# From stored weights to codes.
from vqjax.quantizers.transforms import Affine, Linear, Observing, RunningAffine, Space, Transform

# The layer.
from vqjax.quantizers.vector import VectorQuantizer

__all__ = [
  'BSQ',
  'FSQ',
  'LFQ',
  'Affine',
  'Alternating',
  'Assignment',
  'Directional',
  'Ema',
  'EmaState',
  'Entropy',
  'Estimator',
  'EstimatorLike',
  'Frozen',
  'Grouped',
  'Gumbel',
  'Initializer',
  'KLToUniform',
  'Learner',
  'LeastRecent',
  'Linear',
  'NamedOptimizer',
  'Nearest',
  'NormalCodebook',
  'Observing',
  'Orthogonality',
  'Quantized',
  'Quantizer',
  'RarelyUsed',
  'Reflection',
  'Regularizer',
  'Relaxed',
  'Replacement',
  'Residual',
  'Rotation',
  'RunningAffine',
  'Sinkhorn',
  'Space',
  'Stochastic',
  'StraightThrough',
  'Sync',
  'Transform',
  'VectorQuantizer',
  'build',
  'code_counts',
  'double_forward',
  'hessian_vector',
  'kl_to_uniform',
  'kmeans',
  'kmeans_plus_plus',
  'lloyd',
  'masked_mean',
  'nearest_code',
  'perplexity',
  'presets',
  'reflection',
  'replace_dead_codes',
  'rotation',
  'seed_codebooks',
  'spec',
  'straight_through',
  'tangent_rotation',
  'uniform_codebook',
  'unit',
  'usage',
]
