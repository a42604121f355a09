"""The files of an evaluation, and the page."""

import json
import re

import browser
import numpy as np
import pytest
from fake_evaluation import PROTOCOL, baselines, evaluation, of_a_generator, shown
from PIL import Image

from vqjax.errors import UserError
from vqjax.evaluation.results import Baseline, Cloud, Evaluation
from vqjax.report import html, plots, report

LINES = [
  '{"step": 1, "loss": 2.0, "usage": 0.1, "perplexity": 3.0, "learning_rate": 0.1}',
  '{"step": 2, "loss": null, "usage": 0.2}',
  '{"eval/psnr": 99.0}',
  '{"step": 2, "eval/psnr": 12.0, "eval/psnr_mean_color": 10.0, "eval/num_images": 4}',
  '{"step": 3, "loss": 1.0}',
  '[1]',
  '{"step": 4, "loss": "text"}',
  '{"step": 4, "lo',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  curves = folder / 'metrics.jsonl'
  curves.write_text('\n'.join(LINES))
  report.write(report.make_folder(folder / 'eval'), of_step_7(curves))
  return folder / 'eval'


def of_step_7(curves):
  numbers = evaluation().metrics | {'step': 7}
  return evaluation(metrics=numbers, curves=curves, baselines=baselines())


def headings(folder):
  return re.findall(r'<h[23]>(.*?)</h', (folder / 'report.html').read_text())


def test_metrics_json(folder):
  written = json.loads((folder / 'metrics.json').read_text())
  assert written.pop('baselines').keys() == baselines().keys()
  assert written == {**evaluation().metrics, 'step': 7, 'protocol': PROTOCOL}


def test_what_is_not_finite_is_null_and_says_so(tmp_path):
  numbers = {'psnr': float('inf'), 'usage': float('nan'), 'rec_loss': 0.5}
  report.write(tmp_path, evaluation(metrics=numbers))
  written = json.loads((tmp_path / 'metrics.json').read_text())
  assert (written['psnr'], written['usage'], written['rec_loss']) == (None, None, 0.5)
  definitions = written['protocol']['metrics']
  assert definitions['psnr'] == 'infinite: dB, RGB'
  assert definitions['usage'] == 'not a number: fraction of codes'
  assert definitions['rec_loss'] == 'l2'
  assert '<td class="number">infinite<td' in (tmp_path / 'report.html').read_text()


def test_pictures_for_comparisons_and_for_looking_at(folder):
  with np.load(folder / 'pictures.npz') as arrays:
    for name, expected in shown()._asdict().items():
      np.testing.assert_array_equal(arrays[name], expected)
  assert np.asarray(Image.open(folder / 'reconstructions.png')).shape == (2 * 6 + 2, 4 * 10 - 2, 3)


def test_the_page_holds_everything(folder):
  page = (folder / 'report.html').read_text()
  assert headings(folder) == [
    *(
      'Beside other coders',
      'Images',
      'Evenly spread over the set',
      'Best by PSNR',
      'Worst by PSNR',
    ),
    *('Code usage', 'Latents and codes', 'Training', 'Protocol'),
  ]
  assert re.findall(r'PSNR ([\d.]+) dB', page) == ['20.00', '21.00', '22.00', '23.00'] + [
    *('21.00', '20.00', '20.00', '21.00')
  ]
  assert '3 of 5 codes used, 2 unused' in page
  assert '<td>psnr<td class="number">21.5000<td class="note">dB, RGB' in page
  assert '<td>rec_loss<td class="number">0.01235<td' in page
  assert 'On the same images, at no more bits a pixel than the run.' in page
  assert '<td>WebP' + '<td class="number">null' * 4 + '<td class="note">needs 2.5' in page
  drawn = re.findall(r'aria-label="([^"]*)"><svg', page)
  assert drawn[0] == 'PSNR by bits a pixel, dB'
  assert drawn[2:5] == ['latents (P)', 'codes (C)', 'quantized (Q)']
  assert drawn[5:] == ['loss', 'held-out PSNR, dB', 'usage', 'perplexity']


def test_generated_images_by_class_and_what_is_nearest(tmp_path):
  report.write(tmp_path, of_a_generator())
  assert headings(tmp_path) == ['Samples', 'Nearest images', 'Protocol']
  page = (tmp_path / 'report.html').read_text()
  captions = re.findall(r'<span class="caption">(.*?)</span>', page)
  assert captions == ['a', 'b', 'image 2']
  assert re.findall(r'alt="(.*?)"', page) == [
    *('image 0', 'image 2', 'image 4', 'image 1', 'image 3', 'image 5'),
    *('sample', '0.5', '12.25'),
  ]
  assert 'in their order, by class.' in page
  assert 'those of the training data that are nearest' in page
  written = json.loads((tmp_path / 'metrics.json').read_text())
  assert (written['gfid'], written['inception_score'], written['num_images']) == (12.5, None, 6)
  assert {path.name for path in tmp_path.iterdir()} == {'metrics.json', 'report.html'}
  generated = of_a_generator().generated._replace(classes=None, nearest={})
  report.write(tmp_path, of_a_generator(generated=generated))
  page = (tmp_path / 'report.html').read_text()
  assert headings(tmp_path) == ['Samples', 'Protocol']
  captions = re.findall(r'<span class="caption">(.*?)</span>', page)
  assert captions == ['image 0, image 1, image 2', 'image 3, image 4, image 5']  # equally large


def test_what_stands_beside_the_run_in_metrics_json(tmp_path):
  exact = Baseline('k-means', 'Lloyd', 40, '1x1', {'bits_per_pixel': 2.0, 'psnr': float('inf')})
  drawn = dict.fromkeys(('code_counts', 'samples', 'best', 'worst', 'cloud'))
  numbers = {'psnr': 21.5, 'num_images': 1041}
  found = evaluation(baselines=baselines(kmeans_patches=exact), metrics=numbers, **drawn)
  report.write(tmp_path, found)
  page = (tmp_path / 'report.html').read_text()
  assert 'On 40 of the 1,041 images, evenly spread, at' in page
  (svg,) = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
  legend = re.findall(r'>([\w -]+)</text>', svg)[-4:]
  assert legend == ['this run', 'JPEG', 'WebP', 'mean colour']  # an infinite number has no place
  written = json.loads((tmp_path / 'metrics.json').read_text())['baselines']
  assert list(written) == ['run', 'jpeg', 'webp', 'kmeans_patches', 'mean_color']
  assert written['jpeg'] == {
    **{'bits_per_pixel': 1.9, 'psnr': 30.25, 'ssim': 0.9, 'lpips': 0.125},
    **{'setting': 'quality 37', 'num_images': 40, 'protocol': 'Pillow'},
    'curve': [[1.0, 25.0], [1.9, 30.25], [9.0, 40.0]],
  }
  numbers = ('bits_per_pixel', 'psnr', 'ssim', 'lpips')
  assert [written['webp'][name] for name in numbers] == [None] * 4
  assert written['webp']['reason'] == 'needs 2.5'
  assert [written['kmeans_patches'][name] for name in numbers] == [2.0, None, None, None]
  assert written['kmeans_patches']['reason'] == 'psnr is infinite'
  assert 'reason' not in written['run']


def test_what_stands_beside_the_run_in_the_terminal():
  lines = [line.split() for line in report.table(evaluation(baselines=baselines())).splitlines()]
  assert ['bits', 'a', 'pixel', 'PSNR', 'SSIM', 'LPIPS'] in lines
  assert ['this', 'run', '2.0000', '21.5000', '0.7500', 'null', 'tokens'] in lines
  assert ['JPEG', '1.9000', '30.2500', '0.9000', '0.1250', 'quality', '37;', 'Pillow'] in lines
  assert ['WebP', *['null'] * 4, 'needs', '2.5'] in lines


@browser.needs_browser
def test_the_page_in_a_browser(folder, tmp_path):
  seen = browser.check(folder / 'report.html', tmp_path)
  assert seen['widths'] == [8] * 3 * (4 + 2 + 2)


def test_what_is_absent_is_left_out(tmp_path):
  absent = dict.fromkeys(('code_counts', 'samples', 'best', 'worst', 'cloud'))
  absent |= {'metrics': {'psnr': 20.0}, 'protocol': {'data': 'two folders', 'metrics': {}}}
  report.write(tmp_path, evaluation(**absent, curves=tmp_path / 'metrics.jsonl'))
  assert headings(tmp_path) == ['Protocol']
  page = (tmp_path / 'report.html').read_text()
  assert '<script' not in page  # nothing to zoom
  assert {path.name for path in tmp_path.iterdir()} == {'metrics.json', 'report.html'}


def test_the_page_takes_text_for_text(tmp_path):
  protocol = PROTOCOL | {'run': '<script>alert(1)</script>', 'data': '"a" & <b>'}
  report.write(tmp_path, evaluation(metrics={'psnr': 1.0}, protocol=protocol))
  page = (tmp_path / 'report.html').read_text()
  assert 'alert(1)</script>' not in page
  assert '&quot;a&quot; &amp; &lt;b&gt;' in page


def test_the_same_evaluation_is_the_same_page(folder, tmp_path):
  report.write(tmp_path, of_step_7(folder.parent / 'metrics.jsonl'))
  assert (tmp_path / 'report.html').read_bytes() == (folder / 'report.html').read_bytes()


@pytest.mark.parametrize(('columns', 'most'), [(40, 100), (120, 120), (400, 160)])
def test_the_table_for_the_terminal(monkeypatch, columns, most):
  monkeypatch.setenv('COLUMNS', str(columns))
  reason = 'needs ' + ' '.join(f'word{i}' for i in range(60))
  numbers = {'psnr': float('inf'), 'rfid': None, 'step': 1200}
  protocol = {'data': reason, 'metrics': {'psnr': 'dB, RGB', 'rfid': reason}}
  lines = report.table(Evaluation(numbers, {}, protocol=protocol)).splitlines()
  assert lines[0] == 'psnr  infinite  dB, RGB'
  assert lines[1].startswith('rfid      null  needs word0')
  assert lines[2].startswith(16 * ' ' + 'word')
  assert most - 8 < max(map(len, lines)) <= most
  assert ' '.join(lines[1].split() + lines[2].split()).startswith(f'rfid null {reason[:200]}'[:80])
  assert 'step      1200  ' in lines
  start = next(i for i, line in enumerate(lines) if line.startswith('data: needs'))
  assert ' '.join(' '.join(lines[start:]).split()) == f'data: {reason}'


@pytest.mark.parametrize('used', [1, 1000, 2**18])
def test_code_usage_of_a_large_codebook_is_a_small_drawing(used):
  counts = np.zeros(2**18, np.int64)
  counts[::-1][:used] = np.random.default_rng(0).zipf(1.5, used)
  svg, label = plots.code_usage(counts)
  assert label == f'{used:,} of 262,144 codes used, {2**18 - used:,} unused'
  assert len(svg) < 120_000
  assert ('>unused<' in svg) == (used < 2**18)


def test_the_plane_of_latents_and_codes():
  """Known directions: latents vary along one axis of space, codes lie off along another."""
  rng = np.random.default_rng(0)
  latents, codes = np.zeros((2, 500, 4), np.float32)
  latents[:, 2] = rng.normal(size=500)
  codes[:, 1] = 5
  codes[:, 3] = 0.01 * rng.normal(size=500)
  points, shares = plots._project({'p': latents, 'c': codes}, ('p', 'c'))
  distance = points['c'].mean(0) - points['p'].mean(0)
  np.testing.assert_allclose(np.abs(distance), [5, 0], atol=0.3)
  np.testing.assert_allclose(points['p'].std(0), [0, latents[:, 2].std()], atol=0.1)
  assert shares['p'] == pytest.approx(1, abs=0.01)
  assert shares['c'] < 0.1


@pytest.mark.parametrize('width', [1, 3])
def test_clouds_of_any_kind(width):
  rows = np.random.default_rng(0).normal(size=(30, width)).astype(np.float32)
  rows[4] = np.inf
  drawings, note = plots.clouds(Cloud(rows, rows, None))
  assert [label for _, label in drawings] == ['latents (P)', 'quantized (Q)']
  assert 'of quantized (Q)' in note
  assert 'orange' not in note
  drawings, note = plots.clouds(Cloud(rows, rows, np.tile(rows, (200, 1))), np.ones(6000))
  assert '2,048 of 6,000' in drawings[1][0]
  assert 'orange' in note
  assert all('<image' in svg and len(svg) < 60_000 for svg, _ in drawings)


def test_long_curves_become_means():
  values = np.random.default_rng(0).normal(size=1000)
  np.testing.assert_allclose(plots._means(values), values.reshape(500, 2).mean(1))
  np.testing.assert_array_equal(plots._means(values[:500]), values[:500])


def test_small_images_show_their_pixels():
  small, large = (np.zeros((side, side, 3), np.uint8) for side in (32, 256))
  shown = html.gallery([('', [('small', small), ('large', large)])])
  assert re.findall(r'<img( class="pixels")? alt="(\w+)"', shown) == [
    (' class="pixels"', 'small'),
    ('', 'large'),
  ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'report.html').mkdir()
  with pytest.raises(UserError, match=r'cannot write .*report\.html: .*; make room, or choose'):
    report.write(tmp_path, Evaluation({'psnr': 1.0}, {}))
