"""The guide's examples run, its table of presets is true, and it leaves no public name out."""

import inspect
import pathlib
import re

import jax
import numpy as np
import pytest

from vqjax import quantizers
from vqjax.quantizers import presets

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / 'docs' / 'quantizers.md').read_text()
README = (ROOT / 'README.md').read_text()
PRESETS = [
  name
  for name, value in vars(presets).items()
  if inspect.isfunction(value) and value.__module__ == presets.__name__ and name[0] != '_'
]
BLOCK = re.compile(r'^```python\n(.*?)^```', re.DOTALL | re.MULTILINE)


def blocks():
  """{name: source} of the guide's blocks after the prelude, named by their lines."""
  found = {}
  for match in BLOCK.finditer(GUIDE):
    # As many empty lines as stand above the block: tracebacks then name the guide's own lines.
    line = GUIDE.count('\n', 0, match.start(1))
    found[f'line_{line + 1}'] = '\n' * line + match[1]
  return found


(PRELUDE, PRELUDE_SOURCE), *EXAMPLES = blocks().items()


def namespace():
  names = {'__name__': 'guide'}
  exec(compile(PRELUDE_SOURCE, '<docs/quantizers.md>', 'exec'), names)
  return names


@pytest.mark.parametrize('source', [s for _, s in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_an_example_of_the_guide_runs(source):
  exec(compile(source, '<docs/quantizers.md>', 'exec'), namespace())


def test_the_layer_of_the_readme_runs():
  section = README.split('## One layer')[1].split('\n## ')[0]
  (source,) = BLOCK.findall(section)
  exec(compile(source, 'README.md', 'exec'), {'__name__': 'readme'})


def test_examples_are_short():
  lengths = {name: sum(map(bool, source.split('\n'))) for name, source in EXAMPLES}
  assert {name: length for name, length in lengths.items() if length > 10} == {}


@pytest.mark.parametrize('name', [*quantizers.__all__, *PRESETS])
def test_a_public_name_is_in_the_guide(name):
  assert re.search(rf'`[^`\n]*\b{name}\b[^`\n]*`', GUIDE)


def test_every_field_of_the_layer_is_in_its_table():
  section = GUIDE.split('### The fields of `VectorQuantizer`')[1].split('\n#')[0]
  rows = re.findall(r'^\| `(\w+)`', section, re.MULTILINE)
  fields = inspect.signature(quantizers.VectorQuantizer).parameters
  assert rows == [name for name in fields if name not in ('parent', 'name')]


def described_presets():
  """{preset: (what it is, where its codes start)} of the table's rows."""
  section = GUIDE.split('\n## 5. ')[1].split('\n## ')[0]
  rows = re.findall(r'^\| `presets\.(\w+)` \| `(.+?)` \| (?:`(.+?)` )?\|', section, re.MULTILINE)
  return {name: (kind, start) for name, kind, start in rows}


def test_every_preset_has_a_row():
  assert list(described_presets()) == PRESETS


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_is_what_its_row_says(name):
  kind, start = described_presets()[name]
  ours, theirs = eval(kind, namespace()), getattr(presets, name)()
  for layer, same in zip(layers(ours), layers(theirs), strict=True):
    assert type(layer) is type(same)
    for field in layer.__dataclass_fields__:
      if field not in ('parent', 'name', 'base', 'codebook_init'):
        assert getattr(layer, field) == getattr(same, field), field
  assert bool(start) == hasattr(theirs.core, 'codebook_init')
  if start:  # functions differ although they draw the same
    start = eval(start, namespace())
    if isinstance(start, str):
      start = quantizers.build({'num_codes': 32, 'codebook_init': start}).codebook_init
    arguments = jax.random.key(0), (32, 8), np.float32
    np.testing.assert_array_equal(start(*arguments), theirs.core.codebook_init(*arguments))


def layers(vq):
  """A quantizer, what it wraps, what that wraps."""
  return [vq, *layers(vq.base)] if hasattr(vq, 'base') else [vq]


def test_files_that_the_guide_names_exist():
  links = re.findall(r'\]\((?!http|#)([^)#]+)', BLOCK.sub('', GUIDE))
  assert links
  for link in links:
    assert (ROOT / 'docs' / link).exists(), link
