"""Downloading from the package index that pip uses."""

import base64
import html
import http.client
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

from vqjax.errors import UserError


def download(project: str, archive: str, how: str) -> tuple[str, bytes]:
  """(what to call it, content) of a project's archive; its hash is the caller's to check.

  Raises:
    UserError: no network, or no such archive there; `how` ends the sentence.
  """
  page = f'{_index().rstrip("/")}/{project}/'
  host = urllib.parse.urlsplit(page).netloc.rpartition('@')[2]  # without a password
  try:
    # Every index has its links as HTML, but not every one as JSON.
    links = re.findall(r'href=["\']([^"\'#]+)', _get(page).decode())
    links = [urllib.parse.urljoin(page, html.unescape(link)) for link in links]
    links = [link for link in links if urllib.parse.urlsplit(link).path.endswith(archive)]
    if not links:
      raise UserError(f'{host} has no {archive}; {how}.')
    print(f'downloading {archive} from {host}')
    return f'{archive} from {host}', _get(links[0])
  except (OSError, http.client.HTTPException, ValueError) as error:
    reason = getattr(error, 'reason', None) or error
    raise UserError(f'cannot get {archive} from {host}: {reason}; {how}.') from error


def _get(url):
  parts = urllib.parse.urlsplit(url)
  login, _, host = parts.netloc.rpartition('@')
  request = urllib.request.Request(parts._replace(netloc=host).geturl())
  if login:  # as pip reads it; a redirection elsewhere does not get it
    login = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    request.add_unredirected_header('Authorization', f'Basic {login}')
  with urllib.request.urlopen(request, timeout=60) as response:
    return response.read()


def _index():
  if index := os.environ.get('PIP_INDEX_URL'):
    return index
  # Of all the files that pip reads: `pip config get` of the pip that Python 3.11 brings looks into
  # the user's file only.
  command = [sys.executable, '-m', 'pip', 'config', 'list']
  pip = subprocess.run(command, capture_output=True, text=True, check=False)
  found = re.search(r"^global\.index-url=(['\"])(.+)\1$", pip.stdout, re.MULTILINE)
  return found[2] if found else 'https://pypi.org/simple'
