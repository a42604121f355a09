"""How many symbols are masked, and which, as a share of a run or of an image goes by.

A schedule is a decreasing function of r in [0, 1], from 1 (all are masked) to 0 (none):

    arccos  arccos(r) / (pi / 2)        linear  1 - r           powX  1 - r^X
    cosine  cos(pi r / 2)               root    1 - sqrt(r)     log   -log2(r) / log2(n)
                                        square  1 - r^2         exp   1 - 2^(-log2(n) (1 - r))

with n symbols that may be masked. Those of Halton-MaskGIT are arccos, cosine, linear, root and
square; those of MaskGIT cosine, uniform (here linear), powX, log and exp.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.errors import UserError

_HALF_PI = np.float32(np.pi / 2)

# Functions of (f, r, n): f(name, x, ..) is NumPy's function of that name.
RATES: dict[str, Callable[..., Any]] = {
  'arccos': lambda f, r, n: f('arccos', r) / _HALF_PI,
  'cosine': lambda f, r, n: f('cos', r * _HALF_PI),
  'linear': lambda f, r, n: 1 - r,
  'root': lambda f, r, n: 1 - f('sqrt', r),
  'square': lambda f, r, n: 1 - r * r,
  'log': lambda f, r, n: -f('log2', r) / f('log2', n),
  'exp': lambda f, r, n: 1 - f('exp2', -f('log2', n) * (1 - r)),
}


def rate(schedule: str, r: jax.Array, symbols: int) -> jax.Array:
  """The share that is masked, float32 in [0, 1], at r [...] float32 in [0, 1].

  Args:
    schedule: name in `RATES`, or powX with a number X.
    r: what share of the way is done.
    symbols: n, that may be masked.

  Raises:
    UserError: there is no such schedule.
  """
  total = jnp.float32(max(symbols, 2))  # log and exp are not defined for one
  return jnp.clip(_formula(schedule)(_on_device, r, total), 0.0, 1.0)


def host_rate(schedule: str, r: np.ndarray, symbols: np.ndarray) -> np.ndarray:
  """`rate` by NumPy, of `symbols` that broadcast against `r`: the same bits on every machine.

  Counts of symbols are floors of products of this, which one unit in the last place changes: every
  operation rounds to float32, as the originals compute it.
  """
  total = np.maximum(symbols, 2).astype(np.float32)
  with np.errstate(divide='ignore'):  # log at 0
    return np.clip(_formula(schedule)(_rounded, r.astype(np.float32), total), 0.0, 1.0)


def independent(keys: jax.Array, length: int, schedule: str = 'arccos') -> jax.Array:
  """A mask of each image as Halton-MaskGIT trains on: typed keys [B] -> bool [B N], True masked.

  With r uniform in [0, 1), every symbol is masked with the probability rate(r), by itself; how many
  of them are is random.
  """

  def of(key):
    first, second = jax.random.split(key)
    chance = rate(schedule, jax.random.uniform(first), length)
    return jax.random.uniform(second, (length,)) < chance

  return jax.vmap(of)(keys)


def exact(
  keys: jax.Array, length: int, schedule: str = 'cosine', min_rate: float = 0.0
) -> jax.Array:
  """A mask of each image as in MaskGIT's paper: typed keys [B] -> bool [B N], True masked.

  With r uniform in [0, 1), just ceil(N max(rate(r), min_rate)) symbols are masked, any of them, and
  at least one.
  """

  def of(key):
    first, second = jax.random.split(key)
    share = jnp.maximum(rate(schedule, jax.random.uniform(first), length), min_rate)
    place = jax.random.permutation(second, length)
    return place < jnp.clip(jnp.ceil(length * share).astype(jnp.int32), 1, length)

  return jax.vmap(of)(keys)


def _formula(schedule):
  if schedule in RATES:
    return RATES[schedule]
  power = re.fullmatch(r'pow(\d+\.?\d*)', schedule)
  if not power:
    raise UserError(
      f'the mask schedule is {schedule!r}; legal: {", ".join(RATES)}, or pow with a number behind '
      'it, such as pow2.5.'
    )
  return lambda f, r, n: 1 - f('power', r, np.float32(power[1]))


def _on_device(name, *values):
  return getattr(jnp, name)(*values)


def _rounded(name, *values):
  # NumPy's own float32 functions differ in the last place from one processor to another.
  return getattr(np, name)(*(np.asarray(v, np.float64) for v in values)).astype(np.float32)
