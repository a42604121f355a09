"""What every quantizer is: the result, the order of the steps, and the checks on its input."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp


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
  """

  def __call__(self, z, *, train: bool, mask=None) -> Quantized:
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
    return out.replace(z_q=self.estimate(x, out.z_q).astype(z.dtype))

  def enter(self, z):
    """Maps float32 rows [... D] to where they are quantized, with gradient; here the identity."""
    return z

  def select(self, z, *, train: bool, mask=None, observe: bool = True) -> Quantized:
    """The codes themselves: no gradient of `z_q` reaches `z`, only what owns the codes.

    With `observe=False` no state moves; `observe(z, indices, mask)` then does it for all calls.
    """
    raise NotImplementedError

  def observe(self, z, indices, mask=None):
    """Moves what the quantizer owns by the rows `z` [... D] that took `indices` [...]."""

  def estimate(self, z, q):
    """The code `q` [... D] in value, with the gradient that `z` [... D] is to see."""
    raise NotImplementedError

  def lookup(self, indices):
    """Tokens to vectors: int32 [...] -> float32 [... D], exactly what eval would have put out.

    Codes that are computed, by a transform or on the sphere, may differ in the last bit between
    two compiled programs; stored ones never do.

    A token that is no code gives NaN, which no image survives: it must not pass for one.
    """
    raise NotImplementedError

  @property
  def token_axes(self) -> int:
    """Number of axes that a row's tokens have: 0 where a row is one token."""
    return 0

  @property
  def regathers(self) -> bool:
    """Whether a training forward returns codes that its own update has moved."""
    return False

  @property
  def core(self) -> 'Quantizer':
    """The quantizer inside all wrappers."""
    return self

  def fresh(self) -> 'Quantizer':
    """An unbound copy that shares no variables with this one."""
    return self.clone(parent=None, name=None)


def _check(z, mask):
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
