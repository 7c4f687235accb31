"""The one exception a user's mistake or a missing piece raises; the CLI prints it without a traceback."""

REPAIR = "`python -m bench verify RESULTS --repair` puts it back to where it can continue."


class BenchError(Exception):
    """Says where, what is wrong, and what to do. The command line prints the message and exits with 2."""


class NotFinite(BenchError):
    """A training has left the finite numbers: its latents, its pictures or its gradient. It has diverged."""


class Damaged(BenchError):
    """A file of a results directory is not what was written there; it costs what it belongs to alone."""

    def __init__(self, path: object, what: object) -> None:
        super().__init__(f"{path}: damaged: {what}. {REPAIR}")


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """` Did you mean 'x'?` for the closest known word, or an empty string. Capitals make no difference."""
    import difflib

    small = {one.lower(): one for one in reversed(known)}
    close = difflib.get_close_matches(word.lower(), small, n=1, cutoff=0.5)
    return f" Did you mean '{small[close[0]]}'?" if close else ""
