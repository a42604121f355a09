"""A small train state, saved and compared bit for bit."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from vqjax.runs.checkpoint import Checkpoints


@flax.struct.dataclass
class State:
  step: Any
  rng: Any
  params: Any
  opt_state: Any
  seen: Any
  ema: Any = None
  nothing: Any = ()


def create(seed=0):
  key = jax.random.key(seed)
  params = {
    'kernel': jax.random.normal(key, (16, 512)),
    'bias': jnp.arange(5, dtype=jnp.bfloat16) / 3,
    'zero': jnp.zeros((3,)),
  }
  return State(
    step=jnp.int32(seed),
    rng=jax.random.split(key, 2),
    params=params,
    opt_state=optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params),
    seen=jnp.uint32(2**32 - 1),
  )


def fsdp(devices):
  """Shardings of the state over some of the devices."""
  mesh = jax.make_mesh((devices,), ('x',), (AxisType.Auto,), devices=jax.devices()[:devices])
  spec = lambda leaf: PartitionSpec('x') if leaf.shape[:1] == (16,) else PartitionSpec()
  return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), jax.eval_shape(create))


def one_device():
  return jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[3]), jax.eval_shape(create))


def abstract(shardings=None):
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    jax.eval_shape(create),
    shardings or one_device(),
  )


def assert_equal(actual, expected):
  """The same structure, dtypes and bits."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert a.shape == b.shape
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(directory, *steps, **kwargs):
  with Checkpoints(directory, **kwargs) as checkpoints:
    for step in steps:
      checkpoints.save(step, create(step), {'seen': step})
