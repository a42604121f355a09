import numpy as np
import pytest
from golden_data import checkpoint

from vqjax.generation import masking, orders
from vqjax.generation.layout import Layout


def test_golden_orders_and_counts():
  _, io, _ = checkpoint('halton_order', 'generation')
  for key, expected in io.items():
    kind, *rest = key.split('_')
    if kind == 'order':
      side = int(rest[0])
      cells = orders.halton(Layout((side, side), 4))
      found = np.stack(np.divmod(cells, side), axis=1)
    elif kind == 'count':
      side, steps = map(int, rest)
      found = orders.reveal_counts(side**2, orders.steps_done(steps))
    else:
      side, steps = map(int, rest[1:])
      found = orders.reveal_counts(side**2, orders.steps_begun(steps), rest[0])
      expected = np.maximum(expected, np.arange(1, steps + 1))  # which theirs do later
    np.testing.assert_array_equal(found, expected, err_msg=key)
  assert {key.split('_')[0] for key in io} == {'order', 'count', 'conf'}


def test_golden_mask_lengths():
  _, io, _ = checkpoint('maskgit_schedule_a', 'generation')
  for key, expected in io.items():
    kind, *rest = key.split('_')
    if kind == 'in':
      continue
    schedule, total = {'uniform': 'linear'}.get(rest[0], rest[0]), int(rest[1])
    if kind == 'ratio':  # theirs end at 1e-6 and not at 0
      rates = masking.host_rate(schedule, io['in_ratio'], np.array(total))
      np.testing.assert_allclose(rates, expected, rtol=0, atol=2e-6, err_msg=key)
      rates = masking.rate(schedule, io['in_ratio'], total)
      np.testing.assert_allclose(rates, expected, rtol=0, atol=2e-6, err_msg=key)
    else:
      lengths = orders.mask_lengths(total, int(rest[2]), schedule)
      np.testing.assert_array_equal(lengths[:, total], expected, err_msg=key)


def test_counts_are_those_of_float32():
  assert orders.reveal_counts(576, orders.steps_done(2))[0] == 191
  assert orders.mask_lengths(256, 12)[7, 256] == 127


@pytest.mark.parametrize('grid', [(1, 1), (1, 7), (2, 2), (6, 9), (48, 48), (64, 64), (64, 100)])
def test_every_cell_once(grid):
  order = orders.halton(Layout(grid, 4))
  np.testing.assert_array_equal(np.sort(order), np.arange(grid[0] * grid[1]))


def test_cells_that_no_point_falls_into_come_last():
  order = orders.halton(Layout((64, 64), 4))
  assert (np.diff(order[-6:]) > 0).all()
  row, column = order[0] // 64, order[0] % 64
  assert (row, column) == (32, 21)


@pytest.mark.parametrize('schedule', ['arccos', 'cosine', 'linear', 'root', 'square'])
@pytest.mark.parametrize(('length', 'steps'), [(1, 1), (7, 7), (64, 1), (64, 2), (256, 32)])
def test_counts_grow_to_all(length, steps, schedule):
  for progress in (orders.steps_done(steps), orders.steps_begun(steps)):
    counts = orders.reveal_counts(length, progress, schedule)
    assert counts.shape == (steps,)
    assert counts[0] >= 1
    assert (np.diff(counts) >= 0).all()
    assert counts[-1] == length
