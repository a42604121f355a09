"""How many devices the programs under test see."""

import functools

import jax

from vqjax import sharding


def see_one(patch):
  """What does not depend on the number of devices compiles faster for one."""
  one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
  patch.setattr(sharding, 'make_mesh', one)
