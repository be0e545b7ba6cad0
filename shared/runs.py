"""What a long job tells the person who waits for it, and how it learns that it should stop.

`Monitor` is all that the work knows: report progress, ask whether to stop. By itself it does
nothing, so that the work runs in a notebook or a test.
"""


class Monitor:
    """The view that a piece of work has of whoever started it; this base is silent."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Reports that `done` of `total` units of `what` (such as "Reading ROIs") are finished.

        Cheap: call it as often as convenient, implementations throttle.
        """

    def stopping(self) -> bool:
        """Whether the work should end at its next safe point, keeping what it has."""
        return False
