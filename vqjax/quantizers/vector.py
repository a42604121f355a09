"""The vector quantizer: one module, every choice a field."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqjax.quantizers import losses, ops, transforms
from vqjax.quantizers.assignments import Gumbel, Nearest, Stochastic
from vqjax.quantizers.estimators import (
  Directional,
  Reflection,
  Rotation,
  Sync,
  straight_through,
)
from vqjax.quantizers.quantizer import Quantized, Quantizer
from vqjax.quantizers.regularizers import Orthogonality

# Names in `intermediates` of the rows [N D] that a codebook sees, and which of them count [N].
ROWS, COUNTED = 'quantizer_rows', 'quantizer_mask'


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


class VectorQuantizer(Quantizer):
  """Replaces each row by a code of a learned codebook (van den Oord et al. 2017).

  Computes in float32 whatever comes in; `z_q` has the dtype of `z`. With `learner=None` the
  codebook is the parameter `params/codebook`; everything that the quantizer moves by itself lives
  in the collection `vq` (a learner's codebook and state, running statistics, ages of codes) and
  moves in every forward with `train=True` (apply with `mutable=['vq']`). Under jit with a sharded
  batch all statistics are those of the whole batch. RNG stream: `vq`.

  Attributes:
    num_codes: K, at least 2.
    assign: `(z [N D], codes [K D], *, key, mask, step) -> indices [N]` while training.
    eval_assign: the same when `train=False`: what tokenizing uses.
    estimator: `(z [N D], q [N D]) -> z_q [N D]`.
    transform: from the stored weights to the codes, see `transforms`; None: they are the codes.
    learner: None: the gradient moves the codebook; else see `learners`.
    replacement: which codes are dead, see `replacement`; None: codes are never replaced. Between
      steps `replace_dead_codes` does it.
    sphere: assignment and losses see unit vectors and `z_q` is a unit code; the estimator sees the
      raw z, as in ViT-VQGAN, so that its gradient passes the normalisation.
    unit_input: z is scaled to length one on entry, with gradient, as in LlamaGen and vqtorch.
    loss: of commitment and codebook: `l2`, `l1`, or `cross_entropy` (losses.py).
    commitment_weight: weight of `mean((z - sg q)^2)`, which pulls the encoder to the code.
    codebook_weight: weight of `mean((sg z - q)^2)`, which pulls the code to the encoder; only
      where the gradient moves codes. The two weights replace `beta`, which means four things in
      four codebases.
    regularizers: further terms of the loss, see `regularizers`.
    codebook_init: `(key, (K, D), dtype) -> weights`.
  """

  num_codes: int
  assign: Callable = Nearest()
  eval_assign: Callable = Nearest()
  estimator: Callable = straight_through
  transform: Any = None
  learner: Any = None
  replacement: Any = None
  sphere: bool = False
  unit_input: bool = False
  loss: str = 'l2'
  commitment_weight: float = 0.25
  codebook_weight: float = 1.0
  regularizers: tuple = ()
  codebook_init: Callable = uniform_codebook

  def __post_init__(self):
    super().__post_init__()
    _check_fields(self)

  def enter(self, z):
    return ops.unit(z) if self.unit_input else z

  @nn.compact
  def select(self, z, *, train: bool, mask=None, observe: bool = True) -> Quantized:
    x, flat_mask = ops.rows(z), None if mask is None else mask.reshape(-1)
    self._create(x.shape[-1])
    moving = train and not self.is_initializing()
    stop, seen = jax.lax.stop_gradient, self._seen(x)
    self.sow('intermediates', ROWS, seen)  # for seeding; where nobody asks it does nothing
    self.sow('intermediates', COUNTED, ops.counted(seen, flat_mask))
    if moving and self._owner('transform') == 'vq':
      self._observe_transform(stop(seen), ops.counted(seen, flat_mask))

    space = self._space()
    codes = space.codes(self._get('codebook'))
    indices, relaxed = self._assigned(seen, codes, flat_mask, train)
    if moving and observe:
      self.observe(z, indices.reshape(z.shape[:-1]), mask)
      if self.regathers:
        codes = space.codes(self._get('codebook'))
    q = codes[indices]

    terms = losses.terms(self.loss, seen, q, codes, indices, flat_mask)
    loss = self.commitment_weight * terms['commitment']
    if self._codes_learn:
      loss = loss + self.codebook_weight * terms['codebook']
    for regularizer in self.regularizers:
      terms[regularizer.name] = regularizer(seen, codes, flat_mask)
      loss = loss + regularizer.weight * terms[regularizer.name]
    counts = ops.code_counts(indices, self.num_codes, flat_mask)
    if self.replacement is not None:
      dead = self.replacement.dead(self._get('replacement')['state'])
      terms['dead'] = jnp.mean(dead, dtype=jnp.float32)
    return Quantized(
      z_q=(q if relaxed is None else ops.with_value(relaxed, q)).reshape(z.shape),
      indices=indices.reshape(z.shape[:-1]),
      loss=loss,
      metrics=terms | {'perplexity': ops.perplexity(counts), 'usage': ops.usage(counts)},
    )

  def observe(self, z, indices, mask=None):
    rows = jax.lax.stop_gradient(self._seen(ops.rows(z)))
    indices = indices.reshape(-1)
    counted = ops.counted(rows, None if mask is None else mask.reshape(-1))
    if self.learner is not None:
      before = self._get('codebook'), self._get('learner')
      weights, state = self.learner.update(*before, rows, indices, counted, self._space())
      if self.sphere and self.transform is None:
        weights = ops.unit(weights)
      some = jnp.any(counted)  # without rows a decay would still move things
      weights, state = jax.tree.map(
        lambda new, old: jnp.where(some, new, old), (weights, state), before
      )
      self.put_variable('vq', 'codebook', weights)
      self.put_variable('vq', 'learner', state)
    if self.has_variable('vq', 'step'):
      self.put_variable('vq', 'step', self._get('step') + jnp.any(counted).astype(jnp.int32))
    if self.replacement is not None:
      counts = ops.code_counts(indices, self.num_codes, counted)
      key = self._key('replacement keeps random rows')
      now = self.replacement.observe(self._get('replacement'), key, counts, rows, counted)
      self.put_variable('vq', 'replacement', now)

  def estimate(self, z, q):
    if isinstance(self.assign, Gumbel):
      return q  # carries the relaxation's gradient already
    x, code = ops.rows(z), ops.rows(q)
    if getattr(self.estimator, 'uses_key', False) and self.has_rng('vq'):
      return self.estimator(x, code, key=self.make_rng('vq')).reshape(q.shape)
    return self.estimator(x, code).reshape(q.shape)

  def lookup(self, indices):
    codes = self._space().codes(self._get('codebook'))
    # Negative indices would count from the end.
    indices = jnp.where(indices < 0, self.num_codes, indices)
    return codes.at[indices].get(mode='fill', fill_value=jnp.nan)

  def penalty(self, z, q, mask=None):
    """Loss and metrics of rows `z` and their quantized values `q` [... D]: (loss [], terms)."""
    x, q = self._seen(ops.rows(z)), ops.rows(q)
    mask = None if mask is None else mask.reshape(-1)
    terms = losses.terms(self.loss, x, q, None, None, mask)
    loss = self.commitment_weight * terms['commitment']
    return loss + self._codes_learn * self.codebook_weight * terms['codebook'], terms

  @property
  def regathers(self):
    return self.learner is not None and self.learner.regather

  def space(self, variables) -> transforms.Space:
    """The transform bound to this quantizer's `variables`, {'params': ..., 'vq': ...}."""
    own = (variables.get(self._owner('transform')) or {}).get('transform')
    return transforms.bind(self.transform, own, self.num_codes, self.sphere)

  @property
  def _codes_learn(self):
    """Whether a gradient on the codes reaches anything."""
    return self.learner is None or (self.transform is not None and self.transform.learned)

  @property
  def codebook_owner(self):
    """Collection that the codebook lives in."""
    return self._owner('codebook')

  def _owner(self, name):
    """Collection that a variable lives in."""
    if name == 'codebook':
      return 'params' if self.learner is None else 'vq'
    if name == 'transform':
      return 'params' if self.transform is None or self.transform.learned else 'vq'
    return 'vq'

  def _get(self, name):
    # Variables from a file may be NumPy arrays.
    return jax.tree.map(jnp.asarray, self.get_variable(self._owner(name), name))

  def _space(self):
    own = None if self.transform is None else self._get('transform')
    return transforms.bind(self.transform, own, self.num_codes, self.sphere)

  def _create(self, width):
    """Declares all variables; the width of the codes is known from the input only."""
    shape = (self.num_codes, width)
    if self.has_variable(self._owner('codebook'), 'codebook'):
      known = self._get('codebook').shape
      if known != shape:
        raise ValueError(
          f'z has width {width}, but the codebook is {known[0]} x {known[1]}; legal: the width '
          f'that it was initialised with, and num_codes={known[0]}.'
        )

    def declare(name, init):
      if self._owner(name) == 'params':
        return self.param(name, init)
      return self.variable('vq', name, lambda: init(self.make_rng('params'))).value

    unit = ops.unit if self.sphere and self.transform is None and self.learner else lambda w: w
    weights = declare('codebook', lambda key: unit(self.codebook_init(key, shape, jnp.float32)))
    if self.transform is not None:
      declare('transform', lambda key: self.transform.init(key, *shape))
    if self.learner is not None:
      declare('learner', lambda _: self.learner.init(weights))
    if self.replacement is not None:
      declare('replacement', lambda _: self.replacement.init(*shape))
    if getattr(self.assign, 'uses_step', False):
      declare('step', lambda _: jnp.zeros((), jnp.int32))

  def _observe_transform(self, rows, counted):
    weights = jax.lax.stop_gradient(self._get('codebook'))
    now = self.transform.observe(self._get('transform'), weights, rows, counted)
    self.put_variable('vq', 'transform', now)

  def _assigned(self, seen, codes, mask, train):
    """(indices [N], None or the relaxation that carries the gradient [N D])."""
    if not train:
      # Nothing is relaxed here, and `estimate` leaves Gumbel codes as they are: straight through.
      relaxed = seen if isinstance(self.assign, Gumbel) else None
      return self.eval_assign(seen, codes, key=None, mask=mask, step=None), relaxed
    step = self._get('step') if getattr(self.assign, 'uses_step', False) else None
    stream = 'vq' if self.has_rng('vq') or not self.is_initializing() else 'params'
    key = self.make_rng(stream) if self.has_rng(stream) else None
    if isinstance(self.assign, Gumbel):
      return self.assign.relaxed(seen, codes, key=key, mask=mask, step=step)
    seen, codes = jax.lax.stop_gradient((seen, codes))
    return self.assign(seen, codes, key=key, mask=mask, step=step), None

  def _key(self, why):
    if not self.has_rng('vq'):
      raise ValueError(f"{why} and has no key; apply with rngs={{'vq': key}}.")
    return self.make_rng('vq')

  def _seen(self, x):
    return ops.unit(x) if self.sphere else x


def _check_fields(vq):
  """Refuses fields and combinations that cannot work; warns of those that are known to fail."""
  if vq.num_codes < 2:
    raise ValueError(f'VectorQuantizer.num_codes is {vq.num_codes}; legal: at least 2.')
  groups = getattr(vq.transform, 'groups', 1)
  if groups < 1 or vq.num_codes % groups:
    raise ValueError(
      f'VectorQuantizer.transform has groups={groups}; legal: divisors of num_codes={vq.num_codes}.'
    )
  if vq.loss not in losses.KINDS:
    raise ValueError(f'VectorQuantizer.loss is {vq.loss!r}; legal: {", ".join(losses.KINDS)}.')
  draws = lambda assign: isinstance(assign, Gumbel | Stochastic) or getattr(assign, 'sample', False)
  if draws(vq.eval_assign):
    raise ValueError(
      f'VectorQuantizer.eval_assign is {vq.eval_assign}, so tokens would be random; legal: '
      'assignments without a draw, such as Nearest().'
    )
  if isinstance(vq.assign, Gumbel) and vq.estimator != straight_through:
    raise ValueError(
      f'VectorQuantizer.estimator is {vq.estimator}, but assign=Gumbel brings its own gradient; '
      'leave estimator=straight_through.'
    )
  if isinstance(vq.estimator, Sync | Directional) and not vq._codes_learn:
    raise ValueError(
      f'VectorQuantizer.estimator is {vq.estimator}, but with learner={vq.learner} no gradient '
      'reaches the codes; set learner=None or a learned transform, or take another estimator.'
    )
  if any(isinstance(r, Orthogonality) for r in vq.regularizers) and not vq._codes_learn:
    raise ValueError(
      f'VectorQuantizer.regularizers has Orthogonality, but with learner={vq.learner} no gradient '
      'reaches the codes; set learner=None or a learned transform, or leave it out.'
    )
  base = vq.estimator.base if isinstance(vq.estimator, Sync) else vq.estimator
  drawn = isinstance(vq.assign, Stochastic) or getattr(vq.assign, 'sample', False)
  if drawn and isinstance(base, Rotation | Reflection):
    _warn_of_draws(base, vq.assign)


@functools.cache  # once a process: flax builds a module anew whenever it is bound
def _warn_of_draws(estimator, assign):
  warnings.warn(
    f'{estimator} with {assign} is known to diverge: a drawn code may lie anywhere, and angle and '
    'ratio of lengths to it scale the gradient '
    '(https://github.com/lucidrains/vector-quantize-pytorch/issues/223); use straight_through, or '
    'an assignment without a draw.',
    stacklevel=6,
  )
