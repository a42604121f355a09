"""The masked transformer of MaskGIT, as google-research/maskgit publishes it.

Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022): BERT with its norms behind
the residuals. With the rows `e` of one table for codes, classes and the mask, and positions `p`:

    x = ln(e[class, symbols] + p)
    x = ln(x + attention(x));  x = ln(x + W2 gelu(W1 x))                        for every layer
    logits = ln(gelu(W x)) e^T + bias

LayerNorm with eps 1e-12, GELU by tanh. Parameter names follow the original's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.generation.blocks import attend, part_logits
from vqjax.generation.layout import MASKED, Layout

_init = nn.initializers.truncated_normal(0.02)  # cut at two sigma, so its deviation is 0.0176


class MaskGITTransformer(nn.Module):
  """Symbols [B N], MASKED where unknown, labels [B] -> logits float32 [B N V].

  The table holds P V codes, then C classes, then the mask, whose row MASKED = -1 reaches from the
  end, as in the original. It knows no null class, so there is no guidance; without classes it has
  one class, 0.

  Deviation: the original computes logits of the class's place and of the rows behind the codes too;
  neither its loss nor its sampler reads them, and here they are left out.

  Attributes:
    layout: of the symbols.
    num_classes: C.
    width: D.
    depth: layers.
    heads: of attention, which divide D.
    mlp_width: hidden width of the feed-forward.
    dropout: of the embedded symbols, attention's probabilities, its output and the feed-forward's.
    dtype: of the computation; parameters are float32.
  """

  layout: Layout
  num_classes: int
  width: int = 768
  depth: int = 24
  heads: int = 16
  mlp_width: int = 3072
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32

  @property
  def has_null(self) -> bool:
    """False."""
    return False

  @nn.compact
  def __call__(self, symbols: jax.Array, labels: jax.Array, *, train: bool = False) -> jax.Array:
    parts, codes, length = self.layout.parts, self.layout.base, self.layout.length
    rows = parts * codes + max(self.num_classes, 1) + 1
    table = nn.Embed(rows, self.width, embedding_init=_init, name='word_embeddings')
    positions = self.param('position_embeddings', _init, (1 + length, self.width))
    bias = self.param('mlm_bias', nn.initializers.zeros, (rows,))

    part = jnp.arange(length, dtype=symbols.dtype) % parts
    ids = jnp.where(symbols == MASKED, MASKED % rows, symbols + codes * part[None])
    classes = parts * codes + labels[:, None].astype(ids.dtype)
    x = table(jnp.concatenate([classes, ids], axis=1)) + positions[None]
    x = _layer_norm(x.astype(self.dtype), 'embeddings_ln', self.dtype)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    for i in range(self.depth):
      layer = _Layer(self.heads, self.mlp_width, self.dropout, self.dtype, name=f'layer_{i}')
      x = layer(x, train=train)
    x = nn.Dense(self.width, kernel_init=_init, dtype=self.dtype, name='mlm_dense')(x[:, 1:])
    x = _layer_norm(nn.gelu(x), 'mlm_ln', self.dtype)
    return part_logits(x, table.embedding[: parts * codes], bias[: parts * codes], parts)


class _Layer(nn.Module):
  """Attention and feed-forward, each with its residual and its norm; [B T D] -> [B T D]."""

  heads: int
  mlp_width: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    width = x.shape[-1]
    shared: dict[str, Any] = {'kernel_init': _init, 'dtype': self.dtype}

    def head(name):
      return nn.DenseGeneral((self.heads, width // self.heads), name=name, **shared)(x)

    def drop(y):
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    key = self.make_rng('dropout') if train and self.dropout else None
    y = attend(head('query'), head('key'), head('value'), dropout=self.dropout, key=key)
    y = nn.DenseGeneral(width, axis=(-2, -1), name='out', **shared)(y)
    x = _layer_norm(x + drop(y), 'attention_output_ln', self.dtype)
    y = nn.gelu(nn.Dense(self.mlp_width, name='intermediate_output', **shared)(x))
    y = nn.Dense(width, name='layer_output', **shared)(y)
    return _layer_norm(x + drop(y), 'layer_output_ln', self.dtype)


def _layer_norm(x: jax.Array, name: str, dtype: DTypeLike) -> jax.Array:
  return nn.LayerNorm(epsilon=1e-12, dtype=dtype, use_fast_variance=False, name=name)(x)
