"""The optimizer of a config: the one door to optax chains and schedules."""

import optax

from vqjax import durations
from vqjax.errors import UserError


def build(config, **units):
  """Builds the optimizer and its learning-rate schedule from `config.optimizer`.

  Global-norm clipping (`clip_norm`, 0 for none), then Adam, with decoupled weight decay on every
  parameter as PyTorch's AdamW has it (`weight_decay`, 0 for none), on the schedule.

  Args:
    config: the `optimizer` part of a config.
    **units: batch_size, num_examples and total_steps, see `durations.steps`.

  Returns:
    (optax.GradientTransformation, schedule: step -> learning rate).

  Raises:
    UserError: a value outside the legal ones.
  """
  schedule = _schedule(config, units)
  if config.name != 'adam':
    raise UserError(f'config.optimizer.name is {config.name!r}; legal: adam.')
  adam = optax.adamw(
    schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
  )
  clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
  return optax.chain(*clip, adam), schedule


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
  raise UserError(f'config.optimizer.schedule is {config.schedule!r}; legal: constant, cosine.')
