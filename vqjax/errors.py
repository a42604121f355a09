"""The one exception that stands for a mistake the user can mend, and names that fit into it."""


class UserError(Exception):
  """Something the user can mend; the commands print it as one line, without a traceback.

  The message is one sentence that holds the value, what is legal, and the next step.
  """


def printable(name: str) -> str:
  """What a file is called or says of itself, which may be anything, as a line of a log shows it."""
  escape = lambda c: c.encode('unicode_escape').decode()
  return ''.join(c if c.isprintable() else escape(c) for c in name)
