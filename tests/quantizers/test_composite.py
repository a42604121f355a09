import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqjax.quantizers import (
  FSQ,
  Alternating,
  Ema,
  Grouped,
  Gumbel,
  Residual,
  RunningAffine,
  Sync,
  VectorQuantizer,
  code_counts,
)

KEYS = {'params': jax.random.key(0), 'vq': jax.random.key(1)}
normal = jax.nn.initializers.normal(1.0)
Z = jax.random.normal(jax.random.key(2), (4, 6, 8))


def test_a_shared_codebook_moves_once_by_the_rows_of_all_levels():
  learner = Ema(0.9)
  vq = Residual(VectorQuantizer(16, learner=learner, codebook_init=normal), 3, share=True)
  variables = vq.init(KEYS, Z, train=True)
  out, state = vq.apply(variables, Z, train=True, mutable=['vq'])
  own = variables['vq']['base']
  rows, rest = [], Z
  for level in range(3):
    rows.append(rest)
    rest = rest - own['codebook'][out.indices[..., level]]
  rows = jnp.stack(rows, axis=-2).reshape(-1, 8)
  indices = out.indices.reshape(-1)
  codebook, after = learner.update(
    own['codebook'], own['learner'], rows, indices, jnp.ones(len(rows), bool), vq.base.space({})
  )
  np.testing.assert_allclose(state['vq']['base']['codebook'], codebook, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(state['vq']['base']['learner'].counts, after.counts, rtol=1e-5)


@pytest.mark.parametrize('share', [True, False])
def test_alternating_codebooks_move_in_groups_and_levels(share):
  """In the original their optimizers own a codebook that nobody reads."""
  base = VectorQuantizer(
    16, learner=Alternating(optax.sgd(1.0)), codebook_init=normal, commitment_weight=1.0
  )
  for vq in (Grouped(base, 2, share=share), Residual(base, 2, share=share)):
    variables = vq.init(KEYS, Z, train=True)
    errors = []
    for _ in range(15):
      out, state = vq.apply(variables, Z, train=True, mutable=['vq'])
      moved = jax.tree.map(lambda a, b: bool((a != b).any()), state['vq'], variables['vq'])
      assert all(jax.tree.leaves({k: v['codebook'] for k, v in moved.items()}))
      variables = {**variables, **state}
      errors.append(float(jnp.mean(jnp.square(Z - out.z_q))))
    assert errors[-1] < 0.9 * errors[0]


@pytest.mark.parametrize('gradient', ['sum', 'levels', 'telescoped'])
@pytest.mark.parametrize('learner', [None, Alternating(optax.sgd(1.0))], ids=['gradient', 'moved'])
def test_the_encoder_gets_its_gradient_also_from_a_shared_codebook(learner, gradient):
  base = VectorQuantizer(16, learner=learner, codebook_init=normal, commitment_weight=0.0)
  vq = Residual(base, 3, share=True, gradient=gradient)
  variables = vq.init(KEYS, Z, train=True)
  forward = lambda z: vq.apply(variables, z, train=True, mutable=['vq'])[0].z_q.sum()
  np.testing.assert_allclose(jax.grad(forward)(Z), 3.0 if gradient == 'levels' else 1.0, rtol=1e-6)


def test_gumbel_codes_pass_the_gradient_straight_through_in_evaluation():
  vq = VectorQuantizer(16, assign=Gumbel(), codebook_init=normal)
  variables = vq.init(KEYS, Z, train=True)
  gradient = jax.grad(lambda z: vq.apply(variables, z, train=False).z_q.sum())(Z)
  np.testing.assert_array_equal(gradient, jnp.ones_like(Z))


def test_metrics_under_dropout_are_of_the_levels_that_are_left():
  vq = Residual(VectorQuantizer(16, codebook_init=normal), 4, min_depth=1, level_loss='mean')
  variables = vq.init(KEYS, Z, train=True)
  step = jax.jit(lambda key: vq.apply(variables, Z, train=True, rngs={'vq': key}))
  outs = [step(jax.random.key(seed)) for seed in range(12)]
  alone = [out for out in outs if (out.indices[..., 1:] == -1).all()]
  assert 0 < len(alone) < len(outs)
  single = VectorQuantizer(16).apply({'params': variables['params']['level_0']}, Z, train=True)
  for name, value in single.metrics.items():
    np.testing.assert_allclose(alone[0].metrics[name], value, rtol=1e-5)
  np.testing.assert_allclose(alone[0].loss, single.loss, rtol=1e-5)


def test_sync_reaches_the_codes_of_all_levels():
  base = VectorQuantizer(
    16, estimator=Sync(nu=0.5), codebook_init=normal, commitment_weight=0.0, codebook_weight=0.0
  )
  vq = Residual(base, 3)
  variables = vq.init(KEYS, Z, train=True)
  g = jax.random.normal(jax.random.key(5), Z.shape)

  def task(params, z):
    out = vq.apply({'params': params}, z, train=True)
    return jnp.sum(g * out.z_q), out

  grads, out = jax.grad(task, (0, 1), has_aux=True)(variables['params'], Z)
  np.testing.assert_allclose(grads[1], g, rtol=1e-6)
  for level in range(3):
    scattered = jnp.zeros((16, 8)).at[out.indices[..., level].reshape(-1)].add(g.reshape(-1, 8))
    ours = grads[0][f'level_{level}']['codebook']
    np.testing.assert_allclose(ours, 0.5 * scattered, rtol=1e-5, atol=1e-6)


def test_quantizer_dropout_leaves_out_deep_levels_while_training():
  vq = Residual(VectorQuantizer(16, learner=Ema(0.5), codebook_init=normal), 4, min_depth=1)
  variables = vq.init(KEYS, Z, train=True)
  step = jax.jit(lambda key: vq.apply(variables, Z, train=True, mutable=['vq'], rngs={'vq': key}))
  depths = set()
  for seed in range(24):
    out, state = step(jax.random.key(seed))
    used = (out.indices >= 0).all(axis=(0, 1))
    depth = int(used.sum())
    assert (used == (jnp.arange(4) < depth)).all()
    assert (out.indices[..., depth:] == -1).all()
    assert (out.z_q == vq.apply(variables, out.indices, method='lookup')).all()
    for level in range(4):
      moved = (
        state['vq'][f'level_{level}']['codebook'] != variables['vq'][f'level_{level}']['codebook']
      ).any()
      assert moved == (level < depth)
    depths.add(depth)
  assert depths == {1, 2, 3, 4}
  assert (vq.apply(variables, Z, train=False).indices >= 0).all()
  with pytest.raises(ValueError, match=r'Residual\.min_depth draws levels and has no key'):
    vq.apply(variables, Z, train=True, mutable=['vq'])


def test_tokens_of_levels_left_out_are_not_counted():
  np.testing.assert_array_equal(code_counts(jnp.array([-1, 0, 2, -1]), 3), [1, 0, 1])


def test_more_levels_come_closer():
  errors = []
  for depth in (1, 2, 4, 8):
    vq = Residual(VectorQuantizer(32, codebook_init=normal), depth, share=True, scale=0.6)
    out = vq.apply(vq.init(KEYS, Z, train=True), Z, train=False)
    errors.append(float(jnp.mean(jnp.square(Z - out.z_q))))
  assert errors == sorted(errors, reverse=True)
  assert errors[-1] < 0.3 * errors[0]


def test_shapes_of_nested_structures():
  base = VectorQuantizer(8)
  for vq, shape in (
    (Grouped(base, 2), (2,)),
    (Residual(Grouped(base, 2), 3), (3, 2)),
    (Grouped(Residual(base, 3), 2, share=False), (2, 3)),
    (Grouped(Residual(Grouped(base, 2, share=False), 3), 2), (2, 3, 2)),
  ):
    variables = vq.init(KEYS, Z, train=True)
    out = vq.apply(variables, Z, train=False)
    assert out.indices.shape == (4, 6, *shape)
    assert (out.z_q == vq.apply(variables, out.indices, method='lookup')).all()
    assert vq.num_codes == 8
    assert vq.core.num_codes == 8


def test_unshared_parts_have_their_own_variables():
  vq = Residual(Grouped(VectorQuantizer(8, codebook_init=normal), 2, share=False), 2)
  params = vq.init(KEYS, Z, train=True)['params']
  codebooks = jax.tree.leaves(params)
  assert len(codebooks) == 4
  assert len({float(c.sum()) for c in codebooks}) == 4


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: Grouped(VectorQuantizer(8), 0), r'Grouped\.groups is 0; legal: at least 1'),
    (lambda: Residual(VectorQuantizer(8), 0), r'Residual\.depth is 0; legal: at least 1'),
    (
      lambda: Residual(VectorQuantizer(8), 2, min_depth=3),
      r'Residual\.min_depth is 3; legal: 1 to depth=2',
    ),
    (
      lambda: Residual(VectorQuantizer(8), 2, gradient='all'),
      r"Residual\.gradient is 'all'; legal: sum, levels, telescoped",
    ),
    (
      lambda: Residual(VectorQuantizer(8, transform=RunningAffine()), 2, share=True),
      r'Residual\.share is True, but a transform such as RunningAffine.*set share=False',
    ),
    (
      lambda: Residual(VectorQuantizer(8, loss='cross_entropy'), 2, level_loss='total'),
      r"level_loss='total' is a distance",
    ),
    (lambda: Residual(VectorQuantizer(8), scale=0.0), r'Residual\.scale is 0\.0; legal: above 0'),
    (
      lambda: Residual(VectorQuantizer(8, estimator=Sync()), gradient='telescoped'),
      r"gradient='telescoped' takes back what Sync gives",
    ),
    (lambda: Residual(FSQ((5,)), level_loss='total'), r"level_loss='total' is a distance"),
    (
      lambda: Residual(Grouped(Residual(FSQ((5,)), 2)), 2, share=True),
      r'Residual\.share is True around a Residual',
    ),
    (
      lambda: Residual(Residual(FSQ((5,)), 2), 2, share=True),
      r'Residual\.share is True around a Residual',
    ),
    (
      lambda: Grouped(VectorQuantizer(8), 3).init(KEYS, Z, train=True),
      r'z has width 8, which Grouped\.groups=3 does not divide',
    ),
  ],
)
def test_wrong_use_is_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()
