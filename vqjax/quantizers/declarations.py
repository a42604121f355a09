"""What an assignment, an estimator or a regularizer says of itself, by true or false attributes."""


def declares(choice: object, name: str) -> bool:
  """Whether `choice` has a true attribute `name`; a plain function, which has none, does not.

  The names are in the docstrings of `Assignment`, `EstimatorLike` and `Regularizer`.
  """
  return bool(getattr(choice, name, False))
