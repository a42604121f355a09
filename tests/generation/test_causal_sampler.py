"""The causal sampler against the authors' decodings, and what it promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from generation.causal_goldens import opened
from golden_data import checkpoint, compare
from networks.random_params import QUICK, random_params

from vqjax import sharding
from vqjax.errors import UserError
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.layout import MASKED, Layout
from vqjax.generation.llamagen import GPT

TRACES = [
  (name, trace)
  for name, part in (
    ('llamagen_gpt_16_a', 'decoding'),
    ('llamagen_gpt_24_a', 'decoding'),
    ('rar_a', 'generation'),
  )
  for trace in checkpoint(name, 'generation')[2][part]
]


@pytest.mark.parametrize(('name', 'trace'), TRACES)
def test_without_noise_symbols_are_the_authors(name, trace):
  golden = opened(name)
  io, sidecar = golden.io, golden.sidecar
  labels = jnp.asarray(io['gen_labels'], jnp.int32)
  rar = name.startswith('rar')
  if rar:
    setting = sidecar['generation'][trace]
    temperature = setting['randomize_temperature']
    sampler = CausalSampler(
      temperature=temperature,
      guidance=setting['guidance_scale'],
      guidance_power=setting['guidance_scale_pow'],
    )
  else:
    setting = sidecar['decoding'][trace]
    sampler = CausalSampler(
      guidance=setting['cfg_scale'], guidance_interval=setting['cfg_interval']
    )
  silent = lambda place: jnp.zeros((1, 1))
  run = jax.jit(
    lambda params: sampler.trace(golden.model, params, labels, silent), compiler_options=QUICK
  )
  symbols, logits = run(golden.variables['params'])
  compare(sidecar, f'tokens_{trace}', symbols, io[f'tokens_{trace}'])
  if rar:
    probabilities = jax.nn.softmax(logits / temperature)
    compare(sidecar, f'probs_{trace}', probabilities, io[f'probs_{trace}'])
  else:
    theirs = io[f'decode_logits_{trace}']
    every = logits.shape[1] // theirs.shape[1]
    compare(sidecar, f'decode_logits_{trace}', logits[:, ::every], theirs)


MODEL = GPT(Layout((2, 3), 7), 3, width=16, depth=1, heads=2)
LABELS = np.arange(8, dtype=np.int32) % 3


@functools.cache
def params():
  return random_params(MODEL, np.zeros((1, 6), np.int32), LABELS[:1])


@functools.cache
def compiled(sampler, model=MODEL):
  return jax.jit(functools.partial(sampler, model), compiler_options=QUICK)


def keys(count=8):
  return jax.random.split(jax.random.key(1), count)


GUIDED = CausalSampler(temperature=0.9, top_k=5, top_p=0.95, guidance=2.5)


def test_neither_the_batch_nor_the_devices_change_an_image():
  run = compiled(GUIDED)
  together = np.asarray(run(params(), LABELS, keys()))
  assert together.shape == (8, 6)
  assert len(np.unique(together, axis=0)) > 4
  alone = [run(params(), LABELS[i : i + 1], keys()[i : i + 1]) for i in range(8)]
  np.testing.assert_array_equal(np.concatenate(alone), together)
  assert jax.device_count() == 8
  mesh = sharding.make_mesh({'data': -1, 'fsdp': 1})
  spread = jax.device_put((LABELS, keys()), sharding.batch(mesh))
  everywhere = jax.device_put(params(), sharding.replicated(mesh))
  found = run(everywhere, *spread)
  assert len(found.sharding.device_set) == 8
  np.testing.assert_array_equal(found, together)


def test_guidance_of_nought_or_one_is_the_condition_alone():
  """Bit for bit; and then the null class is not even looked at."""
  plain = compiled(CausalSampler())(params(), LABELS, keys())
  one = compiled(CausalSampler(guidance=1))
  np.testing.assert_array_equal(one(params(), LABELS, keys()), plain)
  other = jax.tree.map(np.copy, params())
  other['cls_embedding']['embedding'][-1] = np.nan
  np.testing.assert_array_equal(one(other, LABELS, keys()), plain)
  guided = compiled(CausalSampler(guidance=4))(params(), LABELS, keys())
  assert (np.asarray(guided) != np.asarray(plain)).any()


def test_known_symbols_stay_and_are_seen():
  run = compiled(GUIDED)
  free = np.asarray(run(params(), LABELS, keys()))
  np.testing.assert_array_equal(run(params(), LABELS, keys(), free[::-1].copy()), free[::-1])
  known = np.full((8, 6), MASKED, np.int32)
  np.testing.assert_array_equal(run(params(), LABELS, keys(), known), free)
  known[:, 2] = (free[:, 2] + 1) % 7
  found = np.asarray(run(params(), LABELS, keys(), known))
  np.testing.assert_array_equal(found[:, 2], known[:, 2])
  np.testing.assert_array_equal(found[:, :2], free[:, :2])
  assert (found[:, 3:] != free[:, 3:]).any()


def test_symbols_are_drawn_from_the_models_distribution():
  model = MODEL.clone(layout=Layout((1, 2), 4), depth=1)
  count = 4000
  labels = np.zeros(count, np.int32)
  weights = random_params(model, np.zeros((1, 2), np.int32), labels[:1], seed=3)
  symbols = np.asarray(compiled(CausalSampler(), model)(weights, labels, keys(count)))
  pairs = np.array([[a, b] for a in range(4) for b in range(4)], np.int32)
  logits = jax.jit(model.apply)({'params': weights}, pairs, np.zeros(16, np.int32))
  p = np.take_along_axis(np.asarray(jax.nn.softmax(logits)), pairs[..., None], axis=-1)
  expected = p[:, 0, 0] * p[:, 1, 0]
  found = np.bincount(symbols @ np.array([4, 1]), minlength=16) / count
  np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / count))
  assert expected.max() > 2 * expected.min()


def test_temperature_nought_takes_the_most_probable():
  cold = compiled(CausalSampler(temperature=0))(params(), LABELS, keys())
  first = compiled(CausalSampler(top_k=1))(params(), LABELS, keys())
  np.testing.assert_array_equal(cold, first)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('temperature', -0.1),
    ('top_k', -1),
    ('top_p', 0),
    ('top_p', 1.1),
    ('guidance', 0.5),
    ('guidance', -2),
    ('guidance_interval', -2),
    ('guidance_power', -1),
    ('guidance', float('nan')),
  ],
)
def test_settings_outside_the_legal_ones_are_refused(field, value):
  with pytest.raises(UserError, match=rf'{field} is {value}; legal: '):
    CausalSampler(**{field: value})


def test_guidance_of_a_transformer_without_classes_is_refused():
  model = MODEL.clone(num_classes=0)
  with pytest.raises(UserError, match=r'guidance is 2\.5, but GPT was trained with no classes'):
    GUIDED(model, params(), LABELS, keys())
