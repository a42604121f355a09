"""The evaluation of generated images, with another network in Inception's place."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_generator
from golden_data import GOLDEN
from PIL import Image

from vqjax import generator_sources, weights
from vqjax.data import default_data, make_source
from vqjax.errors import UserError
from vqjax.evaluation import adm, references, samples, scoring, statistics
from vqjax.evaluation import shown as shown_samples
from vqjax.evaluation.makers import evaluate_files, evaluate_generator
from vqjax.evaluation.samples import evaluate_samples
from vqjax.evaluation.table import OF_SAMPLES
from vqjax.generator_sources import load_generator

WIDTHS = 16, 14


@pytest.fixture(autouse=True)
def network(monkeypatch):
  """Pixels in the place of features, 16 and 14, and of classes, 5."""

  def see(params, images):
    del params
    flat = images.reshape(len(images), -1).astype(jnp.float32)
    odds = flat[:, :5] + 1
    return {
      'pool': flat[:, : WIDTHS[0]],
      'spatial': flat[:, -WIDTHS[1] :],
      'probabilities': odds / odds.sum(axis=1, keepdims=True),
    }

  monkeypatch.setattr(scoring, 'see', see)
  monkeypatch.setattr(weights, 'load', lambda name: {})
  monkeypatch.setattr(weights, 'provenance', lambda name: f'made up {name}')
  monkeypatch.setattr(references, 'FEATURES', WIDTHS[0])
  monkeypatch.setattr(references, 'SPATIAL_FEATURES', WIDTHS[1])
  return see


def pixels(count, seed=0, side=6):
  return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def by_definition(network, x, y):
  """From the features of all images together."""
  both = adm.Seen(), adm.Seen()
  for seen, images in zip(both, (x, y), strict=True):
    seen.add({name: np.asarray(array) for name, array in network(None, images).items()})
  return adm.numbers(both[0], both[1].statistics, both[1].rows)[0] | {'num_images': len(x)}


def assert_same(found, expected):
  assert list(found.metrics) == list(OF_SAMPLES)
  for name, value in expected.items():
    np.testing.assert_allclose(found.metrics[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize('batch_size', [8, 24])
def test_files_and_folders(network, tmp_path, batch_size):
  x, y = pixels(21), pixels(30, seed=1)
  expected = by_definition(network, x, y)
  assert set(expected) == set(OF_SAMPLES)
  for name, images in (('x', x), ('y', y)):
    np.savez(tmp_path / f'{name}.npz', images)
    (tmp_path / name).mkdir()
    for i, image in enumerate(images):
      Image.fromarray(image).save(tmp_path / name / f'{i:03}.png')
  for of, against in (('x.npz', 'y'), ('x', 'y.npz')):
    found = evaluate_files(tmp_path / of, tmp_path / against, batch_size=batch_size)
    assert_same(found, expected)
    assert found.protocol['data'] == f'30 images of {tmp_path / against}'
  first = evaluate_files(tmp_path / 'x', tmp_path / 'y', num_images=9, batch_size=batch_size)
  assert_same(first, by_definition(network, x[:9], y))


def test_batches_that_come_one_by_one(network):
  """Of any size, and no more of them than asked for; the numbers have their protocol."""
  x, y = pixels(50), GOLDEN / 'generation/adm_npz_a_ref.npz'
  x = pixels(50, side=8)
  asked = []

  def batches():
    for start in range(0, 50, 7):
      asked.append(start)
      yield x[start : start + 7]

  found = evaluate_samples(batches(), y, num_images=20, name='runs/one', batch_size=8)
  assert asked == [0, 7, 14]
  with np.load(y) as arrays:
    stored = {
      'pool': statistics.Precomputed(arrays['mu'], arrays['sigma'], None, ''),
      'spatial': statistics.Precomputed(arrays['mu_s'], arrays['sigma_s'], None, ''),
    }
    images = arrays['arr_0']
  both = adm.Seen(), adm.Seen()
  for seen, of in zip(both, (x[:20], images), strict=True):
    seen.add({name: np.asarray(array) for name, array in network(None, of).items()})
  assert_same(found, adm.numbers(both[0], stored, both[1].rows)[0])
  said = found.protocol['metrics']
  assert f'; against statistics of {y}, origin unknown; weights: made up' in said['gfid']
  assert said['recall_float16'].endswith(
    f'20 samples, 40 images of {y}; weights: made up inception'
  )
  assert found.protocol['run'] == 'runs/one'


def test_a_reference_that_was_saved_gives_the_same_numbers(tmp_path, monkeypatch):
  monkeypatch.setattr(references, 'IMAGES', 10)
  x, y, path = pixels(20), pixels(25, seed=1), tmp_path / 'ref.npz'
  np.savez(tmp_path / 'x.npz', x)
  np.savez_compressed(tmp_path / 'y.npz', y)
  evaluated = lambda reference, **more: evaluate_files(
    tmp_path / 'x.npz', reference, batch_size=8, **more
  )
  direct = evaluated(tmp_path / 'y.npz', save_reference=path)
  with np.load(path) as arrays:
    assert set(arrays) == {'mu', 'sigma', 'mu_s', 'sigma_s', 'arr_0', 'count', 'provenance'}
    np.testing.assert_array_equal(arrays['arr_0'], y[[i * 25 // 10 for i in range(10)]])
    assert arrays['mu_s'].shape == WIDTHS[1:]
    np.testing.assert_allclose(
      arrays['sigma'], np.cov(y.reshape(25, -1)[:, : WIDTHS[0]].T.astype(np.float64)), rtol=1e-9
    )
  again = evaluated(path)
  assert again.metrics == pytest.approx(direct.metrics, rel=1e-6)
  assert f'{path}, 25 images, 25 images of {tmp_path / "y.npz"}; made up' in again.protocol['data']
  with pytest.raises(UserError, match=r'--save_reference=z is for a reference of images, and'):
    evaluated(path, save_reference='z')
  with pytest.raises(UserError, match=r'cannot write /none/z.npz: No such file .*; name a file in'):
    evaluated(tmp_path / 'y.npz', save_reference='/none/z.npz')


def test_statistics_alone_have_no_neighbours(tmp_path):
  arrays = dict(np.load(GOLDEN / 'generation/adm_npz_a_ref.npz'))
  del arrays['arr_0']
  np.savez(tmp_path / 'x.npz', **arrays)
  found = evaluate_samples([pixels(8)], tmp_path / 'x.npz', num_images=8, batch_size=8)
  assert found.metrics['gfid'] > 0
  assert found.metrics['precision'] is found.metrics['recall_float16'] is None
  assert found.missing['precision'] == found.protocol['metrics']['precision'] == adm.NO_IMAGES
  assert found.generated.nearest == {}


def test_samples_are_shown_by_class_with_what_is_nearest(tmp_path, monkeypatch):
  monkeypatch.setattr(shown_samples, 'SHOWN', 6)
  monkeypatch.setattr(samples, 'WITH_NEAREST', 3)
  x = pixels(40)
  np.savez(tmp_path / 'y.npz', x[::-1])
  labels = np.arange(40) % 3
  options = {'num_images': 40, 'batch_size': 8, 'labels': labels, 'class_names': ['a', 'b']}
  shown = evaluate_samples([x], tmp_path / 'y.npz', **options).generated
  np.testing.assert_array_equal(shown.positions, [0, 3, 1, 4, 2, 5])
  assert shown.classes == ['a', 'a', 'b', 'b', 'class 2', 'class 2']
  assert list(shown.nearest) == [0, 2, 4]
  for i, (images, distances) in shown.nearest.items():
    np.testing.assert_array_equal(images[0], x[shown.positions[i]])
    assert len(images) == 3
    assert distances[0] == 0 < distances[1]
  assert str(tmp_path / 'y.npz') in shown.near_to
  beside = evaluate_samples([x], tmp_path / 'y.npz', training=[255 - x[:9]], **options).generated
  assert beside.near_to == 'of the training data'
  assert beside.nearest[0][1][0] > 0
  spread = evaluate_samples([x], tmp_path / 'y.npz', num_images=40, batch_size=8).generated
  assert spread.classes is None
  np.testing.assert_array_equal(spread.positions, [0, 6, 13, 20, 26, 33])


def test_what_the_generator_of_a_run_makes(network, tmp_path, caplog):
  """Beside the images of its training, cut as for evaluation, or beside a reference."""
  tok = tiny_generator.tokenizer_of(12)
  config = tiny_generator.config_of(tok, image_size=8)
  path = tmp_path / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(generator_sources, '_tokenizer', lambda *_: tok)
    tiny_generator.write_run(path, config)
    with pytest.raises(UserError, match=r'run was not trained on images, .* give --reference=FILE'):
      evaluate_generator(path, num_images=10, batch_size=8)
    np.savez(tmp_path / 'y.npz', pixels(9, side=8))
    made = np.asarray(load_generator(path).sample(np.arange(10) % 3, key=0))
    found = evaluate_generator(path, reference=tmp_path / 'y.npz', num_images=10, batch_size=8)
    assert_same(found, by_definition(network, made, pixels(9, side=8)))

    (tmp_path / 'images').mkdir()
    for i, image in enumerate(pixels(12, side=8)):
      Image.fromarray(image).save(tmp_path / f'images/{i:02}.png')
    config.data = {**default_data(), 'path': str(tmp_path / 'images'), 'image_size': 8}
    config.tokens.path = ''
    tiny_generator.write_run(tmp_path / 'other', config)
    found = evaluate_generator(tmp_path / 'other', num_images=10, batch_size=8)
    against = {'reference': tmp_path / 'y.npz', 'num_images': 10, 'batch_size': 8}
    beside = evaluate_generator(tmp_path / 'other', **against)
    (tmp_path / 'images').rename(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='images does not exist'):
      evaluate_generator(tmp_path / 'other', num_images=10, batch_size=8)
    caplog.clear()
    elsewhere = evaluate_generator(tmp_path / 'other', **against)
    (tmp_path / 'elsewhere').rename(tmp_path / 'images')
  assert beside.generated.near_to == 'of the training data'
  assert elsewhere.metrics == beside.metrics
  assert elsewhere.generated.near_to == f'of the reference, {tmp_path / "y.npz"}'
  assert 'the nearest of the training images are not shown: ' in caplog.messages[0]
  train = make_source(config.data, 'train')
  learned = np.stack([np.asarray(Image.open(tmp_path / f'images/{i:02}.png')) for i in range(12)])
  learned = learned[[int(pathlib.Path(train.name_of(i)).stem) for i in range(len(train))]]
  assert len(learned) == 11  # one is held out
  assert_same(found, by_definition(network, made, learned))
  assert found.generated.classes[0] == 'class 0'
  assert found.curves == tmp_path / 'other/metrics.jsonl'
  assert found.protocol['data'] == f'11 images of the training images of {tmp_path / "other"}'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'num_images': 0}, '--num_images is 0; legal: 1 or more'),
    ({'batch_size': 0}, '--batch_size is 0; legal: 1 or more'),
    ({'batch_size': 12}, '--batch_size is 12; legal: a multiple of 8 devices'),
    ({'samples': [pixels(1)]}, 'samples: 1 images; legal: 2 or more'),
    ({'samples': [np.float32(pixels(4))]}, r'samples are float32 \[4, 6, 6, 3\]; legal: uint8'),
    (
      {'samples': [pixels(4), pixels(4, side=5)]},
      'samples have 5 x 5 pixels, and those before 6 x 6; make them of one size',
    ),
    (
      {'samples': [pixels(4, side=5)]},
      'samples have 5 x 5 pixels, and those of the reference .*y.npz 6 x 6; make them of one size',
    ),
  ],
)
def test_what_cannot_be_judged(change, message, tmp_path):
  np.savez(tmp_path / 'y.npz', pixels(9))
  options = {'samples': [pixels(20)], 'num_images': 20, 'batch_size': 8} | change
  with pytest.raises(UserError, match=message):
    evaluate_samples(options.pop('samples'), tmp_path / 'y.npz', **options)


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'x': np.zeros(3)}, r'FILE has x; legal: a folder of images, or an .npz as ADM'),
    (
      {'mu': np.zeros(16), 'sigma': np.eye(16)},
      'FILE has mu and sigma without mu_s and sigma_s',
    ),
    ({'mu': np.zeros(16), 'mu_s': np.zeros(14)}, 'FILE lacks sigma '),
    (
      {'mu': np.zeros(16), 'sigma': np.eye(16), 'mu_s': np.zeros(9), 'sigma_s': np.eye(9)},
      r'FILE has mu_s \[9\] and sigma_s \[9, 9\], of another network than this one of 14 features',
    ),
    ({'arr_0': np.zeros((4, 6, 6, 3))}, r'FILE has arr_0 of float64 \[4, 6, 6, 3\]; legal: uint8'),
  ],
)
def test_references_of_another_layout(arrays, message, tmp_path):
  path = tmp_path / 'ref.npz'
  np.savez(path, **arrays)
  with pytest.raises(UserError, match=message.replace('FILE', str(path))):
    evaluate_samples([pixels(8)], path, num_images=8, batch_size=8)


def test_files_that_are_no_samples(tmp_path):
  reference = GOLDEN / 'generation/adm_npz_a_ref.npz'
  with pytest.raises(UserError, match=r'--samples=.* has statistics \(mu\), which the ADM'):
    evaluate_files(reference, reference)
  with pytest.raises(UserError, match=r'--samples=/no/x does not exist'):
    evaluate_files('/no/x', reference)
  np.savez(tmp_path / 'x.npz', pixels(4))
  with pytest.raises(UserError, match=r'--reference=/no/x does not exist'):
    evaluate_files(tmp_path / 'x.npz', '/no/x')
  (tmp_path / 'y.npz').write_text('nothing')
  with pytest.raises(UserError, match=r'y.npz is no .npz that can be read; legal'):
    evaluate_files(tmp_path / 'x.npz', tmp_path / 'y.npz')


def test_weights_that_are_not_there_or_have_no_classes(network, tmp_path, monkeypatch):
  np.savez(tmp_path / 'x.npz', pixels(9))
  judged = lambda: evaluate_files(tmp_path / 'x.npz', tmp_path / 'x.npz', batch_size=8)
  without = lambda *args: {name: network(*args)[name] for name in ('pool', 'spatial')}
  monkeypatch.setattr(scoring, 'see', without)
  found = judged()
  assert found.metrics['inception_score'] is None
  assert '--file=pt_inception' in found.protocol['metrics']['inception_score']
  monkeypatch.undo()
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path))
  with pytest.raises(UserError, match=r'python -m vqjax.weights inception'):
    judged()
