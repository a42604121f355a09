"""From the stored weights to the codes: `init`, `codes` and `inverse`, pure functions.

`init(key, num_codes, width) -> variables`; `codes(variables, weights [K D]) -> codes [K D]`;
`inverse(variables, rows [N D], indices [N], num_codes) -> rows [N D]`, from where codes live to
where weights live, for rows that stand for the codes `indices`: what an EMA codebook, seeding and
the replacement of dead codes write. `learned` says who owns the variables: the optimizer
(`params/transform`), or the quantizer (`vq/transform`), which then calls
`observe(variables, weights, rows, mask) -> variables` in every training forward, before the codes
are taken.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops

HIGHEST = jax.lax.Precision.HIGHEST


class Space(NamedTuple):
  """A transform with its variables bound: what learners see of it."""

  codes: Callable = lambda weights: weights  # [K D] -> [K D]
  inverse: Callable = lambda rows, indices: rows  # [N D], [N] -> [N D]


def _square_normal(key, shape, dtype=jnp.float32):
  return jax.random.normal(key, shape, dtype) / jnp.sqrt(jnp.asarray(shape[0], dtype))


@dataclasses.dataclass(frozen=True)
class Linear:
  """All codes through one learned linear map, `codes = weights W + b`: all of them move.

  With `learner=Frozen()` this is SimVQ (arXiv 2411.02038), with a gradient codebook OptVQ's
  projection (arXiv 2412.15195). A task's gradient on a few codes reaches all of them through `W`.
  `inverse` is the least-squares solution, with a ridge of 1e-6 of the mean squared singular value.

  Attributes:
    bias: whether there is a `b`: OptVQ has it, SimVQ not.
    kernel_init: of `W` [D D]; by default normal with variance 1 / D.
  """

  bias: bool = False
  kernel_init: Callable = dataclasses.field(default=_square_normal, repr=False)
  learned: ClassVar[bool] = True

  def init(self, key, num_codes, width):
    del num_codes
    key, bias_key = jax.random.split(key)
    variables = {'kernel': self.kernel_init(key, (width, width), jnp.float32)}
    if self.bias:  # PyTorch's default for a linear layer
      bound = width**-0.5
      variables['bias'] = jax.random.uniform(bias_key, (width,), jnp.float32, -bound, bound)
    return variables

  def codes(self, variables, weights):
    codes = jnp.matmul(weights, variables['kernel'], precision=HIGHEST)
    return codes + variables['bias'][None] if self.bias else codes

  def inverse(self, variables, rows, indices, num_codes):
    del indices, num_codes
    kernel = variables['kernel']
    if self.bias:
      rows = rows - variables['bias'][None]
    gram = jnp.matmul(kernel, kernel.T, precision=HIGHEST)
    width = gram.shape[0]
    gram = gram + (1e-6 * jnp.trace(gram) / width) * jnp.eye(width)
    target = jnp.matmul(kernel, rows.T, precision=HIGHEST)
    return jax.scipy.linalg.solve(gram, target, assume_a='pos').T


@dataclasses.dataclass(frozen=True)
class Affine:
  """All codes of a block through one learned scale and shift, so that unused ones follow.

  `codes = (1 + lr s) weights + lr t`, `s, t` [G D] zero at the start, shared by K / G consecutive
  codes. Huh et al., Straightening Out the Straight-Through Estimator (ICML 2023), section 4.1;
  vqtorch's `affine_lr`, `affine_groups`.

  Attributes:
    lr: scales the effect of `s, t` and their gradient: a learning rate relative to the codes'.
    groups: G; divides K.
  """

  lr: float = 1.0
  groups: int = 1
  learned: ClassVar[bool] = True

  def init(self, key, num_codes, width):
    del key, num_codes
    zeros = jnp.zeros((self.groups, width), jnp.float32)
    return {'scale': zeros, 'bias': zeros}

  def codes(self, variables, weights):
    blocks = weights.reshape(self.groups, -1, weights.shape[1])
    scale, bias = (self.lr * variables[name][:, None] for name in ('scale', 'bias'))
    return ((1 + scale) * blocks + bias).reshape(weights.shape)

  def inverse(self, variables, rows, indices, num_codes):
    block = indices // (num_codes // self.groups)
    scale, bias = (self.lr * variables[name][block] for name in ('scale', 'bias'))
    return (rows - bias) / _away_from_zero(1 + scale)


@dataclasses.dataclass(frozen=True)
class RunningAffine:
  """Codes moved to mean and variance of the encoder's rows, by running statistics.

  `codes = (weights - m_w) sd_z / sd_w + m_z`, with statistics of the rows [D] and, per block of
  K / G consecutive codes, of the weights [G D]. The first training forward takes them as they
  are, later ones `stat <- decay stat + (1 - decay) new`; evaluation does not move them (in
  vector-quantize-pytorch it does). No gradient flows through the statistics. Huh et al. (ICML
  2023), section 4.1; vqtorch's `use_running_statistics`, vector-quantize-pytorch's `affine_param`.

  Attributes:
    batch_decay: of the rows' statistics; 0.9 in vqtorch, 0.99 in vector-quantize-pytorch.
    code_decay: of the weights' statistics.
    groups: G; divides K.
    eps: floor of a variance.
  """

  batch_decay: float = 0.9
  code_decay: float = 0.9
  groups: int = 1
  eps: float = 1e-5
  learned: ClassVar[bool] = False

  def __post_init__(self):
    for field in ('batch_decay', 'code_decay'):
      if not 0 <= getattr(self, field) < 1:
        raise ValueError(
          f'RunningAffine.{field} is {getattr(self, field)}; legal: 0 <= {field} < 1.'
        )

  def init(self, key, num_codes, width):
    del key, num_codes
    row, block = jnp.zeros(width, jnp.float32), jnp.zeros((self.groups, width), jnp.float32)
    return {
      'batch_mean': row,
      'batch_var': row + 1,
      'code_mean': block,
      'code_var': block + 1,
      'started': jnp.zeros((), bool),
    }

  def observe(self, variables, weights, rows, mask):
    batch_mean = ops.mean_row(rows, mask)
    blocks = weights.reshape(self.groups, -1, weights.shape[1])
    fresh = {
      'batch_mean': batch_mean,
      'batch_var': ops.mean_row(jnp.square(rows - batch_mean[None]), mask),
      'code_mean': jnp.mean(blocks, axis=1),
      'code_var': jnp.var(blocks, axis=1),
    }
    decays = {'batch': self.batch_decay, 'code': self.code_decay}
    some = jnp.any(mask)  # a batch without rows says nothing
    moved = {'started': variables['started'] | some}
    for name, new in fresh.items():
      old, decay = variables[name], decays[name.split('_')[0]]
      mixed = jnp.where(variables['started'], decay * old + (1 - decay) * new, new)
      moved[name] = jnp.where(some, mixed, old)
    return moved

  def codes(self, variables, weights):
    blocks = weights.reshape(self.groups, -1, weights.shape[1])
    scale = self._scale(variables)
    moved = (blocks - variables['code_mean'][:, None]) * scale[:, None]
    moved = (moved + variables['batch_mean'][None, None]).reshape(weights.shape)
    return jnp.where(variables['started'], moved, weights)

  def inverse(self, variables, rows, indices, num_codes):
    block = indices // (num_codes // self.groups)
    moved = (rows - variables['batch_mean'][None]) / self._scale(variables)[block]
    return jnp.where(variables['started'], moved + variables['code_mean'][block], rows)

  def _scale(self, variables):
    floor = lambda var: jnp.sqrt(jnp.maximum(var, self.eps))
    return floor(variables['batch_var'])[None] / floor(variables['code_var'])


def bind(transform, variables, num_codes, sphere) -> Space:
  """The space of a quantizer: its transform with its variables, and unit codes on the sphere."""
  if transform is None:
    return Space(codes=ops.unit) if sphere else Space()
  codes = lambda weights: transform.codes(variables, weights)
  return Space(
    codes=(lambda weights: ops.unit(codes(weights))) if sphere else codes,
    inverse=lambda rows, indices: transform.inverse(variables, rows, indices, num_codes),
  )


def _away_from_zero(x, eps=1e-6):
  """`x`, at least `eps` from zero on its side."""
  return jnp.where(jnp.abs(x) < eps, jnp.where(x < 0, -eps, eps), x)
