"""A loaded generator in use."""

import json

import jax
import numpy as np
import pytest
import tiny_generator
from golden_data import CHECKPOINTS, checkpoint

import vqjax
from vqjax import generator, pretrained
from vqjax.errors import UserError

TOKENIZER = checkpoint(next(name for name in CHECKPOINTS if name.startswith('vitvq')))[0]
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.fixture(scope='module')
def tok():
  return vqjax.load(TOKENIZER)


@pytest.fixture(scope='module')
def run(tok, tmp_path_factory):
  return tiny_generator.write_run(
    tmp_path_factory.mktemp('runs') / 'run', tiny_generator.config_of(tok, image_size=32)
  )


@pytest.fixture(scope='module')
def gen(run):
  return vqjax.load_generator(run)


def test_a_run_is_loaded_with_the_tokenizer_that_it_names(gen, run):
  assert (gen.source, gen.step, gen.num_classes) == (str(run), 0, 3)
  assert gen.tokenizer.source == str(TOKENIZER)
  assert gen.sampler.guidance == 2
  assert gen.model.layout.grid == (4, 4)
  images = gen.sample(LABELS, key=0)
  assert (images.shape, images.dtype) == ((5, 32, 32, 3), np.uint8)
  tokens = gen.tokens(LABELS, key=jax.random.key(0))
  assert (tokens.shape, tokens.dtype) == ((5, 4, 4), np.int32)
  np.testing.assert_array_equal(gen.decode(tokens), images)
  np.testing.assert_array_equal(gen.tokens(LABELS, key=jax.random.PRNGKey(0)), tokens)
  assert (np.asarray(gen.tokens(LABELS, key=1)) != tokens).any()


def test_an_image_depends_on_key_number_and_label_alone(gen):
  tokens = np.asarray(gen.tokens(LABELS, key=3))
  for first, count in ((0, 1), (3, 2), (1, 4)):
    part = gen.tokens(LABELS[first : first + count], key=3, first=first)
    np.testing.assert_array_equal(part, tokens[first : first + count])
  # The number counts, not the place, and so does the class.
  assert (np.asarray(gen.tokens(LABELS[:4], key=3, first=1)) != tokens[:4]).any()
  assert (np.asarray(gen.tokens([2], key=3))[0] != tokens[0]).any()


def test_one_device_gives_what_eight_give(run, gen, monkeypatch):
  assert len(jax.local_devices()) == 8
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:1])
  alone = vqjax.load_generator(run)
  assert alone.tokenizer.everywhere[0].size == 1
  monkeypatch.undo()
  np.testing.assert_array_equal(alone.tokens(LABELS, key=3), gen.tokens(LABELS, key=3))


def test_a_smaller_batch_is_not_compiled(gen):
  before = generator.draw._cache_size()
  gen.tokens(np.zeros(16, int), key=0, steps=3)
  gen.tokens(np.zeros(9, int), key=0, steps=3)
  assert generator.draw._cache_size() == before + 1


def test_settings_are_of_one_call(gen):
  plain = gen.tokens(LABELS, key=0, guidance=1.0)
  assert (np.asarray(plain) != gen.tokens(LABELS, key=0)).any()
  np.testing.assert_array_equal(plain, gen.tokens(LABELS, key=0, guidance=0.0))
  assert gen.sampler.guidance == 2


def test_a_call_does_not_choose_another_sampler(gen):
  with pytest.raises(
    UserError,
    match=r"name is 'maskgit', but a call cannot .*, 'halton' here; legal: guidance, steps\.",
  ):
    gen.sample(LABELS, key=0, name='maskgit')


def test_without_labels_the_null_class_is_drawn(gen):
  none = gen.tokens(key=0, count=3)
  np.testing.assert_array_equal(none, gen.tokens(np.full(3, 3), key=0))


def test_an_unconditional_generator(tok, tmp_path):
  config = tiny_generator.config_of(tok, num_classes=0)
  gen = vqjax.load_generator(tiny_generator.write_run(tmp_path / 'run', config))
  assert gen.sample(key=0, count=3, guidance=0.0).shape == (3, 16, 16, 3)
  with pytest.raises(UserError, match=r'labels are from 0 to 1; legal: 0, as there are no classes'):
    gen.tokens([0, 1], key=0)
  with pytest.raises(UserError, match=r"class '1' is unknown .*; legal: none, as it knows none"):
    gen.class_number('1')


def test_what_is_not_masked_stays(gen, tok):
  images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
  mask = np.zeros((32, 32), bool)
  mask[9:17, 3] = True  # of two cells, one of them by a single pixel
  known = np.asarray(gen.known(images, mask))
  masked = np.zeros((4, 4), bool)
  masked[1:3, 0] = True
  tokens = np.asarray(tok.encode(images))
  np.testing.assert_array_equal(known, np.where(masked, -1, tokens))
  made = np.asarray(gen.tokens([0, 1], key=0, known=known))
  np.testing.assert_array_equal(made[:, ~masked], tokens[:, ~masked])
  assert (made >= 0).all()
  np.testing.assert_array_equal(
    gen.tokens(key=0, known=known), gen.tokens([3, 3], key=0, known=known)
  )
  np.testing.assert_array_equal(gen.complete(images, mask, [0, 1], key=0), gen.decode(made))
  # With nothing to make it is the tokenizer's reconstruction.
  nothing = gen.complete(images, np.zeros((2, 32, 32), bool), key=0)
  np.testing.assert_array_equal(nothing, tok.reconstruct(images))
  with pytest.raises(
    UserError, match=r'images are \[2, 16, 16, 3\] and .*legal: images \[batch, 32'
  ):
    gen.complete(images[:, :16, :16], mask[:16, :16], key=0)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'labels': [0, 3, 4]}, r'labels are from 0 to 4; legal: 0 to 2, its classes'),
    ({'labels': [-1]}, r'labels are from -1 to -1; legal: 0 to 2'),
    ({'labels': [0.5]}, r'labels are float64\[1\]; legal: whole numbers'),
    ({'labels': []}, r'labels are .*\[0\]; legal: whole numbers \[batch\], one or more'),
    ({'labels': [0], 'count': 2}, r'there are 1 labels and count is 2; legal: as many'),
    ({'count': 0}, r'count is 0; legal: 1 or more'),
    ({'count': -1}, r'count is -1; legal: 1 or more'),
    ({'key': -1}, r'the seed is -1; legal: 0 to 4294967295, or a key of jax.random'),
    ({'key': 2**32}, r'the seed is 4294967296; legal: 0 to 4294967295'),
    ({'first': -1}, r'first is -1; legal: 0 or more'),
    ({'known': np.zeros((1, 2, 2), int)}, r'known tokens are int64\[1, 2, 2\]; legal: .* \[4, 4\]'),
    ({'known': np.full((1, 4, 4), 64)}, r'known tokens are from 64 to 64; legal: 0 to 63'),
    (
      {'labels': [0], 'known': np.zeros((2, 4, 4), int)},
      r'are 1 labels and 2 images; legal',
    ),
    ({'steps': 17}, r'steps is 17; legal: 1..16, as an image has 16 symbols'),
    ({'guidance': 0.5}, r'guidance is 0.5; legal: 0 or 1'),
    ({'guidance': 'much'}, r"config.sampler.guidance is 'much'; legal: a number"),
    ({'top_p': 0.5}, r'config.sampler.top_p is unknown to HaltonSampler; legal: steps, guidance'),
  ],
  ids=str,
)
def test_what_cannot_be_drawn(gen, arguments, message):
  with pytest.raises(UserError, match=message):
    gen.tokens(**{'key': 0, **arguments})


def test_a_network_without_a_null_class(tok, tmp_path):
  config = tiny_generator.config_of(tok, 'maskgit', mlp_width=32)
  gen = vqjax.load_generator(tiny_generator.write_run(tmp_path / 'run', config))
  with pytest.raises(UserError, match=r'guidance is 2, but .* was trained with no null class'):
    gen.sample([0], key=0, guidance=2.0)
  with pytest.raises(UserError, match=r'labels are from 3 to 3; legal: 0 to 2'):
    gen.sample([3], key=0)
  with pytest.raises(UserError, match=r'no labels are given, and MaskGITTransformer has no null'):
    gen.sample(key=0)


def test_tokenizers_and_generators_are_told_apart(run, tok, tmp_path):
  with pytest.raises(
    UserError, match=r'is the run of a generator, not of a tokenizer; load it by v'
  ):
    vqjax.load(run)
  with pytest.raises(UserError, match=r'is a tokenizer and no generator; load it by vqjax.load'):
    vqjax.load_generator(TOKENIZER)
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'config.json').write_text(json.dumps({'model': {}, 'quantizer': {}}))
  with pytest.raises(UserError, match=r'is the run of a tokenizer, not of a generator; load it by'):
    vqjax.load_generator(tmp_path)


def test_class_names_are_words(tok, tmp_path):
  config = tiny_generator.config_of(tok)
  config.class_names = 3
  run = tiny_generator.write_run(tmp_path / 'run', config)
  with pytest.raises(UserError, match=r'config.class_names is 3; legal: '):
    vqjax.load_generator(run)


def test_the_tokenizer_must_have_the_weights_that_it_had(run, tok):
  other = pretrained.Pretrained(
    tok.model, jax.tree.map(lambda x: 2 * x, tok.variables), tok.config, 'other'
  )
  with pytest.raises(
    UserError, match=r'and other has other weights; name the same one: tokenizer='
  ):
    vqjax.load_generator(run, tokenizer=other)
  assert vqjax.load_generator(run, tokenizer=tok).tokenizer is tok
  with pytest.raises(UserError, match='the tokenizer cannot be loaded: /no/file does not exist'):
    vqjax.load_generator(run, tokenizer='/no/file')
  with pytest.raises(UserError, match=r'image_size is given, but .* is a run folder, whose config'):
    vqjax.load_generator(run, image_size=32)


@pytest.mark.parametrize(
  ('name', 'heads', 'image_size', 'settings', 'expected'),
  [
    ('llamagen_gpt_16_a', 4, 64, {'guidance': 2.0, 'temperature': 0.0}, 'tokens_cfg2'),
    ('rar_a', None, None, {'temperature': 0.0}, 'tokens_nocfg'),
    (
      'halton_16_a',
      4,
      None,
      {'steps': 8, 'guidance': 2.5, 'inverse_temperature_end': 1.2, 'top_k': 1},
      'codes_h8',
    ),
  ],
)
def test_a_published_checkpoint_gives_the_authors_tokens(
  name, heads, image_size, settings, expected
):
  """By samplers that leave nothing to chance."""
  path, io, sidecar = checkpoint(name, 'generation')
  shape = sidecar['architecture']
  tok = tiny_generator.tokenizer_of(shape.get('vocab_size') or shape['codebook_size'])
  options = {'heads': heads, 'image_size': image_size}
  gen = vqjax.load_generator(
    path, tokenizer=tok, **{k: v for k, v in options.items() if v is not None}
  )
  labels = io['gen_labels'] if 'gen_labels' in io else io['labels']
  found = gen.tokens(labels, key=0, **settings)
  theirs = io[expected] if expected.startswith('tokens') else io[expected][-1]
  np.testing.assert_array_equal(found, theirs.reshape(found.shape))


def test_what_a_published_checkpoint_needs():
  llamagen, rar = (checkpoint(name, 'generation')[0] for name in ('llamagen_gpt_16_a', 'rar_a'))
  tok = tiny_generator.tokenizer_of(96)
  with pytest.raises(UserError, match=r'of llamagen_gpt and does not say its tokenizer; name'):
    vqjax.load_generator(llamagen, heads=4)
  with pytest.raises(UserError, match=r'is 64 wide and 2 layers deep, which is no published size'):
    vqjax.load_generator(llamagen, tokenizer=tok)
  with pytest.raises(UserError, match=r'does not say how large its images are; give image_'):
    vqjax.load_generator(llamagen, tokenizer=tok, heads=4)
  with pytest.raises(UserError, match=r'rar predicts 40 codes, but fresh has 96; name the tok'):
    vqjax.load_generator(rar, tokenizer=tok)
  with pytest.raises(UserError, match=r'64 tokens .* at 32x32 pixels; image_size is 64; legal'):
    vqjax.load_generator(rar, tokenizer=tiny_generator.tokenizer_of(40), image_size=64)
  with pytest.raises(UserError, match=r'step is 3, but .* is no run folder; leave it out'):
    vqjax.load_generator(rar, tokenizer=tiny_generator.tokenizer_of(40), step=3)
