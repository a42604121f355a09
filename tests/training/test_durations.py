import math

import pytest

from vqjax.errors import UserError
from vqjax.training import durations

UNITS = {'batch_size': 64, 'num_examples': 1000, 'total_steps': 500}


def read(config, key='log_every', **units):
  return durations.steps(config, key, where='config', **{**UNITS, **units})


@pytest.mark.parametrize(
  ('config', 'steps'),
  [
    ({'log_every': 50}, 50),
    ({'log_every_steps': 50}, 50),
    ({'log_every_epochs': 2}, 31),  # 31.25
    ({'log_every_epochs': 0.1}, 2),  # 1.5625
    ({'log_every_examples': 640}, 10),
    ({'log_every_examples': 100}, 2),  # 1.5625
    ({'log_every_examples': 90}, 1),  # 1.40625
    ({'log_every_percent': 70}, 350),
    ({'log_every_percent': 0.15}, 1),  # 0.75
    ({'log_every_percent': 100.0}, 500),
    ({'log_every': 0}, 0),
    ({'log_every': None, 'log_every_epochs': 16}, 250),  # None is as good as absent
    ({'log_every': None}, None),
    ({}, None),
    ({'log_every_minutes': 3, 'eval_every': 5}, None),  # other keys
  ],
)
def test_units(config, steps):
  got = read(config)
  assert got == steps
  assert type(got) is type(steps)


@pytest.mark.parametrize(
  ('config', 'units', 'message'),
  [
    (
      {'log_every': 5, 'log_every_percent': 1},
      {},
      'config: log_every and log_every_percent are the same duration twice; keep one.',
    ),
    (
      {'log_every_steps': 0, 'log_every_epochs': 1},
      {},
      'config: log_every_steps and log_every_epochs are the same duration twice; keep one.',
    ),
    *(
      (
        {'log_every_epochs': value},
        {},
        f'config.log_every_epochs is {value!r}; legal: a number that is not negative.',
      )
      for value in (-1, -0.5, 'ten', (1,), True, math.nan, math.inf)
    ),
    (
      {'log_every_epochs': 1},
      {'num_examples': None},
      'config.log_every_epochs: the number of training images is unknown; use log_every_steps.',
    ),
    (
      {'log_every_percent': 1},
      {'total_steps': None},
      'config.log_every_percent: percent of itself; use log_every_steps or log_every_epochs.',
    ),
  ],
)
def test_messages(config, units, message):
  with pytest.raises(UserError) as error:
    read(config, **units)
  assert str(error.value) == message


def test_only_the_unit_that_is_used_must_be_known():
  unknown = {'num_examples': None, 'total_steps': None}
  assert read({'log_every': 7}, **unknown) == 7
  assert read({'log_every_examples': 640}, **unknown) == 10
