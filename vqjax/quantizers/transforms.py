"""From the stored weights to the codes."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.initializers import Initializer

HIGHEST = jax.lax.Precision.HIGHEST

Variables = dict[str, jax.Array]


class Transform(Protocol):
  """How stored weights become codes: pure functions of the transform's own variables.

  Attributes:
    learned: True: the variables belong to the optimizer, as `params/transform`. False: they belong
      to the quantizer, as `vq/transform`, and move by `observe`.
    groups: blocks of consecutive codes with variables of their own; must divide K. 1: none.
  """

  @property
  def learned(self) -> bool: ...

  @property
  def groups(self) -> int: ...

  def init(self, key: jax.Array, num_codes: int, width: int) -> Variables:
    """Its variables at the start, for K codes of width D."""

  def codes(self, variables: Variables, weights: jax.Array) -> jax.Array:
    """Weights [K D] to codes [K D]."""

  def inverse(
    self, variables: Variables, rows: jax.Array, indices: jax.Array, num_codes: int
  ) -> jax.Array:
    """Rows [N D] that are to be the codes `indices` [N] -> the weights [N D] of such codes.

    It is what an EMA codebook, seeding and the replacement of dead codes write.
    """


class Observing(Transform, Protocol):
  """A transform with `learned=False`."""

  def observe(
    self, variables: Variables, weights: jax.Array, rows: jax.Array, mask: jax.Array
  ) -> Variables:
    """The variables after the rows [N D], of which `mask` [N] count.

    Called in every training forward, before the codes [K D] of `weights` are computed.
    """


class Space(NamedTuple):
  """A transform with its variables bound: what learners see of it."""

  codes: Callable[[jax.Array], jax.Array] = lambda weights: weights  # [K D] -> [K D]
  inverse: Callable[[jax.Array, jax.Array], jax.Array] = lambda rows, indices: rows  # [N D], [N]


def _square_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
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
  kernel_init: Initializer = dataclasses.field(default=_square_normal, repr=False)
  learned: ClassVar[bool] = True
  groups: ClassVar[int] = 1

  def init(self, key: jax.Array, num_codes: int, width: int) -> Variables:
    del num_codes
    key, bias_key = jax.random.split(key)
    variables = {'kernel': self.kernel_init(key, (width, width), jnp.float32)}
    if self.bias:  # PyTorch's default for a linear layer
      bound = width**-0.5
      variables['bias'] = jax.random.uniform(bias_key, (width,), jnp.float32, -bound, bound)
    return variables

  def codes(self, variables: Variables, weights: jax.Array) -> jax.Array:
    codes = jnp.matmul(weights, variables['kernel'], precision=HIGHEST)
    return codes + variables['bias'][None] if self.bias else codes

  def inverse(
    self, variables: Variables, rows: jax.Array, indices: jax.Array, num_codes: int
  ) -> jax.Array:
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

  def init(self, key: jax.Array, num_codes: int, width: int) -> Variables:
    del key, num_codes
    zeros = jnp.zeros((self.groups, width), jnp.float32)
    return {'scale': zeros, 'bias': zeros}

  def codes(self, variables: Variables, weights: jax.Array) -> jax.Array:
    blocks = weights.reshape(self.groups, -1, weights.shape[1])
    scale, bias = (self.lr * variables[name][:, None] for name in ('scale', 'bias'))
    return ((1 + scale) * blocks + bias).reshape(weights.shape)

  def inverse(
    self, variables: Variables, rows: jax.Array, indices: jax.Array, num_codes: int
  ) -> jax.Array:
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

  def __post_init__(self) -> None:
    for field in ('batch_decay', 'code_decay'):
      if not 0 <= getattr(self, field) < 1:
        raise ValueError(
          f'RunningAffine.{field} is {getattr(self, field)}; legal: 0 <= {field} < 1.'
        )

  def init(self, key: jax.Array, num_codes: int, width: int) -> Variables:
    del key, num_codes
    row, block = jnp.zeros(width, jnp.float32), jnp.zeros((self.groups, width), jnp.float32)
    return {
      'batch_mean': row,
      'batch_var': row + 1,
      'code_mean': block,
      'code_var': block + 1,
      'started': jnp.zeros((), bool),
    }

  def observe(
    self, variables: Variables, weights: jax.Array, rows: jax.Array, mask: jax.Array
  ) -> Variables:
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

  def codes(self, variables: Variables, weights: jax.Array) -> jax.Array:
    blocks = weights.reshape(self.groups, -1, weights.shape[1])
    scale = self._scale(variables)
    moved = (blocks - variables['code_mean'][:, None]) * scale[:, None]
    moved = (moved + variables['batch_mean'][None, None]).reshape(weights.shape)
    return jnp.where(variables['started'], moved, weights)

  def inverse(
    self, variables: Variables, rows: jax.Array, indices: jax.Array, num_codes: int
  ) -> jax.Array:
    block = indices // (num_codes // self.groups)
    moved = (rows - variables['batch_mean'][None]) / self._scale(variables)[block]
    return jnp.where(variables['started'], moved + variables['code_mean'][block], rows)

  def _scale(self, variables: Variables) -> jax.Array:
    batch, codes = (
      jnp.sqrt(jnp.maximum(variables[name], self.eps)) for name in ('batch_var', 'code_var')
    )
    return batch[None] / codes


def bind(
  transform: Transform | None, variables: Variables | None, num_codes: int, sphere: bool
) -> Space:
  """The space of a quantizer: its transform with its variables, and unit codes on the sphere."""
  if transform is None:
    return Space(codes=ops.unit) if sphere else Space()
  own = cast(Variables, variables)  # a transform has some

  def codes(weights: jax.Array) -> jax.Array:
    moved = transform.codes(own, weights)
    return ops.unit(moved) if sphere else moved

  def inverse(rows: jax.Array, indices: jax.Array) -> jax.Array:
    return transform.inverse(own, rows, indices, num_codes)

  return Space(codes, inverse)


def _away_from_zero(x: jax.Array, eps: float = 1e-6) -> jax.Array:
  """`x`, at least `eps` from zero on its side."""
  return jnp.where(jnp.abs(x) < eps, jnp.where(x < 0, -eps, eps), x)
