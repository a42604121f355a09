"""Generators through the real loop, on tokens of a published tokenizer: 16 an image, 64 codes."""

import json
import shutil

import devices
import jax
import numpy as np
import pytest
from golden_data import checkpoint
from PIL import Image

import train as train_command
import vqjax
from configs import halton_maskgit, llamagen_gpt, maskgit_transformer, rar
from vqjax.errors import UserError
from vqjax.runs.folder import read_config
from vqjax.tokenize import tokenize

TOKENIZER = 'vitvq_rot_small_a'


def small(make, **fields):
  """A run of four steps that is looked at and saved at the second and the last."""
  config = make.get_config('demo')
  config.tokenizer = str(checkpoint(TOKENIZER)[0])
  config.data.image_size = 32
  network = config.generator
  network.width, network.depth, network.heads = 16, 1, 2
  if 'mlp_width' in network:
    network.mlp_width = 16
  if 'steps' in config.sampler:
    config.sampler.steps = 4
  config.batch_size, config.eval_images, config.sample_images = 16, 20, 20
  config.total_steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 1, 2, 2
  config.ema_decay = 0.5
  config.update(fields)
  return config


def metrics(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  paces = ('images_per_second', 'tokens_per_second')
  return [{k: v for k, v in json.loads(line).items() if k not in paces} for line in lines]


# First, while there are eight.
def test_a_batch_must_divide_over_the_devices(tmp_path):
  with pytest.raises(UserError, match=r'config.batch_size is 12; legal: a multiple of 8 devices'):
    train_command.train(small(halton_maskgit, batch_size=12), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
  """A folder of tokens of 100 digits, each with its mirror image."""
  out = tmp_path_factory.mktemp('tokens') / 'digits'
  tok = vqjax.load(checkpoint(TOKENIZER)[0])
  tokenize(tok, small(halton_maskgit).data, out, batch_size=40, num_images=100, augment='flip')
  return out


def from_folder(tokens):
  config = small(llamagen_gpt)
  config.tokenizer, config.tokens.path, config.tokens.holdout = '', str(tokens), 0.2
  return config


# On eight devices, from images; on one, from a folder.
@pytest.fixture(scope='module', params=['images', 'folder'])
def run(request, tokens, tmp_path_factory):
  """An unbroken run: (function that makes its config, folder)."""
  workdir = tmp_path_factory.mktemp('unbroken')
  make = {
    'images': lambda: small(halton_maskgit),
    'folder': lambda: from_folder(tokens),
  }[request.param]
  with pytest.MonkeyPatch.context() as patch:
    if request.param == 'folder':
      devices.see_one(patch)
    train_command.train(make(), workdir)
    yield make, workdir


def test_a_run_leaves_what_it_promises(run):
  _, workdir = run
  lines = metrics(workdir)
  assert [line['step'] for line in lines if 'loss' in line] == [1, 2, 3, 4]
  assert {'loss', 'token_accuracy', 'grad_norm', 'learning_rate'} < set(lines[0])
  looks = {line['step']: line for line in lines if 'eval/token_loss' in line}
  assert set(looks) == {2, 4}
  assert looks[4]['eval/num_images'] == 20
  assert 0 <= looks[4]['eval/token_accuracy'] <= 1
  picture = np.asarray(Image.open(workdir / 'samples/samples_00000004.png'))
  assert picture.shape == (2 * 32 + 2, 10 * 32 + 9 * 2, 3)  # a column for each class
  _, config = read_config(workdir)
  tok = vqjax.load(checkpoint(TOKENIZER)[0])
  assert config.tokens.weights_sha256 == tok.weights_sha256
  assert (tuple(config.tokens.shape), config.tokens.num_codes) == ((4, 4), 64)
  assert config.tokenizer == str(checkpoint(TOKENIZER)[0])
  assert list(config.class_names) == list('0123456789')


def test_resuming_is_bit_for_bit(run, tmp_path):
  make, unbroken = run
  broken = tmp_path / 'broken'
  shutil.copytree(unbroken, broken)
  shutil.rmtree(broken / 'checkpoints' / '4')
  train_command.train(make(), broken)
  assert metrics(broken) == metrics(unbroken)
  pictures = [folder / 'samples/samples_00000004.png' for folder in (broken, unbroken)]
  assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.parametrize('run', ['images'], indirect=True)
@pytest.mark.usefixtures('one_device')
def test_one_device_does_what_eight_do(run, tmp_path):
  make, eight = run
  train_command.train(make(), tmp_path)
  for mine, theirs in zip(metrics(tmp_path), metrics(eight), strict=True):
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
      np.testing.assert_allclose(mine[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures('one_device')
def test_numbers_of_a_look_do_not_depend_on_the_batch(tmp_path):
  for batch_size in (4, 5):
    config = small(halton_maskgit, batch_size=batch_size, total_steps=2)
    config.optimizer.learning_rate = 0.0
    config.sample_images = 0
    found = train_command.train(config, tmp_path / str(batch_size))
    assert found['num_images'] == 20
    if batch_size == 4:
      first = found
  for name in ('token_loss', 'token_accuracy'):
    np.testing.assert_allclose(first[name], found[name], rtol=1e-5)


@pytest.mark.usefixtures('one_device')
@pytest.mark.parametrize('make', [rar, maskgit_transformer], ids=['rar', 'maskgit'])
def test_the_other_networks_train_too(make, tmp_path):
  config = small(make, accumulate=2, total_steps=2, on_nonfinite='skip')
  found = train_command.train(config, tmp_path)
  assert np.isfinite(found['token_loss'])
  assert all(np.isfinite(list(line.values())).all() for line in metrics(tmp_path))


@pytest.mark.usefixtures('one_device')
def test_without_classes_in_two_digits(tmp_path):
  config = small(llamagen_gpt, total_steps=2)
  config.generator.num_classes, config.generator.digits = 0, 2
  config.generator.dtype = 'bfloat16'
  config.sampler.guidance = 1.0
  with jax.numpy_dtype_promotion('standard'):  # flax's normalisation mixes dtypes in bfloat16
    found = train_command.train(config, tmp_path)
  assert 0 < found['token_loss'] < 2 * np.log(8)  # a symbol is one of 8


def test_the_command_says_what_is_next(tmp_path, monkeypatch, caplog):
  devices.see_one(monkeypatch)
  caplog.set_level('INFO', 'vqjax')
  train_command.train(small(halton_maskgit, total_steps=1), tmp_path)
  assert caplog.messages[-1] == (
    f'next: python -m vqjax.generate {tmp_path} --out={tmp_path}/generated --num_images=100'
  )


@pytest.fixture(scope='module')
def other_weights(tokens, tmp_path_factory):
  out = tmp_path_factory.mktemp('other') / 'tokens'
  shutil.copytree(tokens, out)
  index = json.loads((out / 'index.json').read_text())
  (out / 'index.json').write_text(json.dumps({**index, 'weights_sha256': 'f' * 64}))
  return out


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'tokenizer': ''}, r"config.tokenizer is ''; name what images are tokenized by"),
    ({'tokenizer': 'nowhere.pt'}, r'config.tokenizer=nowhere.pt cannot be loaded: '),
    ({'data.image_size': 33}, r'images are 33x33 pixels; legal: sides that are multiples of 8'),
    ({'generator.network': 'gpt'}, r"generator.network is 'gpt'; legal: llamagen, rar, halton"),
    ({'generator.digits': 5}, r'generator.digits is 5, but 64 codes .* legal: 1, 2, 3, 6'),
    (
      {'generator.num_classes': 9},
      r'num_classes is 9, but the data has 10; set --config.generator.num_classes=10, or 0 for no',
    ),
    ({'generator.num_classes': -1}, r'num_classes is -1; legal: 0, for none, or more'),
    ({'generator.dtype': 'float16'}, r"generator.dtype is 'float16'; legal: float32, bfloat16"),
    ({'sampler.steps': 17}, r'steps is 17; legal: 1..16'),
    ({'objective.name': 'causal'}, r"objective.name is 'causal'; legal with .*: halton, maskgit"),
    ({'objective.label_drop': 1.0}, r'objective.label_drop is 1.0; legal: 0 \(none\) to below 1'),
    ({'objective.schedule': 'sine'}, r"schedule is 'sine'; legal: arccos"),
    ({'seed': -1}, r'config.seed is -1; legal: 0 or more'),
    ({'total_steps': None}, r'config has no length; set total_steps'),
  ],
  ids=str,
)
def test_what_cannot_be_trained_is_named(change, message, tmp_path):
  config = small(halton_maskgit)
  for name, value in change.items():
    if value is None:
      del config[name]
    else:
      config.update_from_flattened_dict({name: value})
  with pytest.raises(UserError, match=message):
    train_command.train(config, tmp_path / 'run')


def test_a_folder_without_classes_trains_without_labels(tmp_path):
  for name in 'ab':
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f'{name}.png')
  config = small(halton_maskgit)
  config.data.source, config.data.path = 'folder', str(tmp_path)
  with pytest.raises(
    UserError, match=r'but the data has 0; set --config.generator.num_classes=0.$'
  ):
    train_command.train(config, tmp_path / 'run')


def test_labels_of_tokens_that_do_not_say_their_classes_are_looked_at(tokens, tmp_path):
  old = tmp_path / 'old'
  shutil.copytree(tokens, old)
  index = json.loads((old / 'index.json').read_text())
  assert index.pop('class_names') == list('0123456789')
  (old / 'index.json').write_text(json.dumps(index))
  config = small(halton_maskgit)
  config.tokens.path, config.generator.num_classes = str(old), 9
  with pytest.raises(
    UserError, match=r'an image has the label 9, but config.generator.num_classes'
  ):
    train_command.train(config, tmp_path / 'run')
  assert config.class_names == ()


def test_a_label_is_dropped_to_a_null_class_alone(tmp_path):
  config = small(maskgit_transformer)
  config.objective.label_drop = 0.1
  with pytest.raises(UserError, match=r"label_drop is 0.1, but the network 'maskgit' has no null"):
    train_command.train(config, tmp_path)


def test_tokens_of_another_tokenizer_are_refused(other_weights, tmp_path):
  config = small(halton_maskgit)
  config.tokens.path = str(other_weights)
  with pytest.raises(
    UserError, match=r'written by .* with other weights than those of config.token'
  ):
    train_command.train(config, tmp_path)
