"""What each recipe counts and draws; its losses on published logits are the networks' tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.generation import objectives
from vqjax.generation.layout import MASKED

NULL, CODES, LENGTH = 10, 7, 12
SYMBOLS = np.random.default_rng(0).integers(0, CODES, (4000, LENGTH)).astype(np.int32)
LABELS = np.arange(len(SYMBOLS), dtype=np.int32) % NULL
LOGITS = np.random.default_rng(1).normal(size=(*SYMBOLS.shape, CODES + 1)).astype(np.float32)
LOG_P = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
NLL = -np.take_along_axis(LOG_P, SYMBOLS[..., None], -1)[..., 0]
RIGHT = LOGITS.argmax(-1) == SYMBOLS
KEYS = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(3), n))(jnp.arange(len(SYMBOLS)))

ALL = [objectives.Causal(), objectives.Permuted(), objectives.Halton(), objectives.MaskGIT()]


def call(objective, progress=0.0, rows=slice(None)):
  """(what the network was given, loss [B], numbers [B])."""
  given = {}

  def apply(symbols, labels, **others):
    given.update(symbols=symbols, labels=labels, **others)
    return jnp.asarray(LOGITS[rows])

  loss, numbers = objective(
    *(apply, jnp.asarray(SYMBOLS[rows]), jnp.asarray(LABELS[rows]), KEYS[rows]),
    jnp.float32(progress),
    null=NULL,
  )
  return {name: np.asarray(x) for name, x in given.items()}, loss, numbers


def test_causal_counts_every_position():
  given, loss, numbers = call(objectives.Causal())
  np.testing.assert_array_equal(given['symbols'], SYMBOLS)
  np.testing.assert_allclose(loss, NLL.mean(1), rtol=1e-5)
  np.testing.assert_allclose(numbers['token_accuracy'], RIGHT.mean(1), rtol=1e-6)


def test_halton_masks_one_by_one_and_counts_every_position():
  given, loss, numbers = call(objectives.Halton())
  masked = given['symbols'] == MASKED
  np.testing.assert_array_equal(np.where(masked, SYMBOLS, given['symbols']), SYMBOLS)
  # The mean of arccos(u) / (pi / 2); its spread is that of u, not of a fixed share.
  share = masked.mean(1)
  assert abs(share.mean() - 2 / np.pi) < 0.01
  assert {0, LENGTH} <= set(masked.sum(1))
  np.testing.assert_allclose(loss, NLL.mean(1), rtol=1e-5)
  some = masked.any(1)
  right = (RIGHT & masked).sum(1)[some] / masked.sum(1)[some]
  np.testing.assert_allclose(numbers['token_accuracy'][some], right, rtol=1e-6)
  assert not np.asarray(numbers['token_accuracy'])[~some].any()


def test_maskgit_masks_half_or_more_and_counts_those_alone():
  given, loss, numbers = call(objectives.MaskGIT())
  masked = given['symbols'] == MASKED
  assert masked.sum(1).min() == LENGTH // 2
  assert masked.sum(1).max() == LENGTH
  smooth = 0.9 * NLL - 0.1 * LOG_P.mean(-1)
  np.testing.assert_allclose(loss, (smooth * masked).sum(1) / masked.sum(1), rtol=1e-5)
  right = (RIGHT & masked).sum(1) / masked.sum(1)
  np.testing.assert_allclose(numbers['token_accuracy'], right, rtol=1e-6)
  free, *_ = call(objectives.MaskGIT(min_rate=0.0))
  assert (free['symbols'] == MASKED).sum(1).min() == 1


@pytest.mark.parametrize(('progress', 'share'), [(0, 1), (0.5, 1), (0.625, 0.5), (0.75, 0), (1, 0)])
def test_orders_are_random_first_and_raster_in_the_end(progress, share):
  given, loss, _ = call(objectives.Permuted(), progress)
  orders = given['orders']
  np.testing.assert_array_equal(np.sort(orders, axis=1), np.arange(LENGTH)[None].repeat(4000, 0))
  permuted = (orders != np.arange(LENGTH)).any(1)
  assert abs(permuted.mean() - share) < 0.03
  if share == 1:  # every place comes first as often as any other
    assert np.bincount(orders[:, 0], minlength=LENGTH).min() > 200
  # Logits come in the order of the visits; the network itself puts the symbols into it.
  np.testing.assert_array_equal(given['symbols'], SYMBOLS)
  targets = np.take_along_axis(SYMBOLS, orders, 1)
  nll = -np.take_along_axis(LOG_P, targets[..., None], -1)[..., 0]
  np.testing.assert_allclose(loss, nll.mean(1), rtol=1e-5)


@pytest.mark.parametrize('objective', ALL, ids=lambda objective: type(objective).__name__)
def test_labels_are_dropped_at_the_rate_and_never_when_looking(objective):
  given, *_ = call(objective)
  dropped = given['labels'] == NULL
  np.testing.assert_array_equal(given['labels'][~dropped], LABELS[~dropped])
  assert abs(dropped.mean() - objective.label_drop) < 0.02
  given, *_ = call(objectives.held_out(objective))
  np.testing.assert_array_equal(given['labels'], LABELS)


@pytest.mark.parametrize('objective', ALL, ids=lambda objective: type(objective).__name__)
def test_what_is_drawn_for_an_image_is_its_own(objective):
  whole, loss, _ = call(objective, 0.6)
  rows = np.array([3, 900, 17])
  part, its, _ = call(objective, 0.6, rows)
  for name, value in part.items():
    np.testing.assert_array_equal(value, whole[name][rows], err_msg=name)
  np.testing.assert_allclose(its, loss[rows], rtol=1e-6)
  jitted = jax.jit(functools.partial(objective, lambda *_, **__: jnp.asarray(LOGITS), null=NULL))
  again, _ = jitted(SYMBOLS, LABELS, KEYS, jnp.float32(0.6))
  np.testing.assert_allclose(again, loss, rtol=1e-5)
