"""The optimizer of a config: the one door to optax chains and schedules."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import optax

from vqjax.errors import UserError
from vqjax.training import durations

_SCHEDULES = ('constant', 'cosine', 'wsd', 'onecycle')
# Where weights decay, by the path of a parameter and its number of axes.
_DECAYED = {
  'all': lambda path, leaf: True,
  # Of convolutions and linear layers: no biases, norms, codebooks, tables.
  'kernels': lambda path, leaf: path.rpartition('/')[2] == 'kernel',
  'matrices': lambda path, leaf: leaf.ndim >= 2,  # tables of embeddings too
}


def build(
  config: ml_collections.ConfigDict, *, freeze: Sequence[str] = (), **units: Any
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds an optimizer and its learning-rate schedule from `config.optimizer`.

  Global-norm clipping (`clip_norm`, 0 for none), then Adam on the schedule, with decoupled weight
  decay as PyTorch's AdamW has it (`weight_decay`, 0 for none), on every parameter, on kernels alone
  or on all that has two axes or more (`weight_decay_on`), but for what matches a pattern of
  `no_weight_decay`, where a config has that. Schedule 'onecycle' sets b1 as well, see `_one_cycle`.

  Frozen parameters get updates of exactly zero and no decay, have no moments, and do not count in
  the norm that is clipped. What is no parameter cannot be frozen here: an EMA codebook moves unless
  its learner is 'frozen', and a replacement of dead codes writes to the codebook of a frozen
  quantizer too.

  Args:
    config: the `optimizer` part of a config.
    freeze: shell patterns of parameters, matched to paths such as 'encoder/conv_in/kernel' when
      the state is initialised; `*` stands for any characters, slashes among them.
    **units: batch_size, num_examples and total_steps, see `durations.steps`.

  Returns:
    (optax.GradientTransformation, schedule: step -> learning rate). `init` of the transformation
    raises a UserError for a pattern that matches nothing and if nothing is left to train.

  Raises:
    UserError: a value outside the legal ones.
  """
  schedule = _schedule(config, units)
  if config.weight_decay_on not in _DECAYED:
    raise UserError(
      f'config.optimizer.weight_decay_on is {config.weight_decay_on!r}; legal: '
      f'{", ".join(_DECAYED)}.'
    )
  spared = tuple(config.get('no_weight_decay', ()))
  settings = {
    'b2': config.b2,
    'eps': config.eps,
    'weight_decay': config.weight_decay,
    'mask': None
    if config.weight_decay_on == 'all' and not spared
    else lambda params: _decayed(params, _DECAYED[config.weight_decay_on], spared),
  }
  adam, b1 = optax.adamw, config.b1
  if config.schedule == 'onecycle':
    b1 = _one_cycle(0.95, 0.85, 0.95, units['total_steps'])
    # As in PyTorch, the bias correction of step t is 1 - b1**t with the b1 of that step.
    adam = optax.inject_hyperparams(adam, static_args=(*settings, 'eps_root'))
  clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
  chain = optax.chain(*clip, adam(schedule, b1=b1, **settings))
  if not freeze:
    return chain, schedule
  groups = {'trained': chain, 'frozen': optax.set_to_zero()}
  return optax.partition(groups, lambda params: _groups(params, freeze)), schedule


def _schedule(config, units):
  peak = config.learning_rate
  read = lambda key: durations.steps(config, key, where='config.optimizer', **units) or 0
  warmup, decay = read('warmup'), read('decay')
  if config.schedule == 'constant':
    return optax.warmup_constant_schedule(0.0 if warmup else peak, peak, warmup)
  if config.schedule == 'cosine':
    if not decay:
      raise UserError(
        'config.optimizer.decay_steps is 0; the cosine schedule needs a step at which it ends.'
      )
    # The cosine ends at final_fraction of the peak and stays there.
    return optax.warmup_cosine_decay_schedule(
      0.0 if warmup else peak, peak, warmup, max(decay, warmup + 1), peak * config.final_fraction
    )
  if config.schedule == 'wsd':
    if warmup + decay > units['total_steps']:
      raise UserError(
        f'config.optimizer has warmup of {warmup} and decay of {decay} steps, more than the '
        f'{units["total_steps"]} of the run; make them shorter.'
      )
    # Warm-up, stable, decay: here decay is how long the last phase is, not where it ends.
    with jax.numpy_dtype_promotion('standard'):
      return optax.join_schedules(
        [
          optax.warmup_constant_schedule(0.0 if warmup else peak, peak, warmup),
          optax.cosine_decay_schedule(peak, max(decay, 1), config.final_fraction),
        ],
        [units['total_steps'] - decay],
      )
  if config.schedule == 'onecycle':
    if warmup or decay or config.final_fraction:
      raise UserError(
        f'config.optimizer has warmup of {warmup} and decay of {decay} steps and final_fraction='
        f'{config.final_fraction}; onecycle has its own, over the whole run: set them to 0.'
      )
    share = _one_cycle(1 / 25, 1.0, 1 / 25e4, units['total_steps'])
    return lambda step: peak * share(step)
  raise UserError(
    f'config.optimizer.schedule is {config.schedule!r}; legal: {", ".join(_SCHEDULES)}.'
  )


def _one_cycle(start, peak, end, total_steps):
  """Cosine from start up or down to peak in 1% of the run, and cosine to end: step -> value.

  PyTorch's OneCycleLR(pct_start=0.01) and its momentum, to the step: phases end at 0.01 T - 1,
  whatever fraction that is, and T - 1. Smith and Topin, Super-Convergence (2017). A run of exactly
  100 steps, at which PyTorch divides by zero, begins at the peak; behind the end, where it raises,
  the value stays.
  """
  turn, last = 0.01 * total_steps - 1, total_steps - 1.0
  scales = {turn: peak / start, last: end / peak}
  cosines = optax.piecewise_interpolate_schedule('cosine', start, scales)

  def schedule(step):
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes, in `init` too
      return cosines(step)

  return schedule


def _decayed(params, rule, spared):
  """True for every parameter that decays: `rule` says so, and none of the patterns `spared`."""
  spared = _matching(params, spared, 'no_weight_decay')
  decays = lambda path, leaf: rule(_name(path), leaf) and _name(path) not in spared
  return jax.tree_util.tree_map_with_path(decays, params)


def _groups(params, patterns):
  """'frozen' for every parameter whose path matches one of `patterns`, else 'trained'."""
  frozen = _matching(params, patterns, 'freeze')
  if len(frozen) == len(jax.tree.leaves(params)):
    raise UserError(
      f'config.optimizer.freeze={tuple(patterns)!r} leaves no parameter to train; freeze less.'
    )
  group = lambda path, _: 'frozen' if _name(path) in frozen else 'trained'
  return jax.tree_util.tree_map_with_path(group, params)


def _matching(params, patterns, field):
  """Paths of the parameters that match one of the patterns of a field of the config."""
  names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  found = set()
  for pattern in patterns:
    matching = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
    found |= matching
    if not matching:
      parts = ', '.join(sorted({f'{name.split("/")[0]}/*' for name in names}))
      raise UserError(
        f'config.optimizer.{field}: {pattern!r} matches no parameter; legal: patterns of paths'
        f' under {parts}.'
      )
  return found


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator='/')
