"""Classifier-free guidance: how far from the unconditional logits to go, at every step.

Ho and Salimans, Classifier-Free Diffusion Guidance (2021). The scale s everywhere means
`u + s (c - u)`, of logits c given the class and u given none: 1 is the condition alone, and 0 is
another way to say so. Halton-MaskGIT's weight w is s - 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vqjax.errors import UserError


def check(scale: float, model: Any) -> bool:
  """Whether there is guidance by this scale, 0 or at least 1.

  Raises:
    UserError: the transformer knows no class or no null class.
  """
  if scale <= 1:
    return False
  if not (model.has_null and model.num_classes):
    lacks = 'null class' if model.num_classes else 'classes'
    raise UserError(
      f'guidance is {scale:g}, but {type(model).__name__} was trained with no {lacks}; set it to 0.'
    )
  return True


def doubled(x: jax.Array) -> jax.Array:
  """Every image twice, [B ...] -> [2 B ...]: side by side, so that both stay on its device."""
  return jnp.repeat(x, 2, axis=0)


def doubled_labels(labels: jax.Array, null: int) -> jax.Array:
  """The labels of images that are `doubled`, with the class and without: [B] -> [2 B]."""
  return jnp.stack([labels, jnp.full_like(labels, null)], axis=1).reshape(-1)


def halves(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Logits of doubled images [2 B ...] -> (given the class [B ...], without it [B ...])."""
  pairs = logits.reshape(-1, 2, *logits.shape[1:])
  return pairs[:, 0], pairs[:, 1]


def guide(given: jax.Array, without: jax.Array, scale: ArrayLike) -> jax.Array:
  """`u + s (c - u)`, and c itself where s is 1; logits [... V], scale []."""
  return jnp.where(scale == 1, given, without + scale * (given - without))


def until(scales: np.ndarray, last: int) -> np.ndarray:
  """Scales [steps], 1 after the step `last`; -1 changes none."""
  return scales if last < 0 else np.where(np.arange(len(scales)) > last, np.float32(1), scales)


def power_cosine(scale: float, steps: int, power: float) -> np.ndarray:
  """RAR's: `1 + (s - 1) (1 - cos(pi (t / steps)^power)) / 2`; power 0 is the constant scale."""
  ratio = (np.arange(steps) / steps) ** power
  return (1 + (scale - 1) * (1 - np.cos(np.pi * ratio)) / 2).astype(np.float32)
