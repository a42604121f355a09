"""Where a codebook sits in a tree of variables, for what edits it from outside the layer.

A model's variables are nested dicts, {'params': ..., 'vq': ...}; wrappers and the model around them
add levels to the tree, so a codebook is found by its name and its number of codes.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from vqjax.quantizers.learners import Learner
from vqjax.quantizers.replacement import Replacement
from vqjax.quantizers.transforms import Space

Path = tuple[str, ...]


class CodebookLayer(Protocol):
  """What is asked of a quantizer inside all wrappers that `has_codebook`: a `VectorQuantizer`."""

  @property
  def num_codes(self) -> int: ...

  @property
  def sphere(self) -> bool: ...

  @property
  def learner(self) -> Learner | None: ...

  @property
  def replacement(self) -> Replacement | None: ...

  @property
  def codebook_owner(self) -> str:
    """The collection that the codebook is in."""

  def space(self, variables: Mapping[str, Any]) -> Space:
    """The transform bound to its variables."""


def codebook_paths(core: CodebookLayer, variables: Mapping[str, Any]) -> list[Path]:
  """Paths of all codebooks of one layer: a copy for each group or level has one of its own.

  Args:
    core: the layer with a codebook, inside all wrappers (`quantizer.core`).
    variables: {'params': ..., 'vq': ...} of it, or of anything that it is a part of.

  Returns:
    A list of tuples of names, which lead to the node that holds `codebook` [K D] and what else the
    layer owns; the same in every collection. Groups and levels are in their order.
  """
  found: list[Path] = []

  def visit(node: Any, path: Path) -> None:
    if not isinstance(node, Mapping):
      return
    if getattr(node.get('codebook'), 'shape', ())[:1] == (core.num_codes,):
      found.append(path)
    for name, child in node.items():
      visit(child, (*path, name))

  visit(variables.get(core.codebook_owner, {}), ())
  # level_2 before level_10.
  return sorted(found, key=lambda path: [(len(name), name) for name in path])


def at(tree: Any, path: Path) -> Any:
  """The node of a nested dict at `path`, or None where the tree has none."""
  for name in path:
    if name not in tree:
      return None
    tree = tree[name]
  return tree


def put(tree: Any, path: Path, node: Any) -> Any:
  """A copy of a nested dict with `node` at `path`; the rest is shared with the original."""
  if not path:
    return node
  return {**tree, path[0]: put(tree[path[0]], path[1:], node)}
