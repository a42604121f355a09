"""The toy in the plane draws its pictures; collapse and its cures are what they are said to be."""

import itertools

import numpy as np
import pytest
from PIL import Image

from examples import toy_2d

BASELINE = 'nearest\nstraight-through'
CURES = (
  'nearest\nsync + running affine',
  'Sinkhorn\nstraight-through',
  'nearest\n+ replacement',
  'nearest\n+ k-means start',
)


@pytest.fixture(scope='module')
def runs():
  return toy_2d.simulate_all(1000)


def test_the_baseline_collapses_and_the_cures_do_not(runs):
  usage = {name: run.nearest_used(-1).mean() for name, run in runs.items()}
  assert usage[BASELINE] < 0.25
  assert usage[BASELINE] < usage['nearest\nrotation'] < 0.5  # helps, is no cure
  assert usage['nearest\nalternating'] < 0.25
  assert 2 * usage[BASELINE] < usage['nearest\nsync + affine'] < 0.95
  for name in CURES:
    assert usage[name] >= 0.95, name
    assert runs[name].used(-1).mean() >= 0.95, name
    assert runs[name].error(-1) < 0.5 * runs[BASELINE].error(-1), name


def test_an_unused_code_of_the_baseline_stays_where_it_started(runs):
  run = runs[BASELINE]
  taken = np.array([run.used(t) for t in range(len(run.codes))]).any(axis=0)
  assert 0 < (~taken).sum() < toy_2d.CODES
  np.testing.assert_array_equal(run.codes[-1][~taken], run.codes[0][~taken])


def test_features_move_to_their_targets(runs):
  start, targets = toy_2d.data()
  for name, run in runs.items():
    np.testing.assert_array_equal(run.features[0], start, err_msg=name)
    if 'rotation' not in name:  # its gradient is turned and scaled by each feature's code
      np.testing.assert_allclose(run.features[-1], targets, atol=1e-3, err_msg=name)


def test_alternating_takes_the_path_of_the_baseline(runs):
  alternating = runs['nearest\nalternating']
  np.testing.assert_allclose(alternating.codes[-1], runs[BASELINE].codes[-1], atol=1e-3)


@pytest.mark.parametrize(('steps', 'frames'), [(1000, 40), (39, 40), (12, 5), (2, 3)])
def test_frames_are_all_different_and_reach_both_ends(steps, frames):
  shown = toy_2d.frame_steps(steps, frames)
  assert len(shown) == frames
  assert (shown[0], shown[-1]) == (0, steps)
  assert all(a < b for a, b in itertools.pairwise(shown))


def test_the_script_draws_what_it_says(tmp_path, capsys):
  out = tmp_path / 'made' / 'here'
  toy_2d.main([f'--out={out}', '--steps=20', '--frames=4'])
  assert sorted(path.name for path in out.iterdir()) == ['still.png', 'toy.gif']
  with Image.open(out / 'toy.gif') as gif:
    assert gif.n_frames == 4
    assert gif.info['loop'] == 0
    durations = []
    for frame in range(4):
      gif.seek(frame)
      durations.append(gif.info['duration'])
    assert durations == [120, 120, 120, 2000]
  with Image.open(out / 'still.png') as still:
    assert still.width > 1000
    assert len(still.getcolors()) > 10  # not a blank page
  table = capsys.readouterr().out.splitlines()
  assert len(table) == 1 + len(toy_2d.methods())
  assert table[1].startswith('nearest, straight-through')


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--frames=2', '--frames is 2; legal: at least 3.'),
    ('--steps=38', '--steps is 38; legal: at least 39, one a frame.'),
  ],
)
def test_too_little_to_draw_is_refused(argument, message, tmp_path, capsys):
  with pytest.raises(SystemExit):
    toy_2d.main([f'--out={tmp_path}', argument])
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
