"""A file is there as a whole or not at all."""

import pytest

from vqjax.whole_files import replacing


def test_the_new_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with replacing(path) as partial:
    partial.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert [p.name for p in tmp_path.iterdir()] == ['a.txt']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_after_an_error_all_is_as_it_was(tmp_path, error):
  path = tmp_path / 'a.txt'
  path.write_text('old')

  def write(partial):
    partial.write_text('half')
    raise error

  with pytest.raises(error), replacing(path) as partial:
    write(partial)
  assert path.read_text() == 'old'
  assert [p.name for p in tmp_path.iterdir()] == ['a.txt']


def test_nothing_is_written_where_there_is_no_folder(tmp_path):
  with (
    pytest.raises(OSError, match='No such file'),
    replacing(tmp_path / 'no' / 'a.txt') as partial,
  ):
    partial.write_text('')
