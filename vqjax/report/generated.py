"""Images that a generator made, by class, and what is nearest to them: sections of the page."""

from collections.abc import Iterator

from vqjax.evaluation.results import Generated
from vqjax.report import html

_SAMPLES = (
  'Samples, numbered in their order, {order}. A click, or Enter, makes a row large; a second one '
  'shows the same place of all close up.'
)
_NEAREST = (
  'Samples, and those {of} that are nearest to them by the squared distance of Inception-v3 pool_3 '
  'features, which is below each: copies would stand out.'
)
_ROW = 4  # samples in a row, at most


def sections(shown: Generated) -> Iterator[str]:
  """The samples, those of a class side by side; then some of them with their nearest images."""
  classes = shown.classes or [''] * len(shown.images)
  of_class: dict[str, list[html.Labelled]] = {}
  for position, image, name in zip(shown.positions, shown.images, classes, strict=True):
    of_class.setdefault(name, []).append((f'image {position}', image))
  cards = [
    (name or ', '.join(label for label, _ in part), part)
    for name, row in of_class.items()
    for part in _rows(row)
  ]
  text = _SAMPLES.format(order='by class' if shown.classes else 'evenly spread')
  yield html.section('Samples', html.paragraph(text), html.gallery(cards))
  if shown.nearest:
    text = _NEAREST.format(of=shown.near_to)
    yield html.section('Nearest images', html.paragraph(text), html.gallery(_beside(shown)))


def _rows(samples):
  """As few rows as hold them, all but the last equally long: so they are equally large."""
  length = -(-len(samples) // -(-len(samples) // _ROW))
  return [samples[i : i + length] for i in range(0, len(samples), length)]


def _beside(shown):
  for i, (images, distances) in shown.nearest.items():
    near = [(f'{far:.4g}', image) for image, far in zip(images, distances, strict=False)]
    yield f'image {shown.positions[i]}', [('sample', shown.images[i]), *near]
