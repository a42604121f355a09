"""Where a codebook sits in a tree of variables, for what edits it from outside the layer.

A model's variables are nested dicts, {'params': ..., 'vq': ...}; wrappers and the model around them
add levels to the tree, so a codebook is found by its name and its number of codes.
"""

from collections.abc import Mapping


def codebook_paths(core, variables):
  """Paths of all codebooks of one layer: a copy for each group or level has one of its own.

  Args:
    core: the layer with a codebook, inside all wrappers (`quantizer.core`).
    variables: {'params': ..., 'vq': ...} of it, or of anything that it is a part of.

  Returns:
    A list of tuples of names, which lead to the node that holds `codebook` [K D] and what else the
    layer owns; the same in every collection. Groups and levels are in their order.
  """
  found = []

  def visit(node, path):
    if not isinstance(node, Mapping):
      return
    if getattr(node.get('codebook'), 'shape', ())[:1] == (core.num_codes,):
      found.append(path)
    for name, child in node.items():
      visit(child, (*path, name))

  visit(variables.get(core.codebook_owner, {}), ())
  natural = lambda path: [(len(name), name) for name in path]  # level_2 before level_10
  return sorted(found, key=natural)


def at(tree, path):
  """The node of a nested dict at `path`, or None where the tree has none."""
  for name in path:
    if name not in tree:
      return None
    tree = tree[name]
  return tree


def put(tree, path, node):
  """A copy of a nested dict with `node` at `path`; the rest is shared with the original."""
  if not path:
    return node
  return {**tree, path[0]: put(tree[path[0]], path[1:], node)}
