"""What to say when a name is not known."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the way out for a name that nothing bears: close names, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return "did you mean " + " or ".join(f"'{other}'" for other in close) + "?"
    return "known: " + (", ".join(names) if names else "none")
