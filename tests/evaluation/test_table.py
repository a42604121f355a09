"""The table of all numbers, and the words that it has for them."""

import pytest

from vqjax.evaluation import table
from vqjax.evaluation.table import METRICS, OF_SAMPLES
from vqjax.weights.sources import group_of


def test_rows_agree_with_themselves():
  for name, metric in [*METRICS.items(), *OF_SAMPLES.items()]:
    assert metric.meaning or not (metric.better or metric.of_pixels or metric.network), name
    assert not (metric.words and not metric.lines), name
    assert not metric.network or group_of(metric.network), name
    assert not (metric.of_pixels and metric.network), name


def test_a_line_has_its_numbers_in_the_order_of_the_table():
  values = {
    'perplexity': 210.4,
    'usage': 0.43,
    'l1': 0.0812,
    'loss': 0.12341,
    'grad_norm': 3.0,
    'psnr': 20.0,
    'accuracy': None,
  }
  words = ['loss 0.1234', 'l1 0.0812', 'usage 43%', 'perplexity 210']
  assert table.line('progress', values) == words
  found = {'usage': 0.5, 'ssim': 0.71234, 'psnr_mean_color': 15.8, 'psnr': 22.31, 'rec_loss': 0.1}
  assert table.line('held out', found) == [
    *('PSNR 22.31 dB', 'of the mean colour alone 15.80', 'SSIM 0.712', 'usage 50%')
  ]


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (None, 'null'),
    (40, '40'),
    (21.5, '21.5000'),
    (0.012345678, '0.01235'),
    (0.0, '0.0000'),
    (-0.05, '-0.05'),
    (float('inf'), 'infinite'),
    (float('nan'), 'not a number'),
  ],
)
def test_numbers_in_a_table(value, words):
  assert table.in_table(value) == words


def test_decibels():
  assert table.decibels(20.456) == '20.46 dB'
  assert table.decibels(float('inf')) == 'infinite'
