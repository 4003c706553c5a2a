"""Stop strings in streamed text, which may begin in one piece and end in a later one."""

from collections.abc import Sequence

from ref_engine.errors import RefEngineError


class StopMatcher:
    """Passes text through up to the first stop string, and holds back what may yet become one.

    The stop string that is complete first wins, reading character by character; of several complete at the
    same character the longest, so that none of it is shown. How the text is cut into pieces makes no
    difference. Each character costs O(number of stop strings) amortised: one Knuth-Morris-Pratt automaton
    per string.
    """

    def __init__(self, stops: str | Sequence[str] = ()) -> None:
        """Raises RefEngineError for a stop string that is empty or no string."""
        strings = [stops] if isinstance(stops, str) else list(stops)
        for stop in strings:
            if not isinstance(stop, str) or not stop:
                raise RefEngineError(f"stop must hold strings that are not empty, not {stop!r}")
        self._stops = sorted(set(strings), key=lambda stop: (-len(stop), stop))  # longest first
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)  # how many characters of each stop the text ends with
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text. From then on no more text comes out."""

    def push(self, text: str) -> str:
        """Take the next piece; return the text that is now known to be before any stop string."""
        if self.found is not None:
            return ""
        buffer = self._held + text
        for end in range(len(self._held), len(buffer)):
            stop = self._advance(buffer[end])
            if stop is not None:
                self.found, self._held = stop, ""
                return buffer[: end + 1 - len(stop)]
        safe = len(buffer) - max(self._matched, default=0)
        self._held = buffer[safe:]
        return buffer[:safe]

    def flush(self) -> str:
        """The text has ended: return what was held back."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _advance(self, char: str) -> str | None:
        """One step of every automaton; the longest stop string that this character completes."""
        done = None
        for i, stop in enumerate(self._stops):
            n = self._matched[i]
            while n and stop[n] != char:
                n = self._borders[i][n - 1]
            self._matched[i] = n + (stop[n] == char)
            if self._matched[i] == len(stop) and done is None:
                done = stop
        return done


def _borders(text: str) -> list[int]:
    """For each prefix of text, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(text)
    n = 0
    for i in range(1, len(text)):
        while n and text[i] != text[n]:
            n = borders[n - 1]
        n += text[i] == text[n]
        borders[i] = n
    return borders
