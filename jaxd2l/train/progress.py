"""How far a run has come, shown to a person."""

import sys
import time
from typing import Any, TextIO


class Progress:
    """A progress bar on a terminal (with tqdm, where it is installed), else a line per epoch.

    `update` is called every step and looks at the clock only; `due()` says when new figures are
    wanted, so that the device is asked for them rarely.
    """

    def __init__(
        self, total: int, first: int, stream: TextIO | None = None, seconds: float = 0.5
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.seconds = seconds
        self.shown = time.monotonic()
        self.bar: Any = None
        if self.stream.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=total, initial=first, file=self.stream, unit="step")

    def due(self) -> bool:
        """Whether it is time to fetch figures for the bar."""
        return self.bar is not None and time.monotonic() - self.shown >= self.seconds

    def update(self, steps: int = 1) -> None:
        """Count steps."""
        if self.bar is not None:
            self.bar.update(steps)

    def figures(self, values: dict[str, float]) -> None:
        """Show figures beside the bar."""
        self.shown = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix({k: f"{v:.4f}" for k, v in values.items()})

    def line(self, text: str) -> None:
        """A line of its own: after each epoch."""
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
