"""Latents beside codes, to be looked at."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqjax import sharding
from vqjax.evaluation.results import Cloud
from vqjax.tokenizer import Tokenizer

MOST_LATENTS = 2_000
MOST_CODES = 2**16


def cloud(
  model: Tokenizer,
  mesh: jax.sharding.Mesh,
  params: Any,
  variables: Any,
  batch: Mapping[str, Any],
) -> Cloud | None:
  """Latents of a local batch {'image', 'mask'}, where the mask holds, and the codes.

  They are at most `MOST_LATENTS`, evenly spread; None if the mask holds nowhere.
  """
  batch = sharding.put_batch(mesh, {name: batch[name] for name in ('image', 'mask')})

  def look(variables, images, mask):
    x = model.normalize(images)
    latents = model.apply(variables, x, method=_compared)
    quantized: Any = model.apply(variables, x, mask=mask, method='encode')
    return latents, quantized.z_q, _codes(model, variables), mask

  look = jax.jit(look, out_shardings=sharding.replicated(mesh))
  found = look({'params': params, **variables}, batch['image'], batch['mask'])
  latents, quantized, codes, mask = jax.device_get(found)
  if not mask.any():
    return None
  latents, quantized = (x[mask].reshape(-1, x.shape[-1]) for x in (latents, quantized))
  some = np.linspace(0, len(latents) - 1, min(MOST_LATENTS, len(latents))).astype(np.int64)
  return Cloud(latents[some], quantized[some], codes)


def _compared(model, x):
  """Latents as codes are compared with them: bounded in FSQ, unit vectors on a sphere."""
  z = model.quantizer.enter(model.latents(x))
  return z if model.quantizer.token_axes else model.quantizer.compared(z)


def _codes(model, variables):
  """Vectors of all codes, where a token is one code and they are not too many to draw."""
  quantizer = model.quantizer
  if quantizer.token_axes or quantizer.num_codes > MOST_CODES:
    return None
  tokens = jnp.arange(quantizer.num_codes)
  return model.apply(variables, tokens, method=lambda model, tokens: model.quantizer.lookup(tokens))
