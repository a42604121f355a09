"""A headless browser that opens a page and tells what is in it."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = pytest.mark.skipif(PROGRAM is None, reason=f'none of {", ".join(NAMES)} on PATH')

# Uses the page as a reader does, and leaves what it saw in the title, which --dump-dom prints.
_READER = """
<script>
addEventListener('load', () => {
  const [first, second] = document.querySelectorAll('.card')
  const dialog = document.querySelector('dialog')
  const press = key =>
    dialog.querySelector('button').dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))
  const caption = () => dialog.querySelector('.bar span').textContent
  const large = () => dialog.querySelector('img').getBoundingClientRect().width
  const seen = {
    widths: [...document.images].map(image => image.naturalWidth),
    requests: performance.getEntriesByType('resource').map(entry => entry.name),
    overflow: document.documentElement.scrollWidth - innerWidth,
    captions: [first, second].map(card => card.querySelector('.caption').textContent),
    shut: dialog.open,
  }
  first.focus()
  seen.reached = document.activeElement === first
  seen.small = first.querySelector('img').getBoundingClientRect().width
  first.click()
  seen.open = dialog.open
  seen.sources = [...dialog.querySelectorAll('img')].map(image => image.src.length)
  seen.zoomed = [caption()]
  seen.large = [large()]
  press('ArrowRight')
  seen.zoomed.push(caption())
  press('z')
  seen.large.push(large())
  dialog.querySelector('button[name=close]').click()
  seen.closed = !dialog.open
  document.title = JSON.stringify(seen)
})
</script>
"""


def read(path, folder, width=400):
  """Opens a copy of the page in `folder` and zooms: (what was seen, lines of the console)."""
  copy = folder / 'copy.html'
  copy.write_text(path.read_text() + _READER)
  options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
  options += [f'--user-data-dir={folder / "profile"}', f'--window-size={width},800']
  options += ['--enable-logging=stderr', '--virtual-time-budget=5000', '--dump-dom']
  run = subprocess.run(
    [PROGRAM, *options, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
  )
  title = re.search(r'<title>(.*?)</title>', run.stdout, re.DOTALL)[1]
  return json.loads(html.unescape(title)), [x for x in run.stderr.splitlines() if 'CONSOLE' in x]


def check(path, folder):
  """Asserts that the page is whole on a phone, asks for nothing from outside, and zooms."""
  seen, console = read(path, folder)
  assert console == []
  assert seen['requests'] == []
  assert min(seen['widths']) > 0
  assert seen['overflow'] <= 0
  assert not seen['shut']
  assert seen['reached']
  assert seen['open']
  assert seen['closed']
  assert min(seen['sources']) > 50
  assert seen['zoomed'] == seen['captions']
  assert seen['small'] < seen['large'][0]
  assert seen['large'][1] == pytest.approx(4 * seen['large'][0])
  return seen
