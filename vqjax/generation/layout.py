"""The tokens of an image as one sequence of symbols, and back, for any quantizer."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vqjax.errors import UserError

MASKED = -1  # the symbol that stands where none is known; every network has a row of its own for it


@dataclasses.dataclass(frozen=True)
class Layout:
  """Tokens [B h w] or [B h w G], each below `num_codes`, as symbols [B N] in 0..V-1.

  Cells stand in raster order, N = h w P; the P = G `digits` symbols of a cell stand side by side:
  its groups or depths in their order, each token written in `digits` digits of base V = num_codes
  ** (1 / digits), the highest first. So a transformer of V outputs serves a quantizer of 2^18 codes
  (LFQ, FSQ) with V = 512 and two digits, and a residual quantizer of depth four with P = 4.

  Attributes:
    grid: h and w, cells of an image.
    num_codes: of a token.
    groups: G, tokens of a cell; 1 for tokens [B h w].
    digits: symbols of a token.

  Raises:
    UserError: `num_codes` is no power of `digits` of a whole number.
  """

  grid: tuple[int, int]
  num_codes: int
  groups: int = 1
  digits: int = 1

  def __post_init__(self) -> None:
    if self.digits < 1 or self.base**self.digits != self.num_codes:
      legal = [d for d in range(1, 9) if round(self.num_codes ** (1 / d)) ** d == self.num_codes]
      raise UserError(
        f'config.generator.digits is {self.digits}, but {self.num_codes} codes are no whole number '
        f'to that power; legal: {", ".join(map(str, legal))}.'
      )

  @classmethod
  def of(cls, token_shape: Sequence[int], num_codes: int, digits: int = 1) -> 'Layout':
    """The layout of tokens of an image of this shape, [h w] or [h w G]."""
    height, width, *rest = token_shape
    (groups,) = rest or [1]
    return cls((height, width), num_codes, groups, digits)

  @property
  def base(self) -> int:
    """V, what a symbol is below."""
    return round(self.num_codes ** (1 / max(self.digits, 1)))

  @property
  def parts(self) -> int:
    """P, symbols of a cell."""
    return self.groups * self.digits

  @property
  def length(self) -> int:
    """N, symbols of an image."""
    return self.grid[0] * self.grid[1] * self.parts

  def symbols(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B h w] or [B h w G] -> symbols int32 [B N]; MASKED stays MASKED."""
    powers = jnp.array([self.base**d for d in reversed(range(self.digits))], jnp.int32)
    digits = tokens.reshape(len(tokens), -1, 1) // powers[None, None] % self.base
    digits = jnp.where(tokens.reshape(len(tokens), -1, 1) == MASKED, MASKED, digits)
    return digits.reshape(len(tokens), self.length)

  def tokens(self, symbols: jax.Array) -> jax.Array:
    """The inverse of `symbols`; a token is MASKED where one of its symbols is."""
    digits = symbols.reshape(len(symbols), *self.grid, self.groups, self.digits)
    powers = jnp.array([self.base**d for d in reversed(range(self.digits))], jnp.int32)
    tokens = jnp.sum(digits * powers[None, None, None, None], axis=-1)
    tokens = jnp.where((digits == MASKED).any(axis=-1), MASKED, tokens)
    return tokens if self.groups > 1 else tokens[..., 0]

  def rows(self, symbols: jax.Array, places: jax.Array) -> jax.Array:
    """Symbols [B n] at these places, [n] or [B n] -> their rows in a table of P*V."""
    return symbols + jnp.broadcast_to(places % self.parts * self.base, symbols.shape)

  def of_places(self, logits: jax.Array, places: jax.Array) -> jax.Array:
    """Logits [B n P*V] -> those of the parts that stand at these places, [B n V]."""
    if self.parts == 1:
      return logits
    *shape, _ = logits.shape
    part = jnp.broadcast_to(places % self.parts, shape)[..., None, None]
    logits = logits.reshape(*shape, self.parts, self.base)
    return jnp.take_along_axis(logits, part, axis=-2)[..., 0, :]
