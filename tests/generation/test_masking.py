import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.errors import UserError
from vqjax.generation import masking

SCHEDULES = (*masking.RATES, 'pow2.5')


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_from_all_to_none(schedule):
  r = jnp.linspace(0, 1, 21)
  rates = np.asarray(masking.rate(schedule, r, 256))
  assert rates.dtype == np.float32
  assert (np.diff(rates) <= 0).all()
  np.testing.assert_allclose(rates[[0, -1]], [1, 0], atol=5e-3)  # exp begins at 1 - 1/256
  np.testing.assert_allclose(
    rates, masking.host_rate(schedule, np.asarray(r), np.array(256)), atol=1e-6
  )


def test_one_symbol():
  for schedule in SCHEDULES:
    assert np.isfinite(masking.rate(schedule, jnp.float32(1), 1))


@pytest.mark.parametrize('schedule', ['sine', 'pow', 'powx', 'pow-1'])
def test_unknown(schedule):
  with pytest.raises(UserError) as error:
    masking.rate(schedule, jnp.float32(0.5), 4)
  assert str(error.value) == (
    f"the mask schedule is '{schedule}'; legal: arccos, cosine, linear, root, square, log, exp, or "
    'pow with a number behind it, such as pow2.5.'
  )


def test_independent():
  keys = jax.random.split(jax.random.key(0), 400)
  masks = np.asarray(jax.jit(lambda keys: masking.independent(keys, 64, 'linear'))(keys))
  assert masks.shape == (400, 64)
  assert masks.dtype == bool
  # The rate is uniform in [0, 1]: of its own mean and deviation, plus those of 64 draws.
  share = masks.mean(axis=1)
  assert abs(share.mean() - 1 / 2) < 0.05
  assert abs(share.std() - np.sqrt(1 / 12 + 1 / 6 / 64)) < 0.03
  assert abs(masks.mean(axis=0) - 1 / 2).max() < 0.12
  alone = masking.independent(keys[3:4], 64, 'linear')
  np.testing.assert_array_equal(alone[0], masks[3])


def test_exact():
  keys = jax.random.split(jax.random.key(0), 400)
  draw = jax.jit(lambda keys, least: masking.exact(keys, 64, 'linear', least))
  masks = np.asarray(draw(keys, jnp.float32(0)))
  counts = masks.sum(axis=1)
  assert counts.min() >= 1
  assert counts.max() == 64
  assert abs(counts.mean() / 64 - 1 / 2) < 0.05
  assert abs(masks.mean(axis=0) - 1 / 2).max() < 0.12
  np.testing.assert_array_equal(masking.exact(keys[3:4], 64, 'linear')[0], masks[3])
  np.testing.assert_array_equal(draw(keys, jnp.float32(0.5)).sum(axis=1), np.maximum(counts, 32))
