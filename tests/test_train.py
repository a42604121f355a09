"""The real loop, at a size that takes seconds; the commands are in test_commands.py."""

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import signal

import devices
import jax
import numpy as np
import pytest
from fake_experiment import MeanExperiment
from ml_collections import ConfigDict
from PIL import Image

import eval as evaluate_command
import train as train_command
from configs import rot_vqgan, rot_vqvae, vqtorch
from vqjax import sharding
from vqjax.errors import UserError
from vqjax.runs.folder import flatten, read_config, to_json
from vqjax.runs.lock import locked
from vqjax.training.tokenizer_experiment import TokenizerExperiment


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
  """Evaluation without LPIPS and Inception: seconds in place of a minute; see test_eval.py."""
  monkeypatch.setenv('VQJAX_CACHE', '/dev/null/cache')


def small(config):
  config.data.image_size = 16
  config.model.channels, config.model.num_blocks = 4, 1
  config.quantizer.num_codes, config.seed_codebook_batches = 16, 0
  config.batch_size, config.eval_images, config.sample_images = 16, 16, 4
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 1, 2, 2
  return config


def small_vqgan():
  config = small(rot_vqgan.get_config('demo'))
  config.gan.channels, config.gan.num_layers = 4, 1
  config.gan.start_percent = 50  # the discriminator's first step is the one after the checkpoint
  config.ema_decay = 0.9
  return config


def small_vqvae():
  return small(rot_vqvae.get_config('demo'))


def metrics(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [{k: v for k, v in json.loads(line).items() if k != 'images_per_second'} for line in lines]


def test_a_moving_average_that_is_too_slow_for_the_run_is_named(caplog):
  config = small_vqgan()
  for decay, warns in ((0.9, True), (0.3, False), (0.0, False)):
    config.ema_decay = decay
    caplog.clear()
    TokenizerExperiment(config, sharding.make_mesh(config.mesh))
    assert ('is 0.9, too near 1 for 4 steps: the averaged weights' in caplog.text) == warns
    assert ('still to 66% those of the start' in caplog.text) == warns


# First, while there are eight.
def test_a_batch_must_divide_over_the_devices(tmp_path):
  config = small_vqgan()
  config.batch_size = 12
  with pytest.raises(
    UserError, match=r'config.batch_size is 12; legal: a multiple of 8 devices, for'
  ):
    train_command.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module', params=[small_vqgan, small_vqvae], ids=['vqgan', 'vqvae'])
def run(request, tmp_path_factory):
  """An unbroken run: (config factory, folder). That of the VQGAN is on eight devices."""
  workdir = tmp_path_factory.mktemp('unbroken')
  compiled = logging.FileHandler(workdir / 'compiled.txt')
  with pytest.MonkeyPatch.context() as patch:
    if request.param is small_vqvae:
      devices.see_one(patch)
    with jax.log_compiles(), contextlib.closing(compiled):
      logging.getLogger('jax').addHandler(compiled)
      train_command.train(request.param(), workdir)
      logging.getLogger('jax').removeHandler(compiled)
    yield request.param, workdir


def test_a_run_leaves_what_it_promises(run):
  make, workdir = run
  lines = metrics(workdir)
  assert [line['step'] for line in lines if 'loss' in line] == [1, 2, 3, 4]
  assert [line['step'] for line in lines if 'eval/psnr' in line] == [2, 4]
  assert {'usage', 'perplexity', 'learning_rate', 'grad_norm', 'commitment'} <= set(lines[0])
  last = next(line for line in lines if line['step'] == 4 and 'loss' in line)
  assert ('gan_weight' in last) == (make is small_vqgan)
  picture = np.asarray(Image.open(workdir / 'samples' / 'held_out_00000004.png'))
  assert picture.shape == (2 * 16 + 2, 4 * 16 + 3 * 2, 3)
  assert list(workdir.glob('events.out.tfevents.*'))
  folder, config = read_config(workdir)
  assert flatten(config) == flatten(to_json(make()))
  assert sorted(int(p.name) for p in (folder / 'checkpoints').iterdir()) == [2, 4]


def test_every_stage_is_compiled_once(run):
  """A step that is compiled again stalls for the seconds or minutes that the first one took."""
  make, workdir = run
  found = re.findall(r'Finished XLA compilation of (\S+)', (workdir / 'compiled.txt').read_text())
  assert found.count('jit(train_step)') == (2 if make is small_vqgan else 1)
  assert found.count('jit(step)') == 1  # of the evaluation


def test_resuming_is_bit_for_bit(run, tmp_path):
  make, unbroken = run
  broken = tmp_path / 'broken'
  shutil.copytree(unbroken, broken)
  shutil.rmtree(broken / 'checkpoints' / '4')  # as if the run had died before its end
  train_command.train(make(), broken)
  assert metrics(broken) == metrics(unbroken)
  pictures = [folder / 'samples' / 'held_out_00000004.png' for folder in (broken, unbroken)]
  assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_a_finished_run_stays_as_it_is(run):
  make, workdir = run
  before = metrics(workdir)
  train_command.train(make(), workdir)
  assert metrics(workdir) == before


def test_evaluation_writes_numbers_picture_and_page(run):
  make, workdir = run
  numbers = evaluate_command.evaluate(make(), workdir, step=4)
  written = json.loads((workdir / 'eval' / 'metrics.json').read_text())
  assert {k: written[k] for k in numbers} == numbers
  assert numbers['step'] == 4
  assert numbers['num_images'] == 54
  for name in ('psnr', 'ssim', 'usage', 'perplexity', 'rec_loss'):
    assert isinstance(numbers[name], float)
    assert written['protocol']['metrics'][name]
  for name, command in (
    ('rfid', 'inception'),
    ('inception_score', 'inception'),
    ('lpips', 'lpips'),
  ):
    assert numbers[name] is None
    assert f'python -m vqjax.weights {command}' in written['protocol']['metrics'][name]
  page = (workdir / 'eval' / 'report.html').read_text()
  assert 'data:image/png;base64,' in page
  assert f'{numbers["psnr"]:.4f}' in page
  assert 'src="http' not in page
  beside = written['baselines']
  for name in ('psnr', 'ssim', 'bits_per_pixel'):
    np.testing.assert_allclose(beside['run'][name], numbers[name], rtol=1e-9)
  np.testing.assert_allclose(beside['mean_color']['psnr'], numbers['psnr_mean_color'], rtol=1e-5)
  for name in ('jpeg', 'kmeans_patches'):
    assert beside[name]['bits_per_pixel'] <= numbers['bits_per_pixel']
    assert beside[name]['psnr'] > numbers['psnr_mean_color']
  assert 'needs' in beside['webp']['reason']  # of 16 pixels
  assert beside['kmeans_patches']['setting'].endswith(' pixels, 16 codes')
  # The held-out numbers of the loop are those of the first 16 images.
  options = {'step': 4, 'num_images': 16, 'baselines': False}
  first = evaluate_command.evaluate(make(), workdir, **options)
  assert 'baselines' not in json.loads((workdir / 'eval' / 'metrics.json').read_text())
  line = next(m for m in metrics(workdir) if m['step'] == 4 and 'eval/psnr' in m)
  for name in ('psnr', 'ssim', 'usage', 'perplexity', 'rec_loss'):
    np.testing.assert_allclose(first[name], line[f'eval/{name}'], rtol=1e-6)


@pytest.mark.usefixtures('one_device')
def test_a_classifier_is_trained_and_evaluated_without_pictures(tmp_path):
  config = vqtorch.get_config('demo,task=classifier,step=baseline')
  config.batch_size, config.eval_images = 64, 64
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 1, 2, 2
  train_command.train(config, tmp_path)
  lines = metrics(tmp_path)
  assert {'cross_entropy', 'accuracy', 'commitment'} <= set(lines[0])
  seen = {line['step']: line['eval/accuracy'] for line in lines if 'eval/accuracy' in line}
  assert set(seen) == {2, 4}
  assert not any('eval/psnr' in line for line in lines)
  assert not list((tmp_path / 'samples').iterdir())
  numbers = evaluate_command.evaluate(config, tmp_path)
  assert numbers['step'] == (2 if seen[2] > seen[4] else 4)  # the best by accuracy
  assert 0 < numbers['accuracy'] < 1
  assert 'psnr' not in numbers
  assert 'baselines' not in json.loads((tmp_path / 'eval' / 'metrics.json').read_text())
  assert 'accuracy' in (tmp_path / 'eval' / 'report.html').read_text()
  assert not (tmp_path / 'eval' / 'reconstructions.png').exists()


@pytest.mark.parametrize('run', [small_vqvae], ids=['vqvae'], indirect=True)
def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path):
  make, unbroken = run
  workdir = tmp_path / 'run'
  shutil.copytree(unbroken, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '4')
  config = make()
  config.optimizer.learning_rate = float('inf')
  with pytest.raises(UserError, match=r'step [34]: .* not finite; training stopped and the last'):
    train_command.train(config, workdir, allow_config_change=True)
  assert [p.name for p in (workdir / 'checkpoints').iterdir()] == ['2']
  train_command.train(make(), workdir, allow_config_change=True)
  assert metrics(workdir)[-1]['step'] == 4


def test_another_config_is_refused(run):
  make, workdir = run
  config = make()
  config.quantizer.num_codes = 32
  with pytest.raises(UserError, match=r'another config \(quantizer.num_codes: 16 there, 32 now\)'):
    train_command.train(config, workdir)
  with pytest.raises(UserError, match=r'quantizer/codebook'):
    train_command.train(config, workdir, allow_config_change=True)
  train_command.train(make(), workdir, allow_config_change=True)


@pytest.mark.usefixtures('one_device')
def test_unreadable_images_are_skipped_named_and_training_goes_on(tmp_path, caplog):
  rng = np.random.default_rng(0)
  for split in ('train', 'val'):
    (tmp_path / 'images' / split).mkdir(parents=True)
    for i in range(8):
      pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'images' / split / f'{i}.png')
  (tmp_path / 'images' / 'train' / '3.png').write_bytes(b'not an image')
  whole = (tmp_path / 'images' / 'val' / '5.png').read_bytes()
  (tmp_path / 'images' / 'val' / '5.png').write_bytes(whole[:1000])
  config = small_vqvae()
  config.data.source, config.data.path = 'folder', str(tmp_path / 'images')
  config.total_steps = 2
  found = train_command.train(config, tmp_path / 'run')
  assert found['num_images'] == 7
  assert 'skipped unreadable image 3.png' in caplog.text
  assert 'skipped unreadable image 5.png' in caplog.text


QUANTIZERS = {
  'residual': {
    'name': 'residual',
    'depth': 2,
    'base': {
      'num_codes': 16,
      'estimator': {'name': 'sync', 'base': 'rotation', 'nu': 0.5},
      'transform': 'affine',
      'replacement': {'name': 'least_recent', 'timeout': 1},
      'regularizers': [{'name': 'entropy', 'weight': 0.1}],
    },
  },
  'fsq': {'name': 'fsq', 'levels': (5, 5, 5)},
}


@pytest.mark.usefixtures('one_device')
@pytest.mark.parametrize('name', QUANTIZERS)
def test_any_quantizer_trains_seeds_resumes_and_is_evaluated(name, tmp_path):
  config = small(rot_vqvae.get_config('demo'))
  config.quantizer = ConfigDict(QUANTIZERS[name])
  config.model.code_dim, config.model.head = 3, 'linear'
  config.model.unit_latents = False
  config.accumulate = 1
  config.seed_codebook_batches = 0 if name == 'fsq' else 2
  train_command.train(config, tmp_path / 'whole')
  whole = metrics(tmp_path / 'whole')
  assert all(np.isfinite(list(line.values())).all() for line in whole)
  assert ('dead' in whole[0]) == (name != 'fsq')
  assert ('entropy' in whole[0]) == (name != 'fsq')
  if name != 'fsq':
    # Interrupted and gone on with, it is the same run: seeding happens once, at the start.
    shutil.rmtree(tmp_path / 'whole' / 'checkpoints' / '4')
    train_command.train(config, tmp_path / 'whole')
    assert metrics(tmp_path / 'whole')[-1] == whole[-1]

  numbers = evaluate_command.evaluate(config, tmp_path / 'whole', baselines=False)
  assert 0 < numbers['usage'] <= 1
  report = (tmp_path / 'whole' / 'eval' / 'report.html').read_text()
  # All alike, or tokenizers of several kinds could not be compared.
  assert 'each the nearest code, by search or by rounding' in report


@pytest.mark.parametrize(
  ('quantizer', 'batches', 'message'),
  [
    ({'name': 'fsq', 'levels': (8,) * 8}, 0, r'has 16777216 codes a token; legal: at most 2\^22'),
    ({'name': 'fsq', 'levels': (5, 5, 5)}, 2, r'seed_codebook_batches is 2, but FSQ has no codeb'),
    ({'num_codes': 16}, -1, r'config\.seed_codebook_batches is -1; legal: 0'),
    ({'name': 'fsk'}, 0, r"config\.quantizer: name is 'fsk'; legal: vector, grouped"),
  ],
)
def test_a_quantizer_that_cannot_be_trained_is_named(quantizer, batches, message, tmp_path):
  config = small_vqvae()
  config.quantizer = ConfigDict(quantizer)
  config.seed_codebook_batches = batches
  with pytest.raises(UserError, match=message):
    train_command.train(config, tmp_path)


def test_an_image_size_that_is_no_number_of_tokens_is_refused_at_once(tmp_path):
  config = small_vqgan()
  config.data.image_size = 17
  with pytest.raises(UserError, match=r'data.image_size is 17; legal: multiples of 2, .* 16'):
    train_command.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_anything_that_is_an_experiment_can_be_trained(tmp_path, caplog):
  caplog.set_level('INFO', 'vqjax')
  config = small_vqvae()
  found = train_command.train(config, tmp_path / 'whole', experiment=MeanExperiment)
  assert found == {'accuracy': 0.25}
  assert 'step 4: 3 held-out images, accuracy 25.0%' in caplog.messages
  whole = metrics(tmp_path / 'whole')
  assert [line['step'] for line in whole if 'loss' in line] == [1, 2, 3, 4]
  assert np.asarray(Image.open(tmp_path / 'whole/samples/drawn_00000004.png')).shape == (4, 6, 3)
  shutil.rmtree(tmp_path / 'whole' / 'checkpoints' / '4')
  train_command.train(config, tmp_path / 'whole', experiment=MeanExperiment)
  assert metrics(tmp_path / 'whole') == whole


def test_what_is_logged_is_of_the_same_steps_in_a_run_that_goes_on(tmp_path):
  config = small_vqvae()
  config.total_steps, config.log_every, config.checkpoint_every = 9, 4, 5
  train = functools.partial(
    train_command.train, config, tmp_path / 'run', experiment=MeanExperiment
  )
  train()
  whole = metrics(tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '9')
  train()
  assert metrics(tmp_path / 'run') == whole
  assert [line['step'] for line in whole if 'loss' in line] == [1, 4, 5, 8, 9]


@pytest.fixture(params=[signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def number(request):
  """A signal that is not ignored, as SIGINT is in the background of a script."""
  before = signal.signal(request.param, signal.default_int_handler)
  yield request.param
  signal.signal(request.param, before)


def test_a_signal_ends_a_run_behind_a_saved_step(number, tmp_path, caplog):
  """It goes on from there to the same end; SIGINT is Ctrl-C all the same."""
  caplog.set_level('INFO', 'vqjax')

  class Signalled(MeanExperiment):
    def step(self, state, batch, step):
      if step == 3:
        os.kill(os.getpid(), number)
      return super().step(state, batch, step)

  config = small_vqvae()
  config.eval_every = config.checkpoint_every = 4
  train = functools.partial(train_command.train, config)
  ends = contextlib.nullcontext()
  with pytest.raises(KeyboardInterrupt) if number == signal.SIGINT else ends:
    train(tmp_path / 'cut', experiment=Signalled)
  assert f'{number.name}: saved step 3; the same command goes on from there' in caplog.messages
  assert sorted(path.name for path in (tmp_path / 'cut/checkpoints').iterdir()) == ['3']
  train(tmp_path / 'cut', experiment=MeanExperiment)
  assert f'going on from step 3 of {tmp_path}/cut/checkpoints' in caplog.messages
  train(tmp_path / 'whole', experiment=MeanExperiment)
  assert metrics(tmp_path / 'cut')[-2:] == metrics(tmp_path / 'whole')[-2:]


def test_the_clock_saves_beside_the_steps_for_that(tmp_path):
  """A crash costs minutes; the checkpoint that was ranked stays."""

  class Crashes(MeanExperiment):
    def step(self, state, batch, step):
      if step == 7:
        raise RuntimeError
      return super().step(state, batch, step)

  config = small_vqvae()
  config.total_steps, config.checkpoint_every, config.keep_checkpoints = 8, 4, 1
  train_command.train(config, tmp_path / 'whole', experiment=MeanExperiment)
  saved = lambda name: sorted(path.name for path in (tmp_path / name / 'checkpoints').iterdir())
  assert saved('whole') == ['8']
  config.checkpoint_minutes = 1e-9
  with pytest.raises(RuntimeError):
    train_command.train(config, tmp_path / 'cut', experiment=Crashes)
  assert saved('cut') == ['4', '6']
  train_command.train(config, tmp_path / 'cut', experiment=MeanExperiment)
  assert metrics(tmp_path / 'cut') == metrics(tmp_path / 'whole')


def test_two_runs_in_one_folder_are_refused(tmp_path):
  with (
    locked(tmp_path, '--workdir'),
    pytest.raises(UserError, match=rf'in use by process {os.getpid()} on .*--workdir='),
  ):
    train_command.train(small_vqvae(), tmp_path, experiment=MeanExperiment)
  train_command.train(small_vqvae(), tmp_path, experiment=MeanExperiment)
