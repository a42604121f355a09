"""The ADM evaluator's numbers from features, against the reference."""

import numpy as np
import pytest
from golden_data import checkpoint

from vqjax.evaluation import adm


def seen(pool, spatial, probabilities=None, batch=64, in_rows=None):
  found = adm.Seen()
  for start in range(0, len(pool), batch):
    here = slice(start, start + batch)
    arrays = {'pool': pool[here], 'spatial': spatial[here]}
    if probabilities is not None:
      arrays['probabilities'] = probabilities[here]
    found.add(arrays, None if in_rows is None else in_rows[here])
  return found


@pytest.fixture(scope='module')
def golden():
  """(samples, reference, what is expected, tolerances)."""
  _, data, sidecar = checkpoint('evaluator_a', 'generation')
  spatial = lambda name: data[f'{name}_spatial'][..., :7].reshape(len(data[f'{name}_spatial']), -1)
  logits = data['sample_pool'].astype(np.float64) @ data['softmax_w']
  odds = np.exp(logits - logits.max(axis=1, keepdims=True))
  samples = data['sample_pool'], spatial('sample'), odds / odds.sum(axis=1, keepdims=True)
  atol = {name: array['atol'] for name, array in sidecar['arrays'].items() if 'atol' in array}
  return samples, (data['ref_pool'], spatial('ref')), data, atol


@pytest.mark.parametrize(('split', 'batch'), [(100, 7), (5000, 64)])
def test_equal_the_reference(golden, split, batch, monkeypatch):
  samples, reference, data, atol = golden
  monkeypatch.setattr(adm, 'SPLIT', split)
  real = seen(*reference)
  np.testing.assert_allclose(real.pool.mean, data['mu'], rtol=0, atol=atol['mu'])
  np.testing.assert_allclose(real.pool.covariance, data['sigma'], rtol=0, atol=atol['sigma'])
  found, missing = adm.numbers(seen(*samples, batch=batch), real.statistics, real.rows)
  assert not missing
  for name, golden_name in (('gfid', 'fid'), ('sfid', 'sfid'), ('inception_score', f'is_{split}')):
    np.testing.assert_allclose(found[name], data[golden_name], rtol=0, atol=atol[golden_name])
  for suffix, golden_name in (('', 'pr_f32'), ('_float16', 'pr_f16')):
    both = [found[f'precision{suffix}'], found[f'recall{suffix}']]
    np.testing.assert_allclose(both, data[golden_name], rtol=0, atol=atol[golden_name])


def test_what_is_missing_says_what_it_needs(golden):
  (pool, spatial, _), reference, _, _ = golden
  real = seen(*reference)
  found, missing = adm.numbers(seen(pool, spatial), real.statistics, None)
  assert found.keys() == {'gfid', 'sfid'}
  assert '--file=pt_inception' in missing['inception_score']
  names = {'precision', 'recall', 'precision_float16', 'recall_float16'}
  assert missing.keys() == names | {'inception_score'}
  assert {missing[name] for name in names} == {adm.NO_IMAGES}
  few = seen(*reference, in_rows=np.arange(300) < 3)
  assert few.pool.count == 300
  _, missing = adm.numbers(seen(pool, spatial), few.statistics, few.rows)
  assert missing['recall'] == 'needs 4 samples and 4 images of the reference, or more'
