import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqjax.quantizers import (
  FSQ,
  Affine,
  Alternating,
  Ema,
  Grouped,
  LeastRecent,
  Linear,
  RarelyUsed,
  Residual,
  VectorQuantizer,
  replace_dead_codes,
)

LEARNERS = [None, Ema(0.8), Alternating(optax.sgd(0.1, momentum=0.9))]
TRANSFORMS = [None, Affine(2.0, groups=2), Linear(bias=True)]
KEYS = {'params': jax.random.key(0), 'vq': jax.random.key(1)}
normal = jax.nn.initializers.normal(1.0)


def trained(vq, z, steps, variables=None):
  """Variables after `steps` training forwards on rows `z`."""
  variables = vq.init(KEYS, z, train=True) if variables is None else variables

  @jax.jit
  def step(variables, key):
    return vq.apply(variables, z, train=True, mutable=['vq'], rngs={'vq': key})[1]

  for i in range(steps):
    variables = {**variables, **step(variables, jax.random.key(i))}
  return variables


def codes_of(vq, variables):
  return vq.apply(variables, jnp.arange(vq.num_codes), method='lookup')


@pytest.mark.parametrize('learner', LEARNERS, ids=['gradient', 'ema', 'alternating'])
@pytest.mark.parametrize('transform', TRANSFORMS, ids=str)
def test_dead_codes_land_on_rows_on_the_right_side_of_the_transform(transform, learner):
  vq = VectorQuantizer(
    16,
    transform=transform,
    learner=learner,
    replacement=LeastRecent(3, noise=0.0),
    codebook_init=normal,
  )
  z = 5 + jax.random.normal(jax.random.key(2), (64, 4))
  variables = vq.init(KEYS, z, train=True)
  if isinstance(transform, Affine):  # so that its inverse is not the identity
    own = variables['params']['transform']
    variables['params']['transform'] = jax.tree.map(lambda x: x + 0.3, own)
  variables = trained(vq, z, 3, variables)
  dead = np.asarray(variables['vq']['replacement']['state'] >= 3)
  before = codes_of(vq, variables)
  assert 0 < dead.sum() < 16
  revived, _ = replace_dead_codes(vq, variables, KEYS['vq'])
  after = codes_of(vq, revived)
  np.testing.assert_array_equal(after[~dead], before[~dead])
  distance = np.linalg.norm(after[:, None] - z[None], axis=-1).min(1)
  assert distance[dead].max() < 1e-2  # Linear's inverse has a ridge
  assert (revived['vq']['replacement']['state'][dead] == 0).all()
  # And they stay: neither an old sum nor an old moment carries them back.
  later = codes_of(vq, trained(vq, z, 1, revived))
  assert np.linalg.norm(later - 5, axis=-1)[dead].max() < 6


@pytest.mark.parametrize('learner', LEARNERS, ids=['gradient', 'ema', 'alternating'])
def test_replacement_brings_all_codes_into_use(learner):
  vq = VectorQuantizer(64, learner=learner, replacement=RarelyUsed(0.1, 0.8), codebook_init=normal)
  z = 4 + jax.random.normal(jax.random.key(2), (1024, 4))
  variables = vq.init(KEYS, z, train=True)
  used = lambda: float(vq.apply(variables, z, train=False).metrics['usage'])
  assert used() < 0.4
  for _ in range(8):
    variables = trained(vq, z, 12, variables)
    variables, _ = replace_dead_codes(vq, variables, KEYS['vq'])
  assert used() >= 0.95


def test_a_code_dies_after_exactly_timeout_forwards():
  vq = VectorQuantizer(2, replacement=LeastRecent(4, noise=0.0))
  z = jnp.ones((8, 2))
  variables = vq.init(KEYS, z, train=True)
  variables['params']['codebook'] = jnp.array([[1.0, 1], [-9, -9]])
  for age in range(1, 5):
    variables = trained(vq, z, 1, variables)
    revived, _ = replace_dead_codes(vq, variables, KEYS['vq'])
    moved = (revived['params']['codebook'][1] == 1).all()
    assert moved == (age == 4)
  assert (revived['params']['codebook'][0] == 1).all()


def test_the_threshold_is_a_fraction_of_the_fair_share_whatever_the_batch():
  """Unused codes die at the same step with 8 rows a step and with 8000."""
  policy = RarelyUsed(0.1, 0.9)
  for rows in (8, 8000):
    state = jnp.ones(16)
    counts = jnp.zeros(16).at[:8].set(rows / 8)
    for _ in range(21):  # 0.9 ** 21 > 0.1
      state = policy.update(state, counts)
    assert not policy.dead(state).any()
    for _ in range(2):
      state = policy.update(state, counts)
    np.testing.assert_array_equal(policy.dead(state), [False] * 8 + [True] * 8)


def test_more_dead_codes_than_rows_wait():
  vq = VectorQuantizer(16, replacement=LeastRecent(1, noise=0.0), codebook_init=normal)
  z = 9 + jax.random.normal(jax.random.key(0), (3, 4))
  variables = trained(vq, z, 1)
  revived, _ = replace_dead_codes(vq, variables, KEYS['vq'])
  changed = (revived['params']['codebook'] != variables['params']['codebook']).any(-1)
  assert changed.sum() == 3
  assert len(np.unique(revived['params']['codebook'][changed], axis=0)) == 3
  few = VectorQuantizer(16, replacement=LeastRecent(1, max_per_step=2), codebook_init=normal)
  variables = trained(few, z, 1)
  revived, _ = replace_dead_codes(few, variables, KEYS['vq'])
  assert (revived['params']['codebook'] != variables['params']['codebook']).any(-1).sum() == 2


def test_rows_come_from_the_own_group_and_the_own_residual():
  base = VectorQuantizer(8, replacement=LeastRecent(1, noise=0.0), codebook_init=normal)
  z = jnp.concatenate(
    [50 + jax.random.normal(jax.random.key(i), (32, 2)) * s for i, s in ((0, 1.0), (1, 1e-3))], 1
  )
  z = z - jnp.array([[0.0, 0, 100, 100]])  # the groups lie at +50 and -50
  grouped = Grouped(base, 2, share=False)
  variables = trained(grouped, z, 1)
  revived, _ = replace_dead_codes(grouped, variables, KEYS['vq'])
  for name, centre in (('group_0', 50), ('group_1', -50)):
    before, after = (v['params'][name]['codebook'] for v in (variables, revived))
    changed = (before != after).any(-1)
    assert changed.sum() >= 6
    assert jnp.abs(after[changed] - centre).max() < 6

  residual = Residual(base, 2)
  variables = trained(residual, z, 1)
  first = variables['params']['level_0']['codebook']
  revived, _ = replace_dead_codes(residual, variables, KEYS['vq'])
  rest = z - first[vq_indices(residual, variables, z)]
  fresh = revived['params']['level_1']['codebook']
  changed = (fresh != variables['params']['level_1']['codebook']).any(-1)
  nearest = jnp.linalg.norm(fresh[:, None] - rest[None], axis=-1).min(1)
  assert changed.sum() >= 6
  assert nearest[changed].max() < 1e-4


def vq_indices(residual, variables, z):
  return residual.apply(variables, z, train=False).indices[:, 0]


def test_moments_of_replaced_codes_start_anew():
  vq = VectorQuantizer(16, replacement=LeastRecent(1), codebook_init=normal)
  z = 9 + jax.random.normal(jax.random.key(0), (64, 4))
  variables = trained(vq, z, 1)
  params = {'other': jnp.ones(3), 'quantizer': variables['params']}
  model = {'params': params, 'vq': {'quantizer': variables['vq']}}
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  state = optimizer.init(params)
  state = optax.tree.map_params(optimizer, jnp.ones_like, state)
  revive = jax.jit(lambda v, s: replace_dead_codes(vq, v, KEYS['vq'], opt_state=s))
  revived, fresh = revive(model, state)
  changed = (revived['params']['quantizer']['codebook'] != variables['params']['codebook']).any(-1)
  assert 0 < changed.sum() < 16
  for name in ('mu', 'nu'):
    moments = optax.tree.get(fresh, name)
    np.testing.assert_array_equal(moments['other'], 1)
    expected = jnp.broadcast_to(jnp.where(changed, 0.0, 1.0)[:, None], (16, 4))
    np.testing.assert_array_equal(moments['quantizer']['codebook'], expected)
  np.testing.assert_array_equal(optax.tree.get(fresh, 'count'), optax.tree.get(state, 'count'))


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adafactor(1e-3, min_dim_size_to_factor=4),
    optax.multi_transform(
      {'codes': optax.adam(1e-3), 'rest': optax.sgd(1e-3)},
      {'other': 'rest', 'quantizer': 'codes'},
    ),
    optax.masked(optax.adam(1e-3), {'other': False, 'quantizer': True}),
  ],
  ids=['adafactor', 'multi_transform', 'masked'],
)
def test_any_optimizer_state_keeps_its_tree(optimizer):
  vq = VectorQuantizer(16, replacement=LeastRecent(1), codebook_init=normal)
  variables = trained(vq, 9 + jax.random.normal(jax.random.key(0), (64, 4)), 1)
  params = {'other': jnp.ones(3), 'quantizer': variables['params']}
  model = {'params': params, 'vq': {'quantizer': variables['vq']}}
  with jax.numpy_dtype_promotion('standard'):
    state = optimizer.init(params)
  _, fresh = replace_dead_codes(vq, model, KEYS['vq'], opt_state=state)
  described = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype), tree)
  assert described(fresh) == described(state)


def test_a_batch_without_rows_moves_nothing():
  vq = VectorQuantizer(8, learner=Ema(0.8), replacement=LeastRecent(2))
  z = jnp.ones((4, 3))
  variables = trained(vq, z, 2)
  step = jax.jit(
    lambda mask: vq.apply(variables, z, train=True, mask=mask, mutable=['vq'], rngs=KEYS)[1]
  )
  state = step(jnp.zeros(4, bool))['vq']
  same = ('codebook', 'replacement')
  jax.tree.map(
    np.testing.assert_array_equal, *({k: s[k] for k in same} for s in (state, variables['vq']))
  )


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: LeastRecent(0), r'LeastRecent\.timeout is 0; legal: at least 1'),
    (lambda: LeastRecent(noise=-1.0), r'LeastRecent\.noise is -1\.0; legal: at least 0'),
    (lambda: RarelyUsed(1.5), r'RarelyUsed\.threshold is 1\.5; legal: 0 < threshold < 1'),
    (lambda: RarelyUsed(max_per_step=0), r'RarelyUsed\.max_per_step is 0; legal: at least 1'),
    (
      lambda: replace_dead_codes(FSQ((5, 5)), {}, KEYS['vq']),
      r'FSQ has no codes to replace; legal: VectorQuantizer',
    ),
    (
      lambda: replace_dead_codes(VectorQuantizer(4), {}, KEYS['vq']),
      r'VectorQuantizer\.replacement is None; set it to LeastRecent',
    ),
    (
      lambda: replace_dead_codes(
        VectorQuantizer(4, replacement=LeastRecent()),
        VectorQuantizer(4).init(KEYS, jnp.ones((2, 2)), train=True),
        KEYS['vq'],
      ),
      r"variables have no 'replacement' under 'vq'",
    ),
    (
      lambda: VectorQuantizer(4, replacement=LeastRecent()).apply(
        VectorQuantizer(4, replacement=LeastRecent()).init(KEYS, jnp.ones((2, 2)), train=True),
        jnp.ones((2, 2)),
        train=True,
        mutable=['vq'],
      ),
      r'replacement keeps random rows and has no key; apply with rngs',
    ),
  ],
)
def test_wrong_use_is_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()
