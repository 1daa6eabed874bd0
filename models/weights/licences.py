"""What the licences of published weights forbid, in a word."""

FORBIDS = {
    "cc-by-nc": "no commerce",
    "non-commercial": "no commerce",
    "fair": "no commerce",
    "apple": "research only",
    "dinov3": "share with its agreement; no military use",
}
"""Part of a licence's name -> what to mind."""


def said_of(licence: str) -> str:
    """Return a licence's name with what it forbids; a dash where there are no weights."""
    if not licence:
        return "-"
    found = [words for part, words in FORBIDS.items() if part in licence.lower()]
    return f"{licence} ({found[0]})" if found else licence
