import asyncio
import logging

import pytest

from vqjax.runs.quiet import quiet


@pytest.mark.parametrize(('file', 'told'), [('/site/orbax/write.py', 0), ('/site/other.py', 1)])
def test_a_task_of_orbax_that_failed_is_not_told_twice(file, told, caplog):
  names = {}
  exec(compile('async def write(): raise ValueError("full")', file, 'exec'), names)

  async def forgotten():
    task = asyncio.ensure_future(names['write']())
    await asyncio.wait([task])

  quiet()
  with caplog.at_level(logging.ERROR, 'asyncio'):
    asyncio.run(forgotten())
  assert len([r for r in caplog.records if r.name == 'asyncio']) == told
