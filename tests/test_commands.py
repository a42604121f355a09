"""What a command makes of errors; those of arguments are in test_train.py."""

import jax
import pytest

from vqjax import commands
from vqjax.errors import UserError


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (UserError('x is 1; legal: 2.'), 'error: x is 1; legal: 2.\n'),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: wanted 51 GB\nmore'),
      'error: out of memory (RESOURCE_EXHAUSTED: wanted 51 GB); fewer images at a time need less: '
      '--batch_size=N of eval.py, --config.batch_size=N or',
    ),
    (KeyboardInterrupt(), 'error: interrupted; run the same command again to go on from the last'),
  ],
)
def test_what_a_user_can_mend_is_one_line(error, message, capsys):
  def main():
    raise error

  with pytest.raises(SystemExit) as exit:
    commands._reporting(main)(['program'])
  assert exit.value.code == 1
  assert capsys.readouterr().err.startswith(message)


def test_other_errors_of_the_runtime_keep_their_traceback():
  def main():
    raise jax.errors.JaxRuntimeError('INTERNAL: a bug')

  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL: a bug'):
    commands._reporting(main)(['program'])
