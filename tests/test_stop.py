"""Stop strings in pieces of text, checked against a search in the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ref_engine.errors import RefEngineError
from ref_engine.stop import StopMatcher


def run(stops: str | list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    """What comes out for each piece, and at the end; and the stop string found."""
    matcher = StopMatcher(stops)
    return [matcher.push(piece) for piece in pieces] + [matcher.flush()], matcher.found


@pytest.mark.parametrize(
    ("stops", "pieces", "out", "found"),
    [
        ([], ["a", "b"], ["a", "b", ""], None),
        (["x"], ["a", "b"], ["a", "b", ""], None),
        ("###", ["a#", "#", "b"], ["a", "", "##b", ""], None),  # held back, then let go
        ("###", ["a#", "#"], ["a", "", "##"], None),  # held back to the end
        (["###"], ["a#", "##b", "c"], ["a", "", "", ""], "###"),  # nothing comes after
        (["aab"], ["aaa", "b"], ["a", "", ""], "aab"),  # the start is not the first "a"
        (["abcabd"], ["abcabc", "abd"], ["abc", "", ""], "abcabd"),
        (["ab", "abc"], ["abc"], ["", ""], "ab"),  # complete first
        (["abc", "b"], ["abc"], ["a", ""], "b"),
        (["bc", "abc"], ["xabc"], ["x", ""], "abc"),  # both complete at the same character: the longest
        (["bcx", "cd"], ["ab", "cd"], ["a", "b", ""], "cd"),
        (["é"], ["caf", "é!"], ["caf", "", ""], "é"),
        (["a"], ["a"], ["", ""], "a"),
        (["a", "a"], ["ba"], ["b", ""], "a"),
    ],
)
def test_pieces(stops: list[str], pieces: list[str], out: list[str], found: str | None) -> None:
    assert run(stops, pieces) == (out, found)


@pytest.mark.parametrize("stops", [[""], ["a", ""], "", [3], [None]])
def test_bad_stop_string(stops: list[str]) -> None:
    if stops == "":
        stops = [""]
    with pytest.raises(RefEngineError, match="stop must hold strings"):
        StopMatcher(stops)


def first_stop(stops: list[str], text: str) -> tuple[str, str | None]:
    """The definition, without any cleverness."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            stop = max(done, key=len)
            return text[: end - len(stop)], stop
    return text, None


STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)
PIECES = st.lists(st.text("abc", max_size=6), max_size=12)


@given(STOPS, PIECES)
def test_any_cut_gives_what_the_whole_text_gives(stops: list[str], pieces: list[str]) -> None:
    out, found = run(stops, pieces)
    text, expected = first_stop(stops, "".join(pieces))
    assert ("".join(out), found) == (text, expected)


@given(STOPS, PIECES)
def test_nothing_is_held_that_cannot_become_a_stop(stops: list[str], pieces: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for i, piece in enumerate(pieces):
        shown += matcher.push(piece)
        if matcher.found is None:
            held = "".join(pieces[: i + 1])[len(shown) :]
            assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
