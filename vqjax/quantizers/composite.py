"""Structures around any quantizer: groups of channels, and levels of residuals."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.quantizers import ops
from vqjax.quantizers.quantizer import Quantized, Wrapper

Tree = TypeVar('Tree')


class Grouped(Wrapper):
  """Quantizes `groups` equal slices of the channels each by itself; tokens get an axis [... G].

  Product quantization; OptVQ's heads and LlamaGen-style multi-head codes with `share=True`,
  vqtorch's GroupVectorQuant. Shared, the groups are one call on G times the rows, so a Sinkhorn
  assignment balances over all of them. `loss` and metrics are means over the groups.

  Attributes:
    base: the quantizer of a slice.
    groups: G; divides the width.
    share: one codebook for all groups (the default), or one for each.
  """

  groups: int = 1
  share: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.groups < 1:
      raise ValueError(f'Grouped.groups is {self.groups}; legal: at least 1.')

  def setup(self) -> None:
    self.group = self.parts(self.groups, share=self.share)

  def enter(self, z: jax.Array) -> jax.Array:
    if z.shape[-1] % self.groups:
      raise ValueError(
        f'z has width {z.shape[-1]}, which Grouped.groups={self.groups} does not divide.'
      )
    return self._join(self.base.enter(self._split(z)))

  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    z = self._split(z)
    if self.share:
      out = self.base.select(z, train=train, mask=_each(mask, z), observe=observe)
      return dataclasses.replace(out, z_q=self._join(out.z_q))
    outs = [
      part.select(z[..., i, :], train=train, mask=mask, observe=observe)
      for i, part in enumerate(self.group)
    ]
    return Quantized(
      z_q=jnp.concatenate([out.z_q for out in outs], axis=-1),
      indices=jnp.stack([out.indices for out in outs], axis=z.ndim - 2),
      loss=_mean([out.loss for out in outs]),
      metrics=_mean([out.metrics for out in outs]),
    )

  def observe(self, z: jax.Array, indices: jax.Array, mask: jax.Array | None = None) -> None:
    z = self._split(z)
    axis = z.ndim - 2
    if self.share:
      self.base.observe(z, indices, _each(mask, z))
      return
    for i, part in enumerate(self.group):
      part.observe(z[..., i, :], jnp.take(indices, i, axis=axis), mask)

  def estimate(self, z: jax.Array, q: jax.Array) -> jax.Array:
    return self._join(self.base.estimate(self._split(z), self._split(q)))

  def penalty(
    self, z: jax.Array, q: jax.Array, mask: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    z, q = self._split(z), self._split(q)
    return self.base.penalty(z, q, _each(mask, z))

  def lookup(self, indices: jax.Array) -> jax.Array:
    # The axis of the groups is the first after the rows' own; inner structures have theirs behind.
    inner = indices.ndim - 1 - self.base.token_axes
    if self.share:
      return self._join(self.base.lookup(indices))
    parts = [p.lookup(jnp.take(indices, i, axis=inner)) for i, p in enumerate(self.group)]
    return jnp.concatenate(parts, axis=-1)

  def _split(self, x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-1], self.groups, -1)

  def _join(self, x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], -1)


class Residual(Wrapper):
  """Quantizes what the levels before left over; tokens get an axis [... depth].

  `r_0 = z`, `q_j = base(r_j / s^j) s^j`, `r_(j+1) = r_j - sg q_j`, `z_q = sum q_j`. Zeghidour et
  al., SoundStream (arXiv 2107.03312), algorithm 1; RQ-VAE (arXiv 2203.01941) with `share=True`.

  Deviation: one estimator acts on the sum, so that the encoder gets the task's gradient once. In
  vector-quantize-pytorch every level has its own on a detached residual, and the encoder gets the
  gradient `depth` times; with Gumbel codes, each of whose relaxations reaches z, it does here too.
  Metrics are means over the levels.

  Attributes:
    base: the quantizer of a level.
    depth: number of levels.
    share: one codebook for all levels, moved once by the rows of all, or one for each (default).
    gradient: `sum`: one estimator on the sum; `levels`: one a level (vector-quantize-pytorch);
      `telescoped`: one a level on residuals that are not detached (its `quant_grad_frac=1`).
    level_loss: `sum` or `mean` over the levels' losses, or `total`: the loss of z and the sum, so
      that all codebooks see one error (vqtorch).
    scale: s, a number or a tuple of one per channel. Codes that cannot shrink with the residual
      need it: residual FSQ has 1 / levels, residual LFQ 1 / 2, unit codes likewise.
    min_depth: quantizer dropout: while training, the number of levels is drawn from
      [min_depth, depth] once a batch; tokens of the others are -1 and add nothing. None: all.
  """

  depth: int = 2
  share: bool = False
  gradient: str = 'sum'
  level_loss: str = 'sum'
  scale: float | tuple[float, ...] = 1.0
  min_depth: int | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.depth < 1:
      raise ValueError(f'Residual.depth is {self.depth}; legal: at least 1.')
    if self.min_depth is not None and not 1 <= self.min_depth <= self.depth:
      raise ValueError(
        f'Residual.min_depth is {self.min_depth}; legal: 1 to depth={self.depth}, or None.'
      )
    for field, legal in (
      ('gradient', ('sum', 'levels', 'telescoped')),
      ('level_loss', ('sum', 'mean', 'total')),
    ):
      if getattr(self, field) not in legal:
        raise ValueError(
          f'Residual.{field} is {getattr(self, field)!r}; legal: {", ".join(legal)}.'
        )
    if self.share and self.base.keeps_statistics:
      raise ValueError(
        'Residual.share is True, but a transform such as RunningAffine keeps statistics of one '
        'level; set share=False.'
      )
    if self.share and self.base.has_levels:
      raise ValueError('Residual.share is True around a Residual; set share on the inner one.')
    if self.level_loss == 'total' and not self.base.has_penalty:
      raise ValueError(
        "Residual.level_loss='total' is a distance of z and the sum; legal: around VectorQuantizer "
        "with loss='l2' or 'l1' and no regularizers."
      )
    if self.gradient == 'telescoped' and self.base.copies_gradient:
      raise ValueError(
        "Residual.gradient='telescoped' takes back what Sync gives a code; legal: sum, levels."
      )
    if not np.all(np.asarray(self.scale) > 0):
      raise ValueError(f'Residual.scale is {self.scale}; legal: above 0.')

  def setup(self) -> None:
    self.level = self.parts(self.depth, share=self.share)

  def enter(self, z: jax.Array) -> jax.Array:
    return self.base.enter(z)

  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    own = observe and not self.share  # a shared codebook moves once, after all levels
    keep = self._kept(train)
    rest, outs, seen, total = z, [], [], jnp.zeros_like(z)
    for j, level in enumerate(self.level):
      scale = self._scale(j, z.ndim)
      alive = mask
      if keep is not None:
        kept = jnp.broadcast_to(keep[j], z.shape[:-1])
        alive = kept if mask is None else kept & mask
      x = rest / scale
      out = level.select(x, train=train, mask=alive, observe=own)
      q = out.z_q if self.gradient == 'sum' else level.estimate(x, out.z_q)
      q = q * scale
      if keep is not None:
        q = jnp.where(keep[j], q, 0)
        out = dataclasses.replace(out, indices=jnp.where(keep[j], out.indices, -1))
      seen.append((x, alive))
      outs.append(out)
      total = total + q
      rest = rest - (q if self.gradient == 'telescoped' else jax.lax.stop_gradient(q))

    axis = z.ndim - 1
    indices = jnp.stack([out.indices for out in outs], axis=axis)
    if train and observe and self.share and not self.is_initializing():
      rows = jnp.stack([x for x, _ in seen], axis=axis)
      each = [m for _, m in seen if m is not None]
      masks = jnp.stack(each, axis=axis) if each else None
      self.base.observe(rows, jnp.maximum(indices, 0), masks)
      if self.base.regathers:
        total = ops.with_value(total, self.lookup(indices))
    if self.level_loss == 'total':
      loss, terms = self.penalty(z, total, mask)
      metrics = _mean([out.metrics for out in outs], keep) | terms
    else:
      losses = [out.loss for out in outs]
      if keep is not None:  # a level without rows may still have a term of its codes alone
        losses = [jnp.where(alive, loss, 0) for alive, loss in zip(keep, losses, strict=True)]
      loss = _mean(losses, keep) if self.level_loss == 'mean' else sum(losses, jnp.zeros(()))
      metrics = _mean([out.metrics for out in outs], keep)
    return Quantized(z_q=total, indices=indices, loss=loss, metrics=metrics)

  def estimate(self, z: jax.Array, q: jax.Array) -> jax.Array:
    return q if self.gradient != 'sum' else self.base.estimate(z, q)

  def lookup(self, indices: jax.Array) -> jax.Array:
    axis = indices.ndim - 1 - self.base.token_axes
    total = jnp.zeros(())
    for j, level in enumerate(self.level):
      token = jnp.take(indices, j, axis=axis)
      dropped = token == -1
      q = level.lookup(jnp.where(dropped, 0, token))
      dropped = dropped.any(axis=tuple(range(axis, token.ndim)))
      q = jnp.where(dropped[..., None], 0, q * self._scale(j, q.ndim))
      total = total + q
    return total

  @property
  def has_levels(self) -> bool:
    return True

  @property
  def regathers(self) -> bool:
    return self.share and self.base.regathers

  def _kept(self, train: bool) -> jax.Array | None:
    """Which levels are used [depth], or None for all."""
    if not train or self.min_depth is None:
      return None
    if not self.has_rng('vq'):
      if self.is_initializing():
        return None
      raise ValueError(
        "Residual.min_depth draws levels and has no key; apply with rngs={'vq': key}."
      )
    number = jax.random.randint(self.make_rng('vq'), (), self.min_depth, self.depth + 1)
    return jnp.arange(self.depth) < number

  def _scale(self, level: int, ndim: int) -> jax.Array:
    scale = jnp.asarray(self.scale, jnp.float32) ** level
    return scale.reshape((1,) * (ndim - scale.ndim) + scale.shape) if scale.ndim else scale


def _each(mask: jax.Array | None, z: jax.Array) -> jax.Array | None:
  """A row's mask [...] for each of its groups, `z` [... G D]."""
  return None if mask is None else jnp.broadcast_to(mask[..., None], z.shape[:-1])


def _mean(trees: Sequence[Tree], keep: jax.Array | None = None) -> Tree:
  """Mean of equal trees of scalars, of those with `keep` [len(trees)] true."""
  keep = jnp.ones(len(trees), bool) if keep is None else keep
  count = jnp.sum(keep, dtype=jnp.float32)
  mean = lambda *xs: jnp.sum(jnp.where(keep, jnp.stack(xs), 0)) / count
  return cast(Tree, jax.tree.map(mean, *trees))
