"""When a run is saved beside its steps: one process here, several in tests/faults."""

import signal

import jax
import pytest

from vqjax import sharding
from vqjax.errors import UserError
from vqjax.runs import occasions
from vqjax.runs.occasions import Occasion, Occasions


class Clock:
  now = 1000.0

  def __call__(self):
    return self.now


@pytest.fixture
def mesh():
  return sharding.make_mesh({'data': -1, 'fsdp': 2})


def test_the_clock_counts_from_the_first_step_and_from_every_save(mesh):
  clock = Clock()
  asked = Occasions(mesh, 2, clock=clock)
  clock.now += 1e6  # compiling
  assert asked.behind(1, None) == Occasion()
  clock.now += 119
  assert asked.behind(2, None) == Occasion()
  clock.now += 1
  assert asked.behind(3, None) == Occasion(late=True)
  asked.saved()
  clock.now += 100
  asked.saved()
  clock.now += 100
  assert asked.behind(4, None) == Occasion()
  clock.now += 20
  assert asked.behind(5, signal.SIGTERM) == Occasion(signal.SIGTERM, late=True)


def test_without_minutes_it_is_never_late(mesh):
  clock = Clock()
  asked = Occasions(mesh, 0, clock=clock)
  asked.behind(1, None)
  clock.now += 1e9
  assert asked.behind(2, None) == Occasion()


@pytest.mark.parametrize('minutes', [-1, float('nan')])
def test_minutes_that_are_none(mesh, minutes):
  with pytest.raises(UserError, match=r'config\.checkpoint_minutes is .*; legal: 0 \(none\) or'):
    Occasions(mesh, minutes)


def test_several_processes_hear_of_it_one_round_later(mesh, monkeypatch):
  """Here each is this one; what matters is when."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  clock = Clock()
  asked = Occasions(mesh, 1, clock=clock)
  n = occasions.EVERY
  asked.behind(1, None)
  clock.now += 60
  heard = {step: asked.behind(step, None) for step in range(2, 2 * n)}
  assert set(heard.values()) == {Occasion()}
  assert asked.behind(2 * n, None) == Occasion(late=True)
  asked.saved()
  for step in range(2 * n + 1, 4 * n + 1):  # saved once
    assert asked.behind(step, signal.SIGUSR1 if step > 3 * n else None) == Occasion()
  for step in range(4 * n + 1, 5 * n):
    assert asked.behind(step, signal.SIGUSR1) == Occasion()
  assert asked.behind(5 * n, signal.SIGUSR1) == Occasion(signal.SIGUSR1)
