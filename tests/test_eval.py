"""eval.py on two folders of images, its options, and the guide to it."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import eval as evaluate_command
from vqjax import data as datasets
from vqjax import weights
from vqjax.compare import compare
from vqjax.data import default_data
from vqjax.data.photos import Photos
from vqjax.errors import UserError
from vqjax.evaluation import metrics, run, scoring
from vqjax.evaluation import statistics as feature_statistics
from vqjax.evaluation.table import OF_SAMPLES
from vqjax.quantizers import FSQ, Grouped, Sinkhorn, VectorQuantizer

GUIDE = (pathlib.Path(__file__).parent.parent / 'docs' / 'evaluation.md').read_text()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Nine photographs of 32 x 48 pixels, and the same with noise."""
  root = tmp_path_factory.mktemp('images')
  rng, photos = np.random.default_rng(0), Photos('train')
  for i in range(9):
    pixels = photos[i]['image'][: 32 * 4 : 4, : 48 * 4 : 4]
    noisy = np.clip(np.rint(pixels + rng.normal(0, 20, pixels.shape)), 0, 255).astype(np.uint8)
    for name, image in (('originals', pixels), ('noisy', noisy)):
      (root / name).mkdir(exist_ok=True)
      Image.fromarray(image).save(root / name / f'{i}.png')
  return root / 'originals', root / 'noisy'


def images(folder):
  return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def test_two_folders_get_the_table(folders, tmp_path):
  numbers = evaluate_command.compare_folders(*folders, tmp_path, batch_size=8, quick=True)
  x, y = map(images, folders)
  for name in ('psnr', 'ssim', 'psnr_luma', 'ssim_luma', 'l1', 'l2'):
    expected = np.mean(np.float64(getattr(metrics, name)(x, y)))
    np.testing.assert_allclose(numbers[name], expected, rtol=1e-6)
  assert numbers['num_images'] == 9
  assert 'usage' not in numbers
  assert 'step' not in numbers
  written = json.loads((tmp_path / 'metrics.json').read_text())
  protocol = written.pop('protocol')
  assert written == numbers
  assert numbers['rfid'] is numbers['lpips'] is None
  assert protocol['metrics']['rfid'] == 'left out by --quick'
  assert protocol['rounding'] == 'none: 8 bits as they are in the files'
  assert protocol['images'] == '32 x 48, as they are in the files'
  assert str(folders[1]) in (tmp_path / 'report.html').read_text()
  assert (tmp_path / 'reconstructions.png').exists()


def test_statistics_of_the_originals_are_written_and_read(folders, tmp_path, monkeypatch):
  # Any 2048 numbers of an image will do.
  score = scoring.score

  def features(networks, x, y):
    values, _ = score({}, x, y)
    flat = [image.reshape(len(image), -1)[:, :2048].astype(jnp.float32) for image in (x, y)]
    return values, {'features': jnp.stack(flat)}

  monkeypatch.setattr(scoring, 'score', features)
  monkeypatch.setattr(scoring, 'load_network_params', lambda: {'inception': {}})
  monkeypatch.setattr(weights, 'provenance', lambda name: f'made up {name}')
  path = tmp_path / 'statistics.npz'
  evaluated = lambda *folders, **more: evaluate_command.compare_folders(
    *folders, tmp_path / 'out', batch_size=8, **more
  )
  direct = evaluated(*folders, save_reference=str(path))
  against = evaluated(*folders, reference=str(path))
  np.testing.assert_allclose(against['rfid'], direct['rfid'], rtol=1e-9)
  assert evaluated(folders[0], folders[0], reference=str(path))['rfid'] < 1e-3
  protocol = json.loads((tmp_path / 'out' / 'metrics.json').read_text())['protocol']
  meaning = protocol['metrics']['rfid']
  assert f'against {path}, 9 images, 9 images of {folders[0]}; 32 x 48' in meaning
  assert 'weights: made up inception' in meaning
  assert 'as there are only 9' in meaning
  assert feature_statistics.load(path).count == 9
  np.savez(tmp_path / 'narrow.npz', mu=np.zeros(3), sigma=np.eye(3))
  with pytest.raises(UserError, match='of another network than this one of 2048 features'):
    evaluated(*folders, reference=str(tmp_path / 'narrow.npz'))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_images': 0}, '--num_images is 0; legal: 1 or more'),
    ({'batch_size': 0}, '--batch_size is 0; legal: 1 or more'),
    ({'batch_size': 12}, '--batch_size is 12; legal: a multiple of 8 devices'),
    ({'quick': True, 'save_reference': 'x.npz'}, '--save_reference=x.npz is .*: left out by --q'),
    ({'quick': True, 'reference': 'x.npz'}, '--reference=x.npz is for rfid, .*: left out by --q'),
    ({'reference': '/no/such.npz'}, 'cannot read /no/such.npz'),
  ],
)
def test_options_that_cannot_be(options, message, folders, tmp_path, monkeypatch):
  monkeypatch.setattr(scoring, 'load_network_params', lambda: {'inception': {'fc': {}}})
  with pytest.raises(UserError, match=message):
    evaluate_command.compare_folders(*folders, tmp_path, **({'batch_size': 8} | options))


def test_a_folder_that_cannot_be_made_is_found_before_the_work(folders):
  with pytest.raises(UserError, match='cannot make /dev/null/x: Not a directory; choose another'):
    evaluate_command.compare_folders(*folders, '/dev/null/x', batch_size=8, quick=True)


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('metrics.json', '{"psnr": 30}'),
    ('metrics.json', '[1]'),
    ('metrics.json', '{"psnr": 3'),
    ('metrics.json', '[' * 100_000),
    ('report.html', '<!doctype html><html>My report</html>'),
    ('report.html', ''),
    ('reconstructions.png', ''),
    ('pictures.npz', ''),
  ],
)
def test_a_file_of_another_hand_is_not_replaced(name, content, folders, tmp_path):
  (tmp_path / name).write_text(content)
  with pytest.raises(
    UserError, match=rf'/{name} is there already and eval.py did not write it; ch'
  ):
    evaluate_command.compare_folders(*folders, tmp_path, batch_size=8, quick=True)
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: content}


def test_a_report_takes_the_place_of_another(folders, tmp_path):
  for _ in range(2):
    evaluate_command.compare_folders(*folders, tmp_path, batch_size=8, quick=True)
  (tmp_path / 'report.html').write_text('my notes')
  with pytest.raises(UserError, match=r'/report.html is there already'):
    evaluate_command.compare_folders(*folders, tmp_path, batch_size=8, quick=True)


def test_images_too_small_for_a_number_get_the_others(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
  for name, image in zip(('x', 'y'), pixels, strict=True):
    (tmp_path / name).mkdir()
    Image.fromarray(image).save(tmp_path / name / '0.png')
  folders = tmp_path / 'x', tmp_path / 'y'
  numbers = evaluate_command.compare_folders(*folders, tmp_path, quick=True)
  np.testing.assert_allclose(numbers['psnr'], metrics.psnr(*pixels[:, None])[0], rtol=1e-6)
  assert numbers['ssim'] is numbers['ssim_luma'] is None
  said = json.loads((tmp_path / 'metrics.json').read_text())['protocol']['metrics']
  assert said['ssim'] == 'needs images of 11 x 11 pixels or more'
  assert said['lpips'] == 'left out by --quick'


def test_generated_images_get_their_own_table(folders, tmp_path, monkeypatch):
  # Any 2048 and 2023 numbers of an image will do.
  def see(networks, images):
    flat = images.reshape(len(images), -1).astype(jnp.float32)
    return {'pool': flat[:, :2048], 'spatial': flat[:, -2023:]}

  monkeypatch.setattr(scoring, 'see', see)
  monkeypatch.setattr(weights, 'load', lambda name: {})
  monkeypatch.setattr(weights, 'provenance', lambda name: f'made up {name}')
  judged = lambda samples, out: evaluate_command.judge_samples(
    samples, folders[0], tmp_path / out, batch_size=8
  )
  numbers = judged(folders[1], 'out')
  assert numbers['gfid'] > 1
  assert numbers['num_images'] == 9
  written = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
  protocol = written.pop('protocol')
  assert written == numbers
  assert numbers.keys() == OF_SAMPLES.keys()
  assert (protocol['run'], protocol['data']) == (str(folders[1]), f'9 images of {folders[0]}')
  assert 'as there are only 9' in protocol['metrics']['gfid']
  assert '<h2>Nearest images</h2>' in (tmp_path / 'out' / 'report.html').read_text()
  same = judged(folders[0], 'same')
  assert same['gfid'] == pytest.approx(0, abs=1e-3)
  assert same['precision'] == same['recall'] == 1
  compared = compare([tmp_path / 'out', tmp_path / 'same'], tmp_path / 'compared')
  assert compared['best']['gfid'] == compared['best']['sfid'] == ['same']


def test_the_protocol_says_what_tokens_depend_on():
  said = [
    run._tokens(quantizer, 16)
    for quantizer in (
      VectorQuantizer(8),
      Grouped(VectorQuantizer(8, eval_assign=Sinkhorn()), groups=2),
      FSQ((3, 3)),
    )
  ]
  assert said[0] == said[2] == 'each the nearest code, by search or by rounding'
  assert said[1].startswith('of 16 images together, taken by Sinkhorn(')


def test_images_in_place_of_those_of_a_run(tmp_path):
  data = lambda **fields: ConfigDict(default_data() | fields)
  whole, parts = str(tmp_path / 'whole'), str(tmp_path / 'parts')
  (tmp_path / 'whole' / 'cats').mkdir(parents=True)
  (tmp_path / 'parts' / 'val').mkdir(parents=True)
  for config, path, expected in (
    (data(source='photos'), whole, data(source='folder', path=whole, eval_path=whole)),
    (data(source='photos'), parts, data(source='folder', path=parts)),
    (data(path='there', eval_path='elsewhere'), whole, data(path=whole, eval_path=whole)),
    (data(path='there', eval_path='elsewhere'), parts, data(path=parts)),
    # Most of these were trained on: the held-out ones alone.
    (data(path=whole), whole, data(path=whole)),
    (data(source='array_record', path='there'), whole, data(source='array_record', path=whole)),
  ):
    datasets.choose_images(config, path)
    assert config == expected
    datasets.choose_images(config, None)
    assert config == expected
  with pytest.raises(UserError, match=r'no images of its own; .* --data_path=FOLDER'):
    datasets.choose_images(data(), None)


def test_the_guide_explains_every_number_and_rounding():
  cells = re.findall(r'^\| (`.+?`(?:, `.+?`)*) \|', GUIDE, re.MULTILINE)
  explained = {name for cell in cells for name in re.findall('`(.+?)`', cell)}
  files = {name for name in explained if name.startswith('eval/')}
  of_samples = {name for name, metric in OF_SAMPLES.items() if metric.meaning}
  assert explained - files == {*scoring.definitions({}), *scoring.ROUNDINGS, *of_samples}


def test_the_example_of_the_guide_runs():
  (source,) = re.findall(r'```python\n(.*?)```', GUIDE, re.DOTALL)
  with jax.numpy_dtype_promotion('standard'):  # as JAX is when a user starts it
    exec(compile(source, 'docs/evaluation.md', 'exec'), {})
