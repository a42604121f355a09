"""What the gradient sees in place of the quantization step.

Every estimator returns the code `q` itself, bit for bit, and differs only in the gradient that
reaches `z`. Notation: `e` the encoder row, `q` its code, `g` the gradient that arrives at the
output, hats are unit vectors, `l = |q| / |e|`.
"""

import dataclasses
import functools
from typing import ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.declarations import declares


class EstimatorLike(Protocol):
  """Whatever a quantizer takes for an estimator: `(z [N D], q [N D]) -> z_q [N D]`.

  The value must be `q`; what matters is the gradient. A plain function will do, or a subclass of
  `Estimator`. A class can declare, by attributes or properties that are True; what it does not
  declare is False:

    uses_key: it is called with `key=`, where there is an RNG stream `vq`, and must do without.
    moves_codes: a gradient of the task reaches `q` too; refused where none can move the codes.
    copies_gradient: `q` gets a copy of a gradient that `z` gets as well.
    needs_near_codes: it is known to diverge where codes are drawn, and so may lie anywhere.

  Equal settings must be equal and hash equal, as those of a frozen dataclass are.
  """

  def __call__(self, z: jax.Array, q: jax.Array, /) -> jax.Array:
    """`q` in value; both float32 [N D]."""


class Estimator:
  """A gradient for the quantization step, given by `pull_back`; the value is always the code.

  Subclasses are frozen dataclasses: equal settings hash equal, so that a rebuilt module does not
  compile again. Any `(z, q) -> z_q` will do in a quantizer; this class is the short way to write
  one in terms of its gradient.
  """

  def __call__(self, z: jax.Array, q: jax.Array) -> jax.Array:
    return _code(self, z, q)

  def pull_back(self, z: jax.Array, q: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient for `z` given the gradient `g` at the output; all float32 [N D]."""
    raise NotImplementedError


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _code(estimator: Estimator, z: jax.Array, q: jax.Array) -> jax.Array:
  del estimator, z
  return q


def _code_fwd(
  estimator: Estimator, z: jax.Array, q: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  del estimator
  return q, (z, q)


def _code_bwd(
  estimator: Estimator, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  z, q = residuals
  dz = estimator.pull_back(z.astype(jnp.float32), q.astype(jnp.float32), g.astype(jnp.float32))
  return dz.astype(z.dtype), jnp.zeros_like(q)


_code.defvjp(_code_fwd, _code_bwd)


@dataclasses.dataclass(frozen=True)
class StraightThrough(Estimator):
  """The identity in gradient: `dz = g` (Bengio et al. 2013; van den Oord et al. 2017).

  The originals write `z + sg(q - z)`, which equals `q` only up to rounding; this is `q`.
  """

  def pull_back(self, z: jax.Array, q: jax.Array, g: jax.Array) -> jax.Array:
    del z, q
    return g


@dataclasses.dataclass(frozen=True)
class _LinearMap(Estimator):
  """A frozen linear map that takes `e` to `q`; what rotation and reflection have in common.

  Attributes:
    scale: length factor of the map: `ratio` = |q| / |e|; `inv_norm` = 1 / |e|; `none` = 1.
    radial: `keep` passes the part of the gradient along `e`; `drop` removes it, as
      differentiating through `e / |e|` does.
    safe: rows with |e| <= eps or |q| <= eps, which have no direction, get `dz = g`. The originals
      give NaN or a factor of up to 1 / eps there.
    eps: floor of every length.
  """

  scale: Literal['ratio', 'inv_norm', 'none'] = 'ratio'
  radial: Literal['keep', 'drop'] = 'keep'
  safe: bool = True
  eps: float = 1e-6
  needs_near_codes: ClassVar[bool] = True

  def __post_init__(self) -> None:
    for field, legal in (('scale', ('ratio', 'inv_norm', 'none')), ('radial', ('keep', 'drop'))):
      if getattr(self, field) not in legal:
        name = type(self).__name__
        raise ValueError(f'{name}.{field} is {getattr(self, field)!r}; legal: {", ".join(legal)}.')

  def pull_back(self, z: jax.Array, q: jax.Array, g: jax.Array) -> jax.Array:
    e_norm, q_norm = ops.norm(z, self.eps), ops.norm(q, self.eps)
    e, v = z / e_norm, q / q_norm
    dz = self._transposed(e, v, g)
    if self.radial == 'drop':
      dz = dz - _dot(v, g) * e  # (I - e e') M' g, because e' M' g = (M e)' g = v' g
    dz = self._length(e_norm, q_norm) * dz
    if self.safe:
      has_direction = (e_norm > self.eps) & (q_norm > self.eps)
      dz = jnp.where(has_direction, dz, g)
    return dz

  def definition(self, z: jax.Array, q: jax.Array) -> jax.Array:
    """The same estimator as it is defined: a linear map frozen by `jax.lax.stop_gradient`.

    Applies `sg[length * M]` to `e` (`radial='keep'`), or to the differentiable `e / |e|` times
    `sg[|e|]` (`radial='drop'`). Value and gradient equal `__call__` up to rounding, on rows with
    a direction; it is here to be read and to be tested against.
    """
    stop = jax.lax.stop_gradient
    e_norm, q_norm = ops.norm(z, self.eps), ops.norm(q, self.eps)
    e, v = stop(z / e_norm), stop(q / q_norm)
    x = z if self.radial == 'keep' else z / e_norm * stop(e_norm)
    y = stop(self._length(e_norm, q_norm)) * self._apply(e, v, x)
    return y + stop(q - y)  # scales other than the ratio do not end at q by themselves

  def _transposed(self, u: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
    """The transposed map applied to `g`; `u` and `v` the directions of `e` and `q`."""
    raise NotImplementedError

  def _apply(self, u: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
    """The map itself applied to `x`."""
    raise NotImplementedError

  def _length(self, e_norm: jax.Array, q_norm: jax.Array) -> jax.Array:
    return {'ratio': q_norm / e_norm, 'inv_norm': 1 / e_norm, 'none': jnp.ones_like(e_norm)}[
      self.scale
    ]


class Rotation(_LinearMap):
  """The rotation trick: the gradient moves with the rotation and rescaling that takes `e` to `q`.

  `z_q = sg[l R] e`, `R = I - 2 w w' + 2 v u'` with `u = e / |e|`, `v = q / |q|`,
  `w = (u + v) / |u + v|`: the rotation by the angle between `e` and `q`, in their plane. In closed
  form `dz = l (g + 2 (v.g) u - k (u + v))`, `k = 2 (u + v).g / |u + v|^2`: the angle between
  gradient and vector, and their ratio of lengths, are the same on both sides.

  Fifty et al., Restructuring Vector Quantization with the Rotation Trick (ICLR 2025), section 4.
  Their published code differs from table to table: Table 1 keeps the radial part (`rotation`),
  Tables 3 and 4 drop it (`tangent_rotation`); the ablation without a gradient scale really scales
  by 1 / |e| (`Rotation('inv_norm', 'drop')`). Deviations: the value is exactly `q`; exactly
  antipodal rows are finite; `safe`.
  """

  def _transposed(self, u: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
    s = u + v  # formed explicitly: 1 + cos would cancel near the antipode
    k = 2 * _dot(s, g) / jnp.square(ops.norm(s, self.eps))
    return g + 2 * _dot(v, g) * u - k * s

  def _apply(self, u: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
    w = jax.lax.stop_gradient((u + v) / ops.norm(u + v, self.eps))
    return x - 2 * _dot(w, x) * w + 2 * _dot(u, x) * v


class Reflection(_LinearMap):
  """As the rotation trick, with the Householder reflection that takes `e` to `q`.

  `z_q = sg[l H] e`, `H = I - 2 w w'`, `w = (u - v) / |u - v|`; `dz = l H g`. Fifty et al. (ICLR
  2025), ablation of the rotation; their code drops the radial part, as `reflection` does.
  Deviation: where `e` and `q` have one direction, the map is the identity and not NaN.
  """

  def _transposed(self, u: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
    s = u - v
    return g - 2 * _dot(s, g) / jnp.square(ops.norm(s, self.eps)) * s

  def _apply(self, u: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
    return self._transposed(u, v, x)  # H is symmetric


@dataclasses.dataclass(frozen=True)
class Sync:
  """Synchronized update: the code really receives `nu` times the task's gradient.

  `z_q = base(z, q)` in value and in the gradient for `z`; `dq = nu g`, added up over the rows of
  a code. Huh et al., Straightening Out the Straight-Through Estimator (ICML 2023), equation 21;
  vqtorch's `sync_nu`: 0.2 to 2. (The option of this name in vector-quantize-pytorch scales the
  encoder's gradient by 1 + nu and gives the codebook nothing.)

  Attributes:
    base: the estimator that `z` sees.
    nu: at least 0.
  """

  base: EstimatorLike = StraightThrough()
  nu: float = 1.0
  moves_codes: ClassVar[bool] = True
  copies_gradient: ClassVar[bool] = True

  @property
  def needs_near_codes(self) -> bool:
    return declares(self.base, 'needs_near_codes')

  def __post_init__(self) -> None:
    if self.nu < 0:
      raise ValueError(f'Sync.nu is {self.nu}; legal: at least 0.')
    if declares(self.base, 'moves_codes'):
      raise ValueError(f'Sync.base is {self.base}, which moves codes by itself; take another.')

  def __call__(self, z: jax.Array, q: jax.Array) -> jax.Array:
    return _reaching_code(self.nu, self.base(z, jax.lax.stop_gradient(q)), q)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reaching_code(nu: float, y: jax.Array, q: jax.Array) -> jax.Array:
  del nu, q
  return y


def _reaching_code_fwd(nu: float, y: jax.Array, q: jax.Array) -> tuple[jax.Array, None]:
  del nu, q
  return y, None


def _reaching_code_bwd(nu: float, _: None, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  return g, (nu * g.astype(jnp.float32)).astype(g.dtype)


_reaching_code.defvjp(_reaching_code_fwd, _reaching_code_bwd)


@dataclasses.dataclass(frozen=True)
class Directional:
  """DiVeQ: the step from `z` to its code as a learned length along a frozen direction.

  `z_q = z + |q - z| sg[u]`, `u = (q - z + v) / |q - z + v|`, `v ~ N(0, variance)`; so
  `dq = (u.g) (q - z) / |q - z|` and `dz = g - dq`: the task moves the code, and neither
  commitment nor codebook loss is needed. Arxiv 2509.26469. Deviation: the noise is in the
  gradient only, the value is exactly the code, so that tokens decode to what was trained; without
  a key there is none. A row that equals its code gets `dz = g`, `dq = 0`.

  Attributes:
    variance: of the noise per element; 5e-3 in vector-quantize-pytorch.
  """

  variance: float = 5e-3
  uses_key: ClassVar[bool] = True
  moves_codes: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if self.variance < 0:
      raise ValueError(f'Directional.variance is {self.variance}; legal: at least 0.')

  def __call__(self, z: jax.Array, q: jax.Array, key: jax.Array | None = None) -> jax.Array:
    x, code = z.astype(jnp.float32), q.astype(jnp.float32)
    step = code - x
    direction = jax.lax.stop_gradient(step)
    if key is not None and self.variance:
      noise = jax.random.normal(key, step.shape, jnp.float32)
      direction = direction + self.variance**0.5 * noise
    y = x + ops.norm(step) * ops.unit(direction)
    return ops.with_value(y.astype(z.dtype), q)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.sum(a * b, axis=-1, keepdims=True)


straight_through = StraightThrough()
rotation = Rotation()
tangent_rotation = Rotation(radial='drop')
reflection = Reflection(radial='drop')
