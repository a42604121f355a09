"""Where a codebook starts: `(key, (K, D), dtype) -> weights [K D]`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


def uniform_codebook(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
  """Codes uniform in (-1/K, 1/K), as in taming-transformers and latent-diffusion."""
  bound = 1 / shape[0]
  return jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class NormalCodebook:
  """Codes drawn normal with deviation `stddev`; near that of the latents most are in reach."""

  stddev: float = 1.0

  def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return self.stddev * jax.random.normal(key, shape, dtype)


# Each is made once, here: made again it would draw the same and yet be unequal.
_scaled = jax.nn.initializers.variance_scaling
lecun_uniform: Initializer = _scaled(1.0, 'fan_in', 'uniform')  # flax's, as in MaskGIT
unit_normal: Initializer = _scaled(1.0, 'fan_out', 'normal')  # variance 1 / D: codes of length ~1
# PyTorch's kaiming_uniform on a (1, K, D) tensor, whose fan-in is K * D.
kaiming: Initializer = _scaled(2.0, 'fan_in', 'uniform', in_axis=(0, 1), out_axis=())
