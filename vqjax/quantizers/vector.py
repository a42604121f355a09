"""The vector quantizer: one module, every choice a field."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqjax.quantizers import combinations, losses, ops, transforms
from vqjax.quantizers.assignments import Assignment, Nearest, Relaxed
from vqjax.quantizers.declarations import declares
from vqjax.quantizers.estimators import EstimatorLike, straight_through
from vqjax.quantizers.initializers import Initializer, uniform_codebook
from vqjax.quantizers.learners import Learner
from vqjax.quantizers.quantizer import Quantized, Quantizer
from vqjax.quantizers.regularizers import Regularizer
from vqjax.quantizers.replacement import Replacement

# Names in `intermediates` of the rows [N D] that a codebook sees, and which of them count [N].
ROWS, COUNTED = 'quantizer_rows', 'quantizer_mask'


class VectorQuantizer(Quantizer):
  """Replaces each row by a code of a learned codebook (van den Oord et al. 2017).

  Computes in float32 whatever comes in; `z_q` has the dtype of `z`. With `learner=None` the
  codebook is the parameter `params/codebook`; everything that the quantizer moves by itself lives
  in the collection `vq` (a learner's codebook and state, running statistics, ages of codes) and
  moves in every forward with `train=True` (apply with `mutable=['vq']`). Under jit with a sharded
  batch all statistics are those of the whole batch. RNG stream: `vq`.

  Attributes:
    num_codes: K, at least 2.
    assign: which code a row takes while training, see `Assignment`.
    eval_assign: the same when `train=False`: what tokenizing uses.
    estimator: the gradient that the encoder gets, see `EstimatorLike`.
    transform: how stored weights become codes, see `Transform`; None: they are the codes.
    learner: who moves the codebook, see `Learner`; None: the gradient.
    replacement: which codes are dead, see `Replacement`; None: codes are never replaced. The layer
      only watches them; `replace_dead_codes` replaces them between steps.
    sphere: assignment and losses see unit vectors and `z_q` is a unit code; the estimator sees the
      raw z, as in ViT-VQGAN, so that its gradient passes the normalisation.
    unit_input: z is scaled to length one on entry, with gradient, as in LlamaGen and vqtorch.
    loss: of commitment and codebook: `l2`, `l1`, or `cross_entropy` (losses.py).
    commitment_weight: weight of `mean((z - sg q)^2)`, which pulls the encoder to the code.
    codebook_weight: weight of `mean((sg z - q)^2)`, which pulls the code to the encoder; only
      where the gradient moves codes. The two weights replace `beta`, which means four things in
      four codebases.
    regularizers: further terms of the loss, see `Regularizer`.
    codebook_init: where codes start, `(key, (K, D), dtype) -> weights`.
  """

  num_codes: int
  assign: Assignment = Nearest()
  eval_assign: Assignment = Nearest()
  estimator: EstimatorLike = straight_through
  transform: transforms.Transform | None = None
  learner: Learner | None = None
  replacement: Replacement | None = None
  sphere: bool = False
  unit_input: bool = False
  loss: str = 'l2'
  commitment_weight: float = 0.25
  codebook_weight: float = 1.0
  regularizers: tuple[Regularizer, ...] = ()
  codebook_init: Initializer = uniform_codebook

  def __post_init__(self) -> None:
    super().__post_init__()
    combinations.check(self)

  def enter(self, z: jax.Array) -> jax.Array:
    return ops.unit(z) if self.unit_input else z

  @nn.compact
  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    x, flat_mask = ops.rows(z), None if mask is None else mask.reshape(-1)
    self._create(x.shape[-1])
    moving = train and not self.is_initializing()
    stop, seen = jax.lax.stop_gradient, self.compared(x)
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
    if self.codes_learn:
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

  def observe(self, z: jax.Array, indices: jax.Array, mask: jax.Array | None = None) -> None:
    rows = jax.lax.stop_gradient(self.compared(ops.rows(z)))
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
      self._put('codebook', weights)
      self._put('learner', state)
    if self.has_variable('vq', 'step'):
      self._put('step', self._get('step') + jnp.any(counted).astype(jnp.int32))
    if self.replacement is not None:
      counts = ops.code_counts(indices, self.num_codes, counted)
      key = self._key('replacement keeps random rows')
      now = self.replacement.observe(self._get('replacement'), key, counts, rows, counted)
      self._put('replacement', now)

  def estimate(self, z: jax.Array, q: jax.Array) -> jax.Array:
    if declares(self.assign, 'relaxes'):
      return q  # carries the relaxation's gradient already
    x, code = ops.rows(z), ops.rows(q)
    with_key = declares(self.estimator, 'uses_key') and self.has_rng('vq')
    key = {'key': self.make_rng('vq')} if with_key else {}
    z_q = cast(Callable[..., jax.Array], self.estimator)(x, code, **key)
    if z_q.shape != code.shape:
      raise ValueError(
        f'VectorQuantizer.estimator returns {z_q.shape}; legal: {code.shape}, that of codes.'
      )
    return z_q.reshape(q.shape)

  def lookup(self, indices: jax.Array) -> jax.Array:
    codes = self._space().codes(self._get('codebook'))
    # Negative indices would count from the end.
    indices = jnp.where(indices < 0, self.num_codes, indices)
    return codes.at[indices].get(mode='fill', fill_value=jnp.nan)

  def penalty(
    self, z: jax.Array, q: jax.Array, mask: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    x, q = self.compared(ops.rows(z)), ops.rows(q)
    mask = None if mask is None else mask.reshape(-1)
    terms = losses.terms(self.loss, x, q, None, None, mask)
    loss = self.commitment_weight * terms['commitment']
    return loss + self.codes_learn * self.codebook_weight * terms['codebook'], terms

  def compared(self, z: jax.Array) -> jax.Array:
    return ops.unit(z) if self.sphere else z

  @property
  def has_codebook(self) -> bool:
    return True

  @property
  def replaces_codes(self) -> bool:
    return self.replacement is not None

  @property
  def eval_rule(self) -> Assignment:
    return self.eval_assign

  @property
  def batch_dependent(self) -> bool:
    return declares(self.eval_assign, 'whole_batch')

  @property
  def regathers(self) -> bool:
    return self.learner is not None and self.learner.regather

  @property
  def keeps_statistics(self) -> bool:
    return self.transform is not None and not self.transform.learned

  @property
  def copies_gradient(self) -> bool:
    return declares(self.estimator, 'copies_gradient')

  @property
  def has_penalty(self) -> bool:
    return self.loss in ('l2', 'l1') and not self.regularizers

  @property
  def codes_learn(self) -> bool:
    """Whether a gradient on the codes reaches anything: the codebook, or a learned transform."""
    return self.learner is None or (self.transform is not None and self.transform.learned)

  def space(self, variables: Mapping[str, Any]) -> transforms.Space:
    """The transform bound to this quantizer's `variables`, {'params': ..., 'vq': ...}."""
    own = (variables.get(self._owner('transform')) or {}).get('transform')
    return transforms.bind(self.transform, own, self.num_codes, self.sphere)

  @property
  def codebook_owner(self) -> str:
    """The collection that the codebook lives in."""
    return self._owner('codebook')

  def _owner(self, name: str) -> str:
    """The collection that a variable lives in."""
    if name == 'codebook':
      return 'params' if self.learner is None else 'vq'
    if name == 'transform':
      return 'params' if self.transform is None or self.transform.learned else 'vq'
    return 'vq'

  def _get(self, name: str) -> Any:
    # Variables from a file may be NumPy arrays.
    return jax.tree.map(jnp.asarray, self.get_variable(self._owner(name), name))

  def _space(self) -> transforms.Space:
    own = None if self.transform is None else self._get('transform')
    return transforms.bind(self.transform, own, self.num_codes, self.sphere)

  def _create(self, width: int) -> None:
    """Declares all variables; the width of the codes is known from the input only."""
    shape = (self.num_codes, width)
    if self.has_variable(self._owner('codebook'), 'codebook'):
      known = self._get('codebook').shape
      if known != shape:
        raise ValueError(
          f'z has width {width}, but the codebook is {known[0]} x {known[1]}; legal: the width '
          f'that it was initialised with, and num_codes={known[0]}.'
        )

    def declare(name: str, init: Callable[[jax.Array], Any]) -> Any:
      if self._owner(name) == 'params':
        return self.param(name, init)
      return self.variable('vq', name, lambda: init(self.make_rng('params'))).value

    def start(key: jax.Array) -> jax.Array:
      weights = self.codebook_init(key, shape, jnp.float32)
      unit = self.sphere and transform is None and learner is not None
      return ops.unit(weights) if unit else weights

    transform, learner, replacement = self.transform, self.learner, self.replacement
    weights = declare('codebook', start)
    if transform is not None:
      declare('transform', lambda key: transform.init(key, *shape))
    if learner is not None:
      declare('learner', lambda _: learner.init(weights))
    if replacement is not None:
      declare('replacement', lambda _: replacement.init(*shape))
    if declares(self.assign, 'uses_step'):
      declare('step', lambda _: jnp.zeros((), jnp.int32))

  def _observe_transform(self, rows: jax.Array, counted: jax.Array) -> None:
    transform = cast(transforms.Observing, self.transform)
    weights = jax.lax.stop_gradient(self._get('codebook'))
    now = transform.observe(self._get('transform'), weights, rows, counted)
    self._put('transform', now)

  def _assigned(
    self, seen: jax.Array, codes: jax.Array, mask: jax.Array | None, train: bool
  ) -> tuple[jax.Array, jax.Array | None]:
    """(indices [N], None or the relaxation that carries the gradient [N D])."""
    relaxes = declares(self.assign, 'relaxes')
    if not train:
      # Nothing is relaxed here, and `estimate` leaves such codes as they are: straight through.
      with _note_of_key('eval_assign', None):
        indices = self.eval_assign(seen, codes, key=None, mask=mask, step=None)
      return indices, seen if relaxes else None
    step = self._get('step') if declares(self.assign, 'uses_step') else None
    stream = 'vq' if self.has_rng('vq') or not self.is_initializing() else 'params'
    key = self.make_rng(stream) if self.has_rng(stream) else None
    if key is None and declares(self.assign, 'uses_key'):
      raise ValueError(
        f"{type(self.assign).__name__} draws codes and has no key; apply with rngs={{'vq': key}}."
      )
    if relaxes:
      return cast(Relaxed, self.assign).relaxed(seen, codes, key=key, mask=mask, step=step)
    seen, codes = jax.lax.stop_gradient((seen, codes))
    with _note_of_key('assign', key):
      return self.assign(seen, codes, key=key, mask=mask, step=step), None

  def _put(self, name: str, value: Any) -> None:
    if not self.is_mutable_collection('vq'):
      raise ValueError(
        f"VectorQuantizer moves its {name} in the collection 'vq' while training; apply with "
        "mutable=['vq'] and keep what comes back, or with train=False."
      )
    self.put_variable('vq', name, value)

  def _key(self, why: str) -> jax.Array:
    if not self.has_rng('vq'):
      raise ValueError(f"{why} and has no key; apply with rngs={{'vq': key}}.")
    return self.make_rng('vq')


@contextlib.contextmanager
def _note_of_key(field: str, key: jax.Array | None) -> Iterator[None]:
  """Adds to what a function of somebody's raises without a key that it may have wanted one."""
  try:
    yield
  except TypeError as error:
    if key is None:
      error.add_note(
        f'VectorQuantizer.{field} was called with key=None. An assignment that draws declares '
        "uses_key = True, cannot be eval_assign, and needs apply(..., rngs={'vq': key})."
      )
    raise
