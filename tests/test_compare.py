"""Evaluations side by side, and only those that compare."""

import json
import re

import browser
import pytest
from fake_evaluation import PROTOCOL, baselines, evaluation, shown

from vqjax import commands
from vqjax import compare as command
from vqjax.compare import compare
from vqjax.errors import UserError
from vqjax.report import report


def write(folder, *, seed=0, samples=True, protocol=None, **numbers):
  """A run folder with an evaluation in it."""
  drawn = dict.fromkeys(('code_counts', 'best', 'worst', 'cloud'))  # takes time, for another page
  result = evaluation(samples=shown(seed=seed) if samples is True else samples, **drawn)
  result.baselines = baselines() if seed == 1 else {}  # of a run alone: they make no difference
  result.protocol = PROTOCOL | {'run': str(folder)} | (protocol or {})
  result.metrics |= numbers
  report.write(report.make_folder(folder / 'eval'), result)
  return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  own = {'weights': 'moving average', 'computed on': 'a GPU'}
  own['metrics'] = PROTOCOL['metrics'] | {'rec_loss': 'l1'}
  return (
    write(folder / 'a', seed=1, psnr=21.0, rec_loss=0.1, perplexity=3.0, usage=0.5),
    write(folder / 'b', seed=2, protocol=own, psnr=24.0, rec_loss=0.2, perplexity=4.0, usage=0.5),
  )


@pytest.fixture(scope='module')
def compared(runs, tmp_path_factory):
  out = tmp_path_factory.mktemp('out') / 'made'
  return out, compare([runs[0], runs[1] / 'eval'], out)


def test_the_table(runs, tmp_path, capsys):
  compare(runs, tmp_path)
  lines = capsys.readouterr().out.splitlines()
  assert [line.split() for line in lines[:7]] == [
    ['a', 'b'],
    ['psnr', '21.0000', '24.0000*'],
    ['rec_loss', '0.1000', '0.2000'],
    ['usage', '0.5000', '0.5000'],
    ['rfid', 'null', 'null'],
    ['num_images', '40', '40'],
    ['perplexity', '3.0000', '4.0000'],
  ]
  assert '* best of its row' in lines
  assert 'rfid of a, b: needs the weights: python -m vqjax.weights inception' in lines
  assert lines[-1] == f'written: {tmp_path / "comparison.html"}'


def test_comparison_json(compared, runs):
  out, content = compared
  assert json.loads((out / 'comparison.json').read_text()) == content
  assert content['runs'] == {'a': str(runs[0] / 'eval'), 'b': str(runs[1] / 'eval')}
  assert content['metrics']['psnr'] == {'a': 21.0, 'b': 24.0}
  assert content['best'] == {'psnr': ['b']}
  assert content['differences'] == {}
  assert set(content['missing']) == {'rfid'}


def test_the_page(compared):
  page = (compared[0] / 'comparison.html').read_text()
  assert '<td class="number best">24.0000' in page
  assert page.count('class="card"') == 4
  labels = re.findall(r'<img[^>]* alt="([^"]*)"', page)
  assert labels[:3] == ['original', 'a, 20.00 dB', 'b, 20.00 dB']
  assert len(labels) == 3 * 4
  sources = re.findall(r'src="(data:[^"]*)"', page)
  assert len(set(sources)) == len(sources)  # originals once, and a run's own beside them


@browser.needs_browser
def test_the_page_in_a_browser(compared, tmp_path):
  seen = browser.check(compared[0] / 'comparison.html', tmp_path)
  assert seen['captions'] == ['image 0', 'image 10']


@pytest.mark.parametrize(
  ('metric', 'values', 'best'),
  [
    ('psnr_luma', (1.0, 2.0), ['b']),
    ('ssim', (2.0, 1.0), ['a']),
    ('inception_score', (1.0, 2.0), ['b']),
    ('usage_256_images', (0.1, 0.2), ['b']),
    ('accuracy', (0.1, 0.2), ['b']),
    ('rfid', (1.0, 2.0), ['a']),
    ('lpips_vgg', (2.0, 1.0), ['b']),
    ('l1', (1.0, 2.0), ['a']),
    ('l2', (1.0, 2.0), ['a']),
    ('l2', (1.0, 1.0), None),
    ('l2', (1.0, None), None),  # perhaps infinite
    ('psnr_mean_color', (1.0, 2.0), None),
    ('rec_loss', (1.0, 2.0), None),
    ('perplexity', (1.0, 2.0), None),
    ('step', (1, 2), None),
    ('of_a_later_version', (1.0, 2.0), None),
  ],
)
def test_what_is_best(metric, values, best):
  found = command._best({metric: dict(zip('ab', values, strict=True))})
  assert found.get(metric) == best


def test_a_tie_has_two_best():
  assert command._best({'l1': {'a': 1.0, 'b': 2.0, 'c': 1.0}}) == {'l1': ['a', 'c']}


def test_other_protocols_are_refused(runs, tmp_path, capsys):
  metrics = PROTOCOL['metrics'] | {'psnr': 'dB, luma', 'rfid': 'dims 2048'}
  other = {'images': '8 x 8', 'padding': 'mirrored', 'metrics': metrics}
  third = write(tmp_path / 'c', protocol=other, num_images=50, rfid=3.0)
  listed = (
    "images: '6 x 8' in a, '8 x 8' in c; num_images: 40 in a, 50 in c; "
    "definition of psnr: 'dB, RGB' in a, 'dB, luma' in c; "
    "padding: nothing in a, 'mirrored' in c"
  )
  with pytest.raises(UserError) as refused:
    compare([runs[0], third], tmp_path / 'out')
  assert str(refused.value).startswith(f'the evaluations differ in {listed}; make them alike')
  assert not (tmp_path / 'out').exists()

  content = compare([runs[0], third], tmp_path / 'out', allow_different_protocols=True)
  assert set(content['differences']) == {'images', 'num_images', 'definition of psnr', 'padding'}
  assert content['best'] == {}
  for text in (capsys.readouterr().out, (tmp_path / 'out' / 'comparison.html').read_text()):
    assert 'The protocols differ' in text
    assert 'num_images: 40 in a, 50 in c' in text


def test_only_identical_originals_are_shown(runs, tmp_path):
  samples = shown(seed=3)
  samples.originals[1, 0, 0, 0] ^= 1
  samples.positions[2] = 21
  third = write(tmp_path / 'c', samples=samples)
  compare([*runs, third], tmp_path)
  page = (tmp_path / 'comparison.html').read_text()
  assert re.findall(r'class="caption">([^<]*)', page) == ['image 0', 'image 30']
  compare([runs[0], write(tmp_path / 'd', samples=None)], tmp_path)
  page = (tmp_path / 'comparison.html').read_text()
  assert 'class="card"' not in page
  assert 'no original is shown by all' in page


def test_a_metric_that_one_run_lacks(runs, tmp_path):
  other = write(tmp_path / 'c', psnr=float('inf'), accuracy=0.5)
  content = compare([runs[0], other], tmp_path)
  assert content['metrics']['accuracy'] == {'a': None, 'c': 0.5}
  assert content['missing']['accuracy'] == {'a': 'not measured'}
  assert content['missing']['psnr'] == {'c': 'infinite: dB, RGB'}
  assert 'psnr' not in content['best']


def test_the_home_folder_may_be_written_as_one_does(runs, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  compare(runs, '~/made')
  assert (tmp_path / 'made' / 'comparison.html').exists()


def test_names_are_distinct(runs, tmp_path):
  same = write(tmp_path / 'a')
  content = compare([runs[0], same / 'eval', runs[1], same / 'eval'], tmp_path)
  assert list(content['runs']) == [
    *(str(runs[0]), str(same / 'eval')),
    *('b', f'{same / "eval"} (2)'),
  ]


def test_mistakes(runs, tmp_path):
  def refused(*args):
    with pytest.raises(SystemExit) as exit:
      commands.run(command.COMMAND, [str(arg) for arg in args])
    return exit.value.code

  a, out, none = runs[0], f'--out={tmp_path / "out"}', tmp_path / 'none'
  missing = f'error: {none}/eval/metrics.json does not exist; '
  missing += f'make it with python eval.py --workdir={none}'
  assert refused(a, none, out) == missing
  assert refused(a, none / 'eval', out) == missing
  assert refused(a, out).startswith('error: a comparison takes two runs or more, and 1 is given')
  assert 'required: --out; for example: python -m vqjax.compare' in refused(*runs)
  (tmp_path / 'file').write_text('')
  assert 'choose another --out' in refused(*runs, f'--out={tmp_path / "file"}')
  broken = write(tmp_path / 'broken')
  text = b'{"psnr": "high", "protocol": {"metrics": {}}}'
  for name, content in (
    ('metrics.json', text),
    ('pictures.npz', b'PK\x03\x04 cut'),
    ('metrics.json', b'{"psnr": 1}'),
  ):
    (broken / 'eval' / name).write_bytes(content)
    message = refused(a, broken, out)
    assert f'{broken}/eval cannot be read as an evaluation' in message
    assert message.endswith(f'make it anew with python eval.py --workdir={broken}')
  commands.run(command.COMMAND, [*map(str, runs), out])
  assert (tmp_path / 'out' / 'comparison.html').exists()
