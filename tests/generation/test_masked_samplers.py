import dataclasses
import functools

import jax
import jax.numpy as jnp
import masked_goldens as goldens
import numpy as np
import pytest
from golden_data import compare
from networks.random_params import QUICK, random_params

from vqjax import sharding
from vqjax.errors import UserError
from vqjax.generation import orders
from vqjax.generation.halton_maskgit import MaskedTransformer
from vqjax.generation.layout import MASKED, Layout
from vqjax.generation.masked_samplers import (
  ConfidenceSampler,
  HaltonSampler,
  MaskGITSampler,
)
from vqjax.generation.masked_steps import draw_by


def most_probable(logits, step):
  return jnp.argmax(logits, axis=-1)


# Settings of the goldens' traces for our fields.
def halton(step, w, sm_temp_min=1.0, sm_temp_max=1.0, temp_warmup=0, randomize=False):
  return HaltonSampler(
    steps=step,
    guidance=1 + w,
    inverse_temperature_start=sm_temp_min,
    inverse_temperature_end=sm_temp_max,
    temp_warmup=temp_warmup,
    randomize=randomize,
  )


def confidence(step, w, sched_mode, r_temp=4.5, randomize='linear'):
  return ConfidenceSampler(
    steps=step,
    guidance=1 + w,
    choice_temperature=r_temp,
    schedule=sched_mode,
    randomize=randomize,
  )


def traces(names, kind):
  return [(name, trace) for name in names for trace in goldens.load(name)[-1][kind]]


@pytest.mark.parametrize(('name', 'trace'), traces(goldens.HALTON, 'halton'))
def test_golden_halton(name, trace):
  model, variables, _, io, sidecar = goldens.load(name)
  labels = jnp.asarray(io['labels'], jnp.int32)
  expected = goldens.symbols(io[f'codes_{trace}'], model.layout.base)
  labels = labels[: expected.shape[1]]
  sampler = halton(**sidecar['halton'][trace])
  rolls = jnp.asarray(io[f'roll_{trace}'], jnp.int32) if sampler.randomize else None
  run = lambda params: sampler.trace(model, params, labels, most_probable, None, rolls)
  found = jax.jit(run, compiler_options=QUICK)(variables['params'])
  for t, symbols in enumerate(expected):
    np.testing.assert_array_equal(found[t], symbols, err_msg=f'step {t}')


@pytest.mark.parametrize(('name', 'trace'), traces(goldens.HALTON, 'confidence'))
def test_golden_confidence(name, trace):
  model, variables, _, io, sidecar = goldens.load(name)
  labels = jnp.asarray(io['labels'], jnp.int32)
  sampler = confidence(**sidecar['confidence'][trace])

  none = np.zeros((sampler.steps, *labels.shape, model.layout.length), np.float32)
  choices = jnp.asarray(io.get(f'gumbel_{trace}', none))
  run = lambda params: sampler.trace(
    model, params, labels, most_probable, lambda step: choices[step]
  )
  symbols, drawn = jax.jit(run, compiler_options=QUICK)(variables['params'])
  num_codes = model.layout.base
  for t in range(sampler.steps):
    expected = goldens.symbols(io[f'pred_{trace}'][t], num_codes)
    np.testing.assert_array_equal(drawn[t], expected, err_msg=f'drawn in step {t}')
    expected = goldens.symbols(io[f'codes_{trace}'][t], num_codes)
    np.testing.assert_array_equal(symbols[t], expected, err_msg=f'after step {t}')


@pytest.mark.parametrize(('name', 'trace'), traces(goldens.MASKGIT, 'decoding'))
def test_golden_maskgit(name, trace):
  model, variables, _, io, sidecar = goldens.load(name)
  settings = sidecar['decoding'][trace]
  sampler = MaskGITSampler(
    steps=settings['num_iter'],
    choice_temperature=settings['choice_temperature'],
    start=settings.get('start_iter', 0),
  )
  inputs = jnp.asarray(io[f'inputs_{trace}'])
  labels, known = inputs[:, 0] - model.layout.base, inputs[:, 1:]
  given = lambda name, ndim: jnp.asarray(
    io.get(f'{name}_{trace}', np.zeros((sampler.steps,) + (1,) * ndim, np.float32))
  )
  tokens, choices = given('gumbel_token', 3), given('gumbel_choice', 2)

  def draw(logits, step):
    return jnp.argmax(logits + tokens[step, :, -logits.shape[1] :], axis=-1)  # without the class's

  def noise(step):
    return choices[step, :, -model.layout.length :]

  run = lambda params: sampler.trace(model, params, labels, draw, noise, known)
  symbols, drawn = jax.jit(run, compiler_options=QUICK)(variables['params'])
  rules = {'arrays': {name: {'exact': True} for name in ('cur', 'final', 'mask_len')}}
  compare(rules, 'cur', symbols, io[f'cur_{trace}'][..., 1:])
  compare(rules, 'mask_len', (symbols == MASKED).sum(axis=-1), io[f'mask_len_{trace}'])
  final = io[f'final_{trace}'].swapaxes(0, 1)[sampler.start :, :, 1:]
  compare(rules, 'final', drawn, final)


LAYOUT = Layout((3, 4), 5)
HALTON, CONFIDENCE, MASKGIT = HaltonSampler(steps=4), ConfidenceSampler(4), MaskGITSampler(4)
SAMPLERS = (
  HALTON,
  dataclasses.replace(HALTON, steps=12, randomize=True, top_k=2),
  CONFIDENCE,
  *(dataclasses.replace(CONFIDENCE, randomize=kind) for kind in ('warm_up', 'random', 'no')),
  MASKGIT,
  dataclasses.replace(MASKGIT, start=2, schedule='log'),
)


@dataclasses.dataclass(frozen=True)
class Table:
  """A network whose logits are a table's row of the class, moved by what is known.

  Attributes:
    extra: outputs beyond the symbols.
  """

  layout: Layout = LAYOUT
  num_classes: int = 2
  has_null: bool = True
  extra: int = 0

  def apply(self, variables, symbols, labels):
    seen = jnp.mean((symbols + 1).astype(jnp.float32), axis=1)[:, None, None]
    return variables['params'][labels] * seen

  @property
  def params(self):
    shape = (self.num_classes + 1, self.layout.length, self.layout.base + self.extra)
    return jnp.asarray(np.random.default_rng(0).normal(0, 1, shape), jnp.float32)


LABELS, KEYS = jnp.array([0, 1, 0]), jax.random.split(jax.random.key(0), 3)


@functools.cache
def compiled(sampler, model):
  run = lambda keys, known: sampler(model, model.params, LABELS, keys, known)
  return jax.jit(run, compiler_options=QUICK)


def sample(sampler, model=Table(), keys=KEYS, known=None):
  return np.asarray(compiled(sampler, model)(keys, known))


@pytest.mark.parametrize('sampler', SAMPLERS, ids=str)
def test_fills_what_is_unknown_and_nothing_else(sampler):
  for extra in (0, 1):
    symbols = sample(sampler, Table(extra=extra))
    assert symbols.shape == (3, 12)
    assert symbols.dtype == np.int32
    assert symbols.min() >= 0
    assert symbols.max() < 5
  assert (sample(sampler, keys=jax.random.split(jax.random.key(1), 3)) != sample(sampler)).any()
  known = jnp.where(jnp.arange(12)[None] % 3 == jnp.arange(3)[:, None], MASKED, 4)
  symbols = sample(sampler, known=known)
  np.testing.assert_array_equal(symbols[known != MASKED], 4)
  assert symbols.min() >= 0
  everything = jnp.asarray(sample(sampler))
  np.testing.assert_array_equal(sample(sampler, known=everything), everything)


class WithoutLast(Table):
  """Never the last symbol, which also stands in for one that a sampler left masked."""

  def apply(self, variables, symbols, labels):
    return super().apply(variables, symbols, labels).at[..., -1].set(-1e9)


@pytest.mark.parametrize('sampler', [HALTON, CONFIDENCE, MASKGIT], ids=str)
@pytest.mark.parametrize('steps', [1, 12])
def test_nothing_is_left_masked_by_any_number_of_steps(sampler, steps):
  sampler, model = dataclasses.replace(sampler, steps=steps), WithoutLast()
  known = jnp.where(jnp.arange(12)[None] % 3 == jnp.arange(3)[:, None], MASKED, 2)
  for symbols in (sample(sampler, model), sample(sampler, model, known=known)):
    assert symbols.min() >= 0
    assert symbols.max() < LAYOUT.base - 1


@pytest.mark.parametrize('sampler', [HALTON, CONFIDENCE, MASKGIT], ids=str)
def test_guidance(sampler):
  plain = sample(sampler)
  batches = []

  @dataclasses.dataclass(frozen=True)
  class Counting(Table):
    def apply(self, variables, symbols, labels):
      batches.append(len(labels))
      return super().apply(variables, symbols, labels)

  model = Counting()
  for guidance in (0, 1.0):
    new = dataclasses.replace(sampler, guidance=guidance)
    np.testing.assert_array_equal(sample(new, model), plain)
  assert set(batches) == {3}
  guided = dataclasses.replace(sampler, guidance=4.0)
  assert (sample(guided, model) != plain).any()
  assert batches[-1] == 6


def test_guidance_is_u_plus_s_times_c_minus_u():
  model = Table()
  logits = np.asarray(model.params)
  guided = logits[2] + 3.0 * (logits[LABELS] - logits[2])
  sampler = HaltonSampler(steps=1, guidance=3.0)
  known = jnp.full((3, 12), MASKED).at[:, 0].set(1)  # so that the logits are not all zero
  found = sampler.trace(model, model.params, LABELS, most_probable, known)[-1]
  np.testing.assert_array_equal(found[:, 1:], guided.argmax(axis=-1)[:, 1:])


def test_halton_reveals_every_symbol_once():
  model = Table(Layout((3, 4), 25, groups=2, digits=2))
  sampler = HaltonSampler(steps=9)
  known = jnp.full((3, 48), MASKED).at[0, 5:9].set(2)
  for rolls in (None, jnp.array([0, 3, 11])):
    found = sampler.trace(model, model.params, LABELS, most_probable, known, rolls)
    before = np.concatenate([known[None], found[:-1]])
    new = (before == MASKED) & (found != MASKED)
    # Once written, a symbol stays.
    np.testing.assert_array_equal(found[before != MASKED], before[before != MASKED])
    np.testing.assert_array_equal(new.sum(axis=0), known == MASKED)
    # The cells come in their order, the parts of each one after another.
    cells = orders.halton(model.layout)
    step = np.argmax(new, axis=0).reshape(3, 12, 4)
    for i in (1, 2):
      own = np.roll(cells, 0 if rolls is None else int(rolls[i]))
      assert (np.diff(step[i][own].reshape(-1)) >= 0).all()
    if rolls is None:
      counts = orders.reveal_counts(48, orders.steps_done(9))
      np.testing.assert_array_equal(new[:, 1].sum(axis=-1), np.diff(counts, prepend=0))


def test_inverse_temperatures():
  sampler = HaltonSampler(4, 1.0, 1.0, 2.5, temp_power=2.0, temp_warmup=1)
  np.testing.assert_allclose(sampler._inverse_temperatures(), [0.5, 2.25, 4.0, 6.25])


@pytest.mark.parametrize('size', [1, 2, 7, 16])
def test_draws_are_of_the_distribution(size):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(0, 2, (2, 1, size)), jnp.float32).at[1, 0, 0].set(-jnp.inf)
  keys = jax.random.split(jax.random.key(3), 2)
  times = 4000
  many = jnp.broadcast_to(logits, (2, times, size))
  drawn = np.asarray(jax.jit(draw_by(keys), compiler_options=QUICK)(many, jnp.int32(5)))
  p = np.asarray(jax.nn.softmax(logits[:, 0]))
  for i in range(2 if size > 1 else 1):
    share = np.bincount(drawn[i], minlength=size) / times
    assert share.shape == (size,)
    assert (np.abs(share - p[i]) <= 4.5 * np.sqrt(p[i] * (1 - p[i]) / times)).all()


def test_top_k_draws_among_the_most_probable():
  model = Table()
  sampler = HaltonSampler(steps=12, top_k=2)
  ranks = np.argsort(np.argsort(-np.asarray(model.params)[LABELS], axis=-1), axis=-1)
  known = jnp.full((3, 12), MASKED).at[:, 0].set(1)
  found = [
    sample(sampler, known=known, keys=jax.random.split(jax.random.key(i), 3)) for i in range(20)
  ]
  rank = np.array([np.take_along_axis(ranks, x[..., None], axis=-1)[:, 1:] for x in found])
  assert set(rank.reshape(-1)) == {0, 1}


def test_a_drawn_mask_stays_masked_and_becomes_the_last_code():
  model = Table(extra=1)
  params = model.params.at[..., 5].add(10.0)
  known = jnp.full((3, 12), MASKED).at[:, 0].set(1)
  found = HALTON.trace(model, params, LABELS, most_probable, known)
  assert (found[:-1, :, 1:] == MASKED).all()
  assert (found[-1, :, 1:] == 4).all()


@pytest.mark.parametrize(
  ('kind', 'settings', 'message'),
  [
    (
      MaskGITSampler,
      {'steps': 0},
      'steps is 0; legal: 1 or more, up to the symbols of an image.',
    ),
    (ConfidenceSampler, {'guidance': 0.5}, 'guidance is 0.5; legal: 0 or 1 (none), or more.'),
    (HaltonSampler, {'top_k': -1}, 'top_k is -1; legal: 0 (all symbols) or more.'),
    (HaltonSampler, {'temp_warmup': -1}, 'temp_warmup is -1; legal: 0 (no step) or more.'),
    (
      ConfidenceSampler,
      {'randomize': 'yes'},
      "randomize is 'yes'; legal: linear, warm_up, random, no.",
    ),
    (
      MaskGITSampler,
      {'choice_temperature': -1.0},
      'choice_temperature is -1.0; legal: 0 (no noise) or more.',
    ),
    (
      MaskGITSampler,
      {'steps': 4, 'start': 4},
      'start is 4; legal: 0 or more, and less than steps.',
    ),
  ],
)
def test_settings_that_there_are_not(kind, settings, message):
  with pytest.raises(UserError) as error:
    kind(**settings)
  assert str(error.value) == message


@pytest.mark.parametrize(
  ('sampler', 'model', 'message'),
  [
    (HaltonSampler(13), Table(), 'steps is 13; legal: 1..12, as an image has 12 symbols.'),
    (
      MaskGITSampler(4, guidance=2.0),
      Table(has_null=False),
      'guidance is 2, but Table was trained with no null class; set it to 0.',
    ),
    (
      MaskGITSampler(4, schedule='sine'),
      Table(),
      "the mask schedule is 'sine'; legal: arccos, cosine, linear, root, square, log, exp, or pow "
      'with a number behind it, such as pow2.5.',
    ),
  ],
)
def test_settings_that_do_not_fit_the_network(sampler, model, message):
  with pytest.raises(UserError) as error:
    sampler(model, model.params, LABELS, KEYS)
  assert str(error.value) == message


@pytest.mark.parametrize(
  'sampler',
  [
    HaltonSampler(4, guidance=2.0, randomize=True),
    ConfidenceSampler(4, guidance=2.0),
    MaskGITSampler(4, guidance=2.0),
  ],
  ids=str,
)
def test_neither_batch_nor_devices_matter(sampler):
  model = MaskedTransformer(Layout((4, 4), 7), 3, width=16, depth=1, heads=2)
  labels, keys = jnp.arange(8) % 4, jax.random.split(jax.random.key(2), 8)
  params = random_params(model, jnp.zeros((1, 16), jnp.int32), labels[:1])
  run = jax.jit(functools.partial(sampler, model), compiler_options=QUICK)
  together = run(params, labels, keys)
  alone = [run(params, labels[i : i + 1], keys[i : i + 1]) for i in range(8)]
  np.testing.assert_array_equal(together, np.concatenate(alone))
  over_eight = sharding.batch(sharding.make_mesh({'data': 8, 'fsdp': 1}))
  spread = run(params, *jax.device_put((labels, keys), over_eight))
  assert len(spread.sharding.device_set) == 8
  np.testing.assert_array_equal(together, spread)
