"""The device mesh and who lives where on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vqjax.errors import UserError

AXES = ('data', 'fsdp')


def make_mesh(config: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Builds the mesh `(data, fsdp)` of a config's `mesh` part; an axis of -1 takes the rest.

  The batch is split over both axes; parameters and optimizer state are split over `fsdp` and
  copied over `data`. `fsdp=1` copies them everywhere.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config[axis] for axis in AXES]
  legal = all(size == -1 or size > 0 for size in sizes) and sizes.count(-1) <= 1
  known = math.prod(size for size in sizes if size != -1)
  if legal and -1 in sizes and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if not legal or math.prod(sizes) != len(devices):
    raise UserError(
      f'config.mesh is data={config["data"]}, fsdp={config["fsdp"]}; its product must be the '
      f'{len(devices)} devices here (one axis may be -1: the rest).'
    )
  # Explicit axes, newer JAX's default, refuse a lookup in a sharded codebook.
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
  """The leading axis split over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def state(mesh: Mesh, abstract_state: Any) -> Any:
  """Shardings of a train state: the longest axis of each array that `fsdp` divides is split."""
  fsdp = mesh.shape['fsdp']

  def of(leaf):
    axes = [axis for axis, size in enumerate(leaf.shape) if size % fsdp == 0 and size >= fsdp]
    if fsdp == 1 or not axes:
      return replicated(mesh)
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, 'fsdp'))

  return jax.tree.map(of, abstract_state)


def target(abstract_state: Any, shardings: Any) -> Any:
  """What a checkpoint is restored to: shapes and dtypes, each with its place on the mesh."""
  place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  return jax.tree.map(place, abstract_state, shardings)


def put_batch(mesh: Mesh, local: Any) -> Any:
  """The arrays of one process [local_B ...] -> global arrays [B ...] split over the mesh."""
  put = lambda x: jax.make_array_from_process_local_data(batch(mesh), np.asarray(x))
  return jax.tree.map(put, local)


def check_batch_size(mesh: Mesh, batch_size: int, field: str, accumulate: int = 1) -> None:
  """Raises a UserError unless `batch_size` splits over devices and micro-batches."""
  pieces = mesh.size * accumulate
  if batch_size < 1 or batch_size % pieces:
    micro = f' times {accumulate} micro-batches' if accumulate > 1 else ''
    nearest = max(round(batch_size / pieces), 1) * pieces
    raise UserError(
      f'{field} is {batch_size}; legal: a multiple of {mesh.size} devices{micro}, '
      f'for example {nearest}.'
    )
