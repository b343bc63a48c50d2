"""What has to be said wherever a model captions, or is described."""

from __future__ import annotations

NOT_FOR_DIAGNOSIS = "not for diagnosis"
WARNING = (
    f"{NOT_FOR_DIAGNOSIS.capitalize()}. radcap is a research tool; its captions are no medical "
    "findings."
)
# Of one that was trained on the phantom data set.
DRAWINGS_ONLY = (
    "trained on drawings, not on medical images: what it says of a real picture has no meaning at "
    "all"
)


def note(*, drawings_only: bool) -> str:
    """All of it on one line, to go with a caption that is read elsewhere."""
    return f"{NOT_FOR_DIAGNOSIS}; {DRAWINGS_ONLY}" if drawings_only else NOT_FOR_DIAGNOSIS
