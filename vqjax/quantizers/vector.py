"""The vector quantizer: one module, every choice a field."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.assignments import Nearest
from vqjax.quantizers.estimators import straight_through


@flax.struct.dataclass
class Quantized:
  """What every quantizer returns."""

  z_q: jax.Array  # [... D]  the code in value, the estimator in gradient; dtype of z
  indices: jax.Array  # [...]    int32; composites append an axis (group, depth)
  loss: jax.Array  # []       weighted: add it to the objective as it is
  metrics: dict[str, jax.Array]  # []       unweighted: commitment, codebook, perplexity, usage


def uniform_codebook(key, shape, dtype=jnp.float32):
  """Codes uniform in (-1/K, 1/K), as in taming-transformers and latent-diffusion."""
  bound = 1 / shape[0]
  return jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class NormalCodebook:
  """Codes normal with deviation `stddev`; near that of the latents, most codes are in reach."""

  stddev: float = 1.0

  def __call__(self, key, shape, dtype=jnp.float32):
    return self.stddev * jax.random.normal(key, shape, dtype)


class VectorQuantizer(nn.Module):
  """Replaces each row by a code of a learned codebook (van den Oord et al. 2017).

  Computes in float32 whatever comes in; `z_q` has the dtype of `z`. With `learner=None` the
  codebook is the parameter `params/codebook`; with a learner, codebook and learner state live
  in the collection `vq` and move in every forward with `train=True` (apply with `mutable=['vq']`).
  Under jit with a sharded batch all statistics are those of the whole batch. RNG stream: `vq`.

  Attributes:
    num_codes: K.
    assign: `(z [N D], codes [K D], key) -> indices [N]` while training.
    eval_assign: the same when `train=False`: what tokenizing uses.
    estimator: `(z [N D], q [N D]) -> z_q [N D]`.
    learner: None, or an `(init, update)` pair, see `learners`.
    sphere: assignment and losses see unit vectors and `z_q` is a unit code; the estimator sees the
      raw z, so that its gradient passes the normalisation.
    commitment_weight: weight of `mean((z - sg q)^2)`, which pulls the encoder to the code.
    codebook_weight: weight of `mean((sg z - q)^2)`, which pulls the code to the encoder; only
      without a learner. The two weights replace `beta`, which means four things in four codebases.
    codebook_init: `(key, (K, D), dtype) -> codebook`.
  """

  num_codes: int
  assign: Callable = Nearest()
  eval_assign: Callable = Nearest()
  estimator: Callable = straight_through
  learner: Any = None
  sphere: bool = False
  commitment_weight: float = 0.25
  codebook_weight: float = 1.0
  codebook_init: Callable = uniform_codebook

  def __post_init__(self):
    super().__post_init__()
    if self.num_codes < 1:
      raise ValueError(f'VectorQuantizer.num_codes is {self.num_codes}; legal: at least 1.')

  @nn.compact
  def __call__(self, z, *, train: bool, mask=None) -> Quantized:
    """Quantizes `z` [... D]; rows where `mask` [...] is false count nowhere."""
    if mask is not None and mask.shape != z.shape[:-1]:
      raise ValueError(f'mask has shape {mask.shape}; z {z.shape} needs {z.shape[:-1]}.')
    mask = None if mask is None else mask.reshape(-1).astype(bool)
    x = ops.rows(z).astype(jnp.float32)  # [N D]
    shape = (self.num_codes, x.shape[-1])
    if self.learner is None:
      weights = self.param('codebook', self.codebook_init, shape, jnp.float32)
    else:
      init = lambda: self._seen(self.codebook_init(self.make_rng('params'), shape, jnp.float32))
      codebook = self.variable('vq', 'codebook', init)
      learned = self.variable('vq', 'learner', lambda: self.learner.init(codebook.value))
      weights = codebook.value
    codes, seen = self._seen(weights), self._seen(x)

    key = self.make_rng('vq') if train and self.has_rng('vq') else None
    indices = (self.assign if train else self.eval_assign)(seen, codes, key)  # [N]
    q = codes[indices]
    stop = jax.lax.stop_gradient
    commitment = ops.masked_mean(jnp.square(seen - stop(q)), mask)
    codebook_loss = ops.masked_mean(jnp.square(q - stop(seen)), mask)
    loss = self.commitment_weight * commitment
    if self.learner is None:
      loss = loss + self.codebook_weight * codebook_loss
    elif train and not self.is_initializing():
      moved, learned.value = self.learner.update(weights, learned.value, stop(seen), indices, mask)
      codebook.value = self._seen(moved)

    counts = ops.code_counts(indices, self.num_codes, mask)
    return Quantized(
      z_q=self.estimator(x, q).reshape(z.shape).astype(z.dtype),
      indices=indices.reshape(z.shape[:-1]),
      loss=loss,
      metrics={
        'commitment': commitment,
        'codebook': codebook_loss,
        'perplexity': ops.perplexity(counts),
        'usage': ops.usage(counts),
      },
    )

  def lookup(self, indices):
    """Tokens to vectors: int32 [...] -> float32 [... D], exactly what eval would have put out.

    An index outside [0, K) gives NaN, which no image survives: it must not pass for a code.
    """
    weights = self.get_variable('params' if self.learner is None else 'vq', 'codebook')
    return self._seen(weights).at[indices].get(mode='fill', fill_value=jnp.nan)

  def _seen(self, x):
    x = jnp.asarray(x)  # weights from a file may be NumPy arrays
    return ops.unit(x) if self.sphere else x
