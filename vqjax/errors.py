"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
  """Something the user can mend; the commands print it as one line, without a traceback.

  The message is one sentence that holds the value, what is legal, and the next step.
  """
