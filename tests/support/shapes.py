"""What jaxtyping checks signatures with, see conftest.py. It must import nothing of hypclip."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates methods one by one, where beartype cannot know what Self is.
check_signature = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
