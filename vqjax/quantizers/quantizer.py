"""What every quantizer is: the result, the order of the steps, and what it says of itself."""

import dataclasses
from typing import TYPE_CHECKING, Self

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vqjax.quantizers.assignments import Assignment
from vqjax.quantizers.choices import settle


@flax.struct.dataclass
class Quantized:
  """What every quantizer returns."""

  z_q: jax.Array  # [... D]  the code in value, the estimator in gradient; dtype of z
  indices: jax.Array  # [...]    int32; composites append an axis (group, depth)
  loss: jax.Array  # []       weighted: add it to the objective as it is
  metrics: dict[str, jax.Array]  # []       unweighted: commitment, codebook, perplexity, usage


class Quantizer(nn.Module):
  """The base of all quantizers: `enter`, `select`, `estimate`, in float32 whatever comes in.

  A wrapper such as `Residual` calls the three steps of what it wraps where it needs them, and so
  works around any quantizer. A subclass gives `select`, `estimate`, `lookup`, and `num_codes` as a
  field or property: the number of values that a token can take.

  What else a caller may want to know, every quantizer answers by a property: `has_codebook`,
  `replaces_codes`, `eval_rule`, ... The answers here are those of a quantizer without a codebook; a
  wrapper answers as what it wraps.
  """

  if TYPE_CHECKING:  # when the program runs, a property here would be a field's default

    @property
    def num_codes(self) -> int:
      """K, the number of values that a token can take."""

  def __post_init__(self) -> None:
    # A name may stand for a choice; what is no legal value is refused here and not far away.
    declared = {
      f.name: f.type for f in dataclasses.fields(self) if f.name not in ('parent', 'name')
    }
    fields = {name: getattr(self, name) for name in declared}
    for name, value in settle(fields, type(self).__name__, declared).items():
      object.__setattr__(self, name, value)
    super().__post_init__()

  def __call__(self, z: jax.Array, *, train: bool, mask: jax.Array | None = None) -> Quantized:
    """Quantizes `z` [... D]; rows where `mask` [...] is false count nowhere.

    Raises:
      ValueError: no rows, no floating-point numbers, or a mask of another shape than z's rows;
        outside jit also a mask without a true value, or numbers that are not finite. Under jit
        those cannot raise: the loss then is 0, or not finite, and no codebook moves by such rows.
    """
    _check(z, mask)
    x = z.astype(jnp.float32)
    if mask is not None:
      mask = mask.astype(bool)
      x = jnp.where(mask[..., None], x, 0)  # nothing that stands in padding can matter from here on
    x = self.enter(x)
    out = self.select(x, train=train, mask=mask)
    z_q = self.estimate(x, out.z_q)
    if self.is_initializing():
      _check_estimate(z_q, out.z_q)
    return dataclasses.replace(out, z_q=z_q.astype(z.dtype))

  def enter(self, z: jax.Array) -> jax.Array:
    """Maps float32 rows [... D] to where they are quantized, with gradient; here the identity."""
    return z

  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    """Chooses codes for rows [... D]: `z_q` is the codes, of which no gradient reaches `z`.

    Gradients reach the codebook, and `z` through `loss` alone; `estimate` gives `z` the rest. With
    `observe=False` the quantizer's own state stays; the caller then calls `observe` for all rows at
    once.
    """
    raise NotImplementedError

  def observe(self, z: jax.Array, indices: jax.Array, mask: jax.Array | None = None) -> None:
    """Moves what the quantizer owns by the rows `z` [... D] that took `indices` [...]."""

  def estimate(self, z: jax.Array, q: jax.Array) -> jax.Array:
    """The code `q` [... D] in value, with the gradient that `z` [... D] is to see."""
    raise NotImplementedError

  def lookup(self, indices: jax.Array) -> jax.Array:
    """Tokens to vectors: int32 [...] -> float32 [... D], exactly what eval would have put out.

    Stored codes come back bit for bit. Codes that a transform or the sphere computes can differ in
    the last bit between two compiled programs.

    A token outside [0, K) gives a vector of NaN, so that the mistake is seen in what is decoded
    from it.
    """
    raise NotImplementedError

  def penalty(
    self, z: jax.Array, q: jax.Array, mask: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss [] and metrics of rows `z` and any values `q` [... D]; only where `has_penalty`."""
    raise NotImplementedError

  def compared(self, z: jax.Array) -> jax.Array:
    """Rows [... D], after `enter`, as codes are compared with them: unit vectors on a sphere.

    Around other quantizers it has a meaning only where `token_axes` is 0: a group compares slices
    of the row, a level what is left of it.
    """
    return z

  @property
  def token_axes(self) -> int:
    """Number of axes that a row's tokens have: 0 where a row is one token."""
    return 0

  @property
  def has_codebook(self) -> bool:
    """Whether there are stored codes, which can be seeded; False: rows are rounded."""
    return False

  @property
  def replaces_codes(self) -> bool:
    """Whether it watches its codes so that `replace_dead_codes` can revive them."""
    return False

  @property
  def eval_rule(self) -> Assignment | None:
    """The assignment that evaluating and tokenizing use; None where rows are rounded."""
    return None

  @property
  def batch_dependent(self) -> bool:
    """Whether a token of an evaluation depends on other rows of the batch."""
    return False

  @property
  def sphere(self) -> bool:
    """Whether rows and codes are compared as unit vectors."""
    return False

  @property
  def unit_input(self) -> bool:
    """Whether rows are scaled to length one on entry."""
    return False

  @property
  def regathers(self) -> bool:
    """Whether a training forward returns codes that its own update has moved."""
    return False

  @property
  def keeps_statistics(self) -> bool:
    """Whether it computes its codes from running statistics of the rows."""
    return False

  @property
  def copies_gradient(self) -> bool:
    """Whether codes get a copy of the gradient that rows get, as by `Sync`."""
    return False

  @property
  def has_penalty(self) -> bool:
    """Whether its loss is a distance of rows and codes alone, which `penalty` computes."""
    return False

  @property
  def has_levels(self) -> bool:
    """Whether it is a `Residual`, or one is inside."""
    return False

  @property
  def core(self) -> 'Quantizer':
    """The quantizer inside all wrappers."""
    return self

  def fresh(self) -> Self:
    """An unbound copy that shares no variables with this one."""
    return self.clone(parent=None, name=None)


class Wrapper(Quantizer):
  """What structures around a quantizer share: `base`, the one inside, and its answers."""

  base: Quantizer

  def parts(self, number: int, *, share: bool) -> list[Quantizer]:
    """`base`, `number` times: itself where it is shared, else copies. To be called in setup."""
    return [self.base if share else self.base.fresh() for _ in range(number)]

  def penalty(
    self, z: jax.Array, q: jax.Array, mask: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    return self.base.penalty(z, q, mask)

  def compared(self, z: jax.Array) -> jax.Array:
    return self.base.compared(z)

  @property
  def num_codes(self) -> int:
    return self.base.num_codes

  @property
  def token_axes(self) -> int:
    return 1 + self.base.token_axes

  @property
  def has_codebook(self) -> bool:
    return self.base.has_codebook

  @property
  def replaces_codes(self) -> bool:
    return self.base.replaces_codes

  @property
  def eval_rule(self) -> Assignment | None:
    return self.base.eval_rule

  @property
  def batch_dependent(self) -> bool:
    return self.base.batch_dependent

  @property
  def sphere(self) -> bool:
    return self.base.sphere

  @property
  def unit_input(self) -> bool:
    return self.base.unit_input

  @property
  def regathers(self) -> bool:
    return self.base.regathers

  @property
  def keeps_statistics(self) -> bool:
    return self.base.keeps_statistics

  @property
  def copies_gradient(self) -> bool:
    return self.base.copies_gradient

  @property
  def has_penalty(self) -> bool:
    return self.base.has_penalty

  @property
  def has_levels(self) -> bool:
    return self.base.has_levels

  @property
  def core(self) -> Quantizer:
    return self.base.core

  def fresh(self) -> Self:
    return self.clone(parent=None, name=None, base=self.base.fresh())


def _check_estimate(z_q: jax.Array, q: jax.Array) -> None:
  # Values can be looked at outside jit only. Sums of levels may round otherwise.
  off = jnp.max(jnp.abs(z_q - q)) > 1e-3 * jnp.max(jnp.abs(q))
  if not isinstance(off, jax.core.Tracer) and off:
    raise ValueError(
      'the estimator returns other values than its codes; legal: the codes in value, with another '
      'gradient alone, as q + f(z) - stop_gradient(f(z)) has it.'
    )


def _check(z: jax.Array, mask: jax.Array | None) -> None:
  if not jnp.issubdtype(z.dtype, jnp.floating):
    raise ValueError(f'z has dtype {z.dtype}; legal: floating point, such as float32 or bfloat16.')
  if z.ndim == 0 or z.size == 0:
    raise ValueError(f'z has shape {z.shape} and no row in it; legal: [... D], all at least 1.')
  if mask is not None and mask.shape != z.shape[:-1]:
    raise ValueError(f'mask has shape {mask.shape}; z {z.shape} needs {z.shape[:-1]}.')
  # Values can be looked at outside jit only.
  bad = ~jnp.isfinite(z).all(axis=-1)
  if mask is not None:
    bad = bad & mask.astype(bool)
    if not isinstance(bad, jax.core.Tracer) and not mask.any():
      raise ValueError(f'mask is false in all {mask.size} rows; legal: at least one true.')
  if not isinstance(bad, jax.core.Tracer) and bad.any():
    raise ValueError(
      f'z has {int(bad.sum())} of {bad.size} rows that are not finite; legal: finite numbers '
      '(mask out what is padding).'
    )
