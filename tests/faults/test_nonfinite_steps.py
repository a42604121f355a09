"""Steps whose losses are not finite, of NaN pixels, and runs that go on without them."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest
from fake_experiment import MeanExperiment
from ml_collections import ConfigDict

import train as train_command
from configs import rot_vqgan, rot_vqvae
from vqjax import sharding
from vqjax.errors import UserError
from vqjax.training.tokenizer_experiment import TokenizerExperiment


def small(module):
  """Everything that can move: a discriminator from the start, averages, codes, micro-batches."""
  config = module.get_config('demo')
  config.data.image_size = 16
  config.model.channels, config.model.num_blocks = 4, 1
  config.quantizer.num_codes, config.seed_codebook_batches = 16, 0
  config.batch_size, config.eval_images, config.sample_images = 16, 16, 4
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = 8, 2, 4, 4
  config.on_nonfinite = 'skip'
  return config


def adversarial():
  config = small(rot_vqgan)
  config.gan.channels, config.gan.num_layers = 4, 1
  config.gan.start_percent, config.gan.lecam = 0, 0.1
  config.ema_decay, config.accumulate = 0.5, 2
  config.quantizer = ConfigDict({'num_codes': 16, 'learner': 'ema'})
  return config


def alternating():
  config = small(rot_vqvae)
  replacement = {'name': 'least_recent', 'timeout': 1}
  learner = {'name': 'alternating', 'learning_rate': 0.1}
  config.quantizer = ConfigDict({'num_codes': 16, 'learner': learner, 'replacement': replacement})
  return config


def leaves(state):
  """On the host, by path, without the counter."""
  state = state.replace(step=None, rng=jax.random.key_data(state.rng))
  found = jax.device_get(jax.tree_util.tree_leaves_with_path(state))
  return {jax.tree_util.keystr(path): leaf for path, leaf in found}


def steps(config, mesh, bad):
  """Trains on the first four batches as floats, some with a NaN: (states, reports)."""
  experiment = TokenizerExperiment(config, mesh)
  state = experiment.start()
  states, reports = [leaves(state)], []
  with contextlib.closing(experiment.batches(0)) as batches:
    for step in range(1, 5):
      batch = next(batches)
      batch['image'] = batch['image'].astype(np.float32) / 255
      if step in bad:
        batch['image'][3, 2, 1, 0] = np.nan
      state, reported = experiment.step(state, batch, step)
      assert state.step == step
      states.append(leaves(state))
      reports.append(jax.device_get(reported))
  return states, reports


def metrics(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [{k: v for k, v in line.items() if k != 'images_per_second'} for line in lines]


@pytest.mark.parametrize(('make', 'device_counts'), [(adversarial, (1, 8)), (alternating, (8,))])
def test_a_skipped_step_leaves_every_bit_but_the_counter(make, device_counts):
  ends = []
  for count in device_counts:
    fsdp = 2 if count > 1 else 1
    mesh = sharding.make_mesh({'data': -1, 'fsdp': fsdp}, jax.devices()[:count])
    states, reports = steps(make(), mesh, bad={2, 3})
    for step, report in enumerate(reports, 1):
      terms = [value for name, value in report.items() if name != 'code_counts']
      moved = [n for n, x in states[step].items() if not np.array_equal(x, states[step - 1][n])]
      assert np.isfinite(terms).all() == (step in (1, 4))
      assert (report['code_counts'].sum() > 0) == (step in (1, 4))
      assert bool(moved) == (step in (1, 4)), moved
      assert all(np.isfinite(x).all() for x in states[step].values())
    ends.append(states[-1])
  parts = ['generator.params', 'generator.opt_state', "['vq']"]
  parts += ['ema', 'discriminator.params', 'lecam'] * (make is adversarial)
  for part in parts:
    assert any(part in name for name in moved), part
  for name, leaf in ends[0].items():
    np.testing.assert_allclose(ends[-1][name], leaf, rtol=1e-2, atol=2e-3, err_msg=name)


@pytest.mark.usefixtures('one_device')
def test_where_all_is_finite_nothing_is_different():
  config = alternating()
  mesh = sharding.make_mesh(config.mesh)
  guarded, _ = steps(config, mesh, bad={})
  config.on_nonfinite = 'stop'
  plain, _ = steps(config, mesh, bad={})
  for name, leaf in plain[-1].items():
    np.testing.assert_allclose(guarded[-1][name], leaf, rtol=1e-4, atol=1e-5, err_msg=name)


class Bad(MeanExperiment):
  """Steps 2, 3 and 7 are not finite, and leave the state as it was."""

  def step(self, state, batch, step):
    before = dict(state)
    state, reported = super().step(state, batch, step)
    if step in (2, 3, 7):
      return before, {name: np.float32('nan') for name in reported}
    return state, reported


def test_skipped_steps_are_named_and_counted_over_a_resume(tmp_path, caplog):
  config = small(rot_vqvae)
  config.log_every, config.max_nonfinite_steps = 1, 3
  train_command.train(config, tmp_path / 'whole', experiment=Bad)
  counted = [line for line in caplog.messages if 'not finite and skipped' in line]
  assert [line.split(':')[0] for line in counted] == ['step 2', 'step 3', 'step 7']
  names = ', '.join(f'number {n}' for n in range(6 * 16, 7 * 16))
  assert counted[-1].endswith(f'skipped, 3 so far of 3; its examples: {names}')
  lines = metrics(tmp_path / 'whole')
  assert all(np.isfinite(list(line.values())).all() for line in lines)
  assert [line['step'] for line in lines if 'loss' in line] == [1, 4, 5, 6, 8]

  shutil.copytree(tmp_path / 'whole', tmp_path / 'cut')
  shutil.rmtree(tmp_path / 'cut' / 'checkpoints' / '8')
  config.max_nonfinite_steps = 2
  with pytest.raises(UserError, match=r'^step 7: accuracy, loss not finite, beyond .*_steps=2;'):
    train_command.train(config, tmp_path / 'cut', experiment=Bad)
  config.max_nonfinite_steps = 3
  caplog.clear()
  train_command.train(config, tmp_path / 'cut', experiment=Bad)
  assert 'skipped, 3 so far of 3' in caplog.text
  assert metrics(tmp_path / 'cut') == lines


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('on_nonfinite', 'ignore', r"config\.on_nonfinite is 'ignore'; legal: stop, skip"),
    ('max_nonfinite_steps', -1, r'config\.max_nonfinite_steps is -1; legal: 1 or more'),
  ],
)
def test_fields_that_are_not_legal(field, value, message, tmp_path):
  config = small(rot_vqvae)
  config[field] = value
  with pytest.raises(UserError, match=message):
    train_command.train(config, tmp_path / 'run', experiment=MeanExperiment)
  assert not (tmp_path / 'run').exists()
