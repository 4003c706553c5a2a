"""What a grammar is to the one who samples: a set of allowed tokens that changes with every token chosen."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


class Constraint(Protocol):
    """The state of one text that must obey a grammar."""

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, (V,), at least one. End-of-generation tokens are among them exactly where the
        text may end. Raises GrammarError where the state allows no token at all."""

    def allows(self, token: int) -> bool:
        """Whether the token may come next: its place in `mask`, for much less. It may be more generous where the rest
        of the text is settled: the mask may then name only the tokens that usually spell it."""

    def accept(self, token: int) -> None:
        """The token has been chosen. Raises GrammarError for one that is not allowed."""

    @property
    def is_accepting(self) -> bool:
        """Whether the text may end here."""

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here, and nothing else may follow: then it does end."""


@runtime_checkable
class ClosingConstraint(Constraint, Protocol):
    """A constraint that knows how to bring its text to an end."""

    def way_out(self, most: int, after: int | None = None) -> list[int] | None:
        """At most so many tokens that complete the text, from here or from behind the token `after`; None: no way."""
