"""What a study's table and figure say."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import toy_study
from PIL import Image

from studies import collapse, figure, network, rate_distortion, rotation, table
from studies.study import Axes, grid, label


@pytest.mark.parametrize('values', [[25.0, 25.5], [3.0, 3.5, 5.0], [1.0, 2.0, 4.0, 8.0, 16.0]])
def test_the_interval_is_students(values):
  low, high = scipy.stats.t.interval(
    0.95, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values)
  )
  half = table.interval(values)
  np.testing.assert_allclose([np.mean(values) - half, np.mean(values) + half], [low, high])


def test_one_seed_has_no_interval():
  assert table.interval([25.0]) is None
  assert table.shown({'mean': 25.0, 'interval': None, 'seeds': 1}) == '25.00'


@pytest.mark.parametrize(
  ('mean', 'interval', 'expected'),
  [
    (25.4149, 0.3, '25.41 ± 0.30'),
    (0.08312, 0.001, '0.0831 ± 0.0010'),
    (6_912.3, 20.6, '6,912 ± 21'),
    (0.0, 0.0, '0.000 ± 0.000'),
    (1.0, 0.0, '1.000 ± 0.000'),
  ],
)
def test_numbers_have_four_digits(mean, interval, expected):
  assert table.shown({'mean': mean, 'interval': interval, 'seeds': 3}) == expected


def test_a_number_that_is_not_there_is_blank():
  assert table.shown(None) == ''


def write_run(out, point, seed, psnr, **numbers):
  folder = out / 'runs' / label(point) / f'seed{seed}'
  (folder / 'eval').mkdir(parents=True)
  protocol = {'data': 'images', 'images': '16 x 16', 'computed on': 'an abacus'}
  found = {'psnr': psnr, 'step': 4, **numbers, 'protocol': protocol}
  (folder / 'eval' / 'metrics.json').write_text(json.dumps(found))
  return folder


def test_rows_are_of_the_runs_that_are_there(tmp_path):
  for seed, psnr in enumerate([20.0, 21.0, 24.0]):
    folder = write_run(tmp_path, {'width': 2}, seed, psnr, usage=None if seed else 0.5)
    (folder / table.MADE).write_text(
      json.dumps({'machine': 'M', 'versions': 'v1', 'date': f'2026-01-0{seed + 1}'})
    )
  write_run(tmp_path, {'width': 4}, 10, 30.0)
  write_run(tmp_path, {'width': 4}, 9, 31.0)
  found = table.collect(toy_study.STUDY, tmp_path)
  first, second = found['rows']
  assert first['numbers']['psnr']['mean'] == pytest.approx(65 / 3)
  assert first['numbers']['psnr']['interval'] == table.interval([20.0, 21.0, 24.0])
  assert first['numbers']['usage'] == {'mean': 0.5, 'interval': None, 'seeds': 1}
  assert second['seeds'] == 2
  assert found['made'] == {
    'data': ['images, 16 x 16'],
    'steps': ['4'],
    'device': ['an abacus'],
    'machine': ['M'],
    'versions': ['v1'],
    'date': ['2026-01-01', '2026-01-02', '2026-01-03'],
  }
  lines = table.markdown(found, toy_study.STUDY.numbers).splitlines()
  assert '| width | seeds | PSNR, dB | usage in training | of nothing |' in lines
  assert '| 2 | 3 | 21.67 ± 5.17 |  |  |' in lines
  assert '- It does (Nobody, 1900).' in lines
  assert '- dates: 2026-01-01; 2026-01-02; 2026-01-03' in lines


def test_a_study_without_any_run_has_a_table_and_a_figure(tmp_path):
  found = table.collect(toy_study.STUDY, tmp_path)
  assert [row['seeds'] for row in found['rows']] == [0, 0]
  assert '| 4 | 0 |  |  |  |' in table.markdown(found, toy_study.STUDY.numbers)
  figure.draw(found, toy_study.STUDY.axes, {}, tmp_path / 'figure.png')
  with Image.open(tmp_path / 'figure.png') as picture:
    assert picture.size[1] > 100


def test_lines_intervals_and_baselines_are_drawn():
  number = lambda mean, interval=None: {'mean': mean, 'interval': interval, 'seeds': 1}
  beside = {'baselines/jpeg/bits': number(1.5), 'baselines/jpeg/psnr': number(19.0)}
  rows = [
    {
      'point': {'system': 'a', 'depth': 2},
      'numbers': {'bits': number(2.0), 'psnr': number(30.0, 1.5)},
    },
    {'point': {'system': 'a', 'depth': 1}, 'numbers': {'bits': number(1.0), 'psnr': number(25.0)}},
    {'point': {'system': 'b', 'depth': 1}, 'numbers': {'bits': number(1.5), **beside}},
  ]
  drawn = figure.figure({'rows': rows, 'question': '?'}, Axes('bits', 'system', ('psnr',)), {})
  (panel,) = drawn.axes
  lines = {line.get_label(): line.get_xydata().tolist() for line in panel.lines}
  (a,) = [c for c in panel.containers if c.get_label() == 'a']
  assert a.lines[0].get_xydata().tolist() == [[1.0, 25.0], [2.0, 30.0]]
  assert [segment.tolist() for segment in a.lines[2][0].get_segments()] == [
    [[1.0, 25.0], [1.0, 25.0]],
    [[2.0, 28.5], [2.0, 31.5]],
  ]
  assert lines['JPEG'] == [[1.5, 19.0]]
  assert not [c for c in panel.containers if c.get_label() == 'b']  # it has no such number


@pytest.mark.parametrize('module', [rotation, collapse, rate_distortion, network])
@pytest.mark.parametrize('size', ['small', 'gpu'])
def test_every_point_of_a_study_can_be_trained(module, size):
  from vqjax.data import make_transform
  from vqjax.training import recipe

  study = module.STUDY
  assert len({label(point) for point in study.points}) == len(study.points)
  assert study.axes.lines in study.points[0]
  for point in study.points:
    argument = ','.join(f'{name}={value}' for name, value in {**point, 'size': size}.items())
    config = module.get_config(argument)
    built = recipe.build(config, num_examples=240)
    built.tokenizer.check_size(config.data.image_size, config.data.image_size)
    make_transform(config.data, 'train')
    assert built.gan is None
    assert config.total_steps % config.log_every == 0


def test_bits_of_residual_levels_are_half_a_bit_each():
  for depth in (1, 8):
    config = rate_distortion.get_config(f'system=residual,depth={depth}')
    bits = depth * math.log2(config.quantizer.base.num_codes) / config.model.patch_size**2
    assert bits == depth / 2


def test_a_grid_changes_its_last_choice_fastest():
  points = grid(a=(1, 2), b=('x', 'y'))
  assert [label(point) for point in points] == ['1-x', '1-y', '2-x', '2-y']
