"""Codes that are drawn: Stochastic and Gumbel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.quantizers import Gumbel, Stochastic, Sync, VectorQuantizer, combinations, rotation


def test_an_annealed_temperature_follows_its_own_step():
  """At a temperature that falls to almost nothing, the drawn code becomes the nearest."""
  schedule = lambda step: jnp.where(step < 3, 100.0, 1e-6)
  vq = VectorQuantizer(16, assign=Stochastic(schedule))
  z = jax.random.normal(jax.random.key(1), (64, 8))
  rngs = {'params': jax.random.key(0), 'vq': jax.random.key(0)}
  variables = vq.init(rngs, z, train=True)
  nearest = vq.apply(variables, z, train=False).indices
  agreement = []
  for step in range(5):
    rngs = {'vq': jax.random.key(step)}
    out, state = vq.apply(variables, z, train=True, mutable=['vq'], rngs=rngs)
    variables |= state
    agreement.append(float((out.indices == nearest).mean()))
  assert max(agreement[:3]) < 0.5
  assert agreement[3:] == [1, 1]
  assert variables['vq']['step'] == 5


def test_stochastic_draws_with_the_stated_probabilities():
  z, codes = jnp.zeros((20_000, 1)), jnp.array([[0.5], [1.0], [-2.0]])
  for squared in (False, True):
    distance = np.abs(np.array([0.5, 1, 2])) ** (2 if squared else 1)
    expected = np.exp(-distance / 0.7) / np.exp(-distance / 0.7).sum()
    drawn = Stochastic(0.7, squared)(z, codes, key=jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), expected, atol=0.02)


def test_gumbel_has_the_gradient_of_its_relaxation():
  z = jax.random.normal(jax.random.key(1), (6, 4))
  codes = jax.random.normal(jax.random.key(2), (5, 4))
  key, t = jax.random.key(3), 0.8
  vq = VectorQuantizer(5, assign=Gumbel(t), commitment_weight=0.0, codebook_weight=0.0)

  def ours(codes, z):
    out = vq.apply({'params': {'codebook': codes}}, z, train=True, rngs={'vq': key})
    return jnp.sum(out.z_q**2), out

  def relaxation(codes, z):
    logits = -jnp.sum((z[:, None] - codes[None]) ** 2, -1)
    noise = vq.apply(
      {}, method=lambda m: jax.random.gumbel(m.make_rng('vq'), (6, 5)), rngs={'vq': key}
    )
    return jax.nn.softmax((logits + noise) / t) @ codes, (logits + noise).argmax(-1)

  grads, out = jax.grad(ours, (0, 1), has_aux=True)(codes, z)
  (_, chosen), pull = jax.vjp(relaxation, codes, z)
  np.testing.assert_array_equal(out.indices, chosen)
  np.testing.assert_array_equal(out.z_q, codes[chosen])
  expected = pull((2 * codes[chosen], np.zeros(chosen.shape, jax.dtypes.float0)))
  for a, b in zip(grads, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_rotation_with_drawn_codes_warns():
  combinations._warn_of_draws.cache_clear()
  with pytest.warns(UserWarning, match='known to diverge: a drawn code may lie anywhere'):
    VectorQuantizer(16, assign=Stochastic(), estimator=Sync(rotation))


def test_a_draw_without_a_key_says_which():
  vq = VectorQuantizer(16, assign=Stochastic())
  with pytest.raises(ValueError, match=r'Stochastic draws codes and has no key; apply with rngs'):
    vq.apply(vq.init(jax.random.key(0), jnp.ones((4, 8)), train=True), jnp.ones((4, 8)), train=True)
