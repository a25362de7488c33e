"""The live panel of a training run: a few lines at the foot of a terminal, written in place.

The cursor rests at the beginning of the panel, not at its end. A terminal that is resized keeps the
cursor with the text it is at, whether it breaks long lines anew or cuts them, so erasing from the
cursor on removes the whole panel at any width. Nothing has to be remembered from one drawing to the
next, and a drawing is one write.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.segment import ControlType, Segment
from rich.text import Text

from charrnn import events
from charrnn.config import Unit
from charrnn.display.format import BARS, can_show, count, duration, loss, sparkline
from charrnn.display.terminal import terminal_text, wrapped
from charrnn.training.system import is_in_foreground

SAMPLE_LINES = 4
"""A longer sample is cut: a list of short lines would push all else off the screen."""
EVERY_S = 0.2
"""Seconds between two drawings; nothing is written where nothing has changed."""
LABEL_WIDTH = 8
MOST_COLUMNS = 100
"""The panel is no wider: a bar across a wide screen tells no more."""
LEAST_BAR = 4
SPINNER, ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
BAR, ASCII_BAR = ("━", "╾", "─"), ("=", "-", "-")
"""What is done, the half of a column, and what is left."""
CUT, ASCII_CUT = " …", " ..."
"""After a sample that has more lines."""

_Part = TypeVar("_Part", str, Text)


class RunView:
    """The state of a run as lines of text.

    Args:
        encoding: of the terminal; one that lacks block characters gets ASCII.
    """

    def __init__(self, encoding: str) -> None:
        """Nothing is known yet but when the run began."""
        self._encoding = encoding
        self._is_ascii = not can_show("".join((BARS, SPINNER, *BAR, CUT)), encoding)
        self._unit: Unit = "char"
        self._is_running = False
        self._elapsed_s, self._measured = 0.0, time.monotonic()
        self._progressed: events.Progressed | None = None
        self._best: events.Evaluated | None = None
        self._losses: list[float] = []
        self.activity = ""
        self.evaluated: events.Evaluated | None = None
        self.sample = ""

    def take(self, event: events.Event) -> None:
        """Note what has happened."""
        if isinstance(event, events.Started):
            self._is_running, self._unit = True, event.unit
            self._elapsed_s += event.resumed_s
        elif isinstance(event, events.Progressed):
            self._progressed = event
        elif isinstance(event, events.Sampled):
            self.sample = event.text
        elif isinstance(event, events.Evaluated):
            self.evaluated = event
            self._best = event if event.is_best else self._best
            self._elapsed_s, self._measured = event.elapsed_s, time.monotonic()
            if (judged := judged_loss(event)) is not None:
                self._losses.append(judged)

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the panel for a terminal of this size; what matters least gives way."""
        width = min(width, MOST_COLUMNS)
        ranked = list(self._running(width) if self._is_running else self._waiting())
        while len(ranked) >= max(2, height):
            last = max(rank for rank, _ in ranked)
            del ranked[max(n for n, (rank, _) in enumerate(ranked) if rank == last)]
        for _, line in ranked:
            line.truncate(width, overflow="crop")
        return [line for _, line in ranked]

    def record(self, width: int) -> Iterator[Text]:
        """Yield what is worth keeping of it: the curve of the losses, and the last sample."""
        width = min(width, MOST_COLUMNS)
        yield from self._curve(width)
        yield from self._sample(width)

    def sample_lines(self, width: int | None) -> list[str]:
        """Return the first lines of the newest sample, broken between words to fit a width."""
        cut = ASCII_CUT if self._is_ascii else CUT
        text = terminal_text(self.sample.strip("\n"))
        if width is not None:
            text = wrapped(text.expandtabs(4), max(1, width - len(cut)))
        lines = text.split("\n")
        if len(lines) > SAMPLE_LINES:
            lines[SAMPLE_LINES - 1 :] = [lines[SAMPLE_LINES - 1] + cut]
        return lines

    def _waiting(self) -> Iterator[tuple[int, Text]]:
        """Yield what goes on before the first step."""
        if self.activity:
            marks = ASCII_SPINNER if self._is_ascii else SPINNER
            turn = int((time.monotonic() - self._measured) / EVERY_S) % len(marks)
            yield 0, Text.assemble((marks[turn], "cyan"), f" {self.activity}")

    def _running(self, width: int) -> Iterator[tuple[int, Text]]:
        yield 7, Text()
        yield 0, self._bar(width)
        now, found = self._progressed, self.evaluated
        train = None if now is None else now.train_loss
        if train is None and found is not None:
            train = found.train_loss
        if train is not None:
            yield 3, _row("train", [(0, f"{train:.3f} nats/{self._unit}")], width)
        if found is not None and found.val_loss is not None:
            yield 1, self._loss("val", found, width)
        if self._best is not None and judged_loss(self._best) is not None:
            yield 2, self._loss("best", self._best, width)
        yield from ((4, line) for line in self._curve(width))
        if now is not None:
            speed = f"{count(now.chars_per_s)} {self._unit}/s  " if now.chars_per_s else ""
            parts = [(0, speed), (1, f"step {now.step:,}  "), (2, f"lr {now.learning_rate:.2g}")]
            yield 5, _row("speed", parts, width)
        yield from ((6, line) for line in self._sample(width))

    def _curve(self, width: int) -> Iterator[Text]:
        """Yield the losses of all evaluations in a line, if there are two."""
        if len(self._losses) > 1:
            first, last = (f"{self._losses[n]:.2f}" for n in (0, -1))
            room = width - LABEL_WIDTH - len(first) - len(last) - 2
            marks = sparkline(self._losses, max(1, room), self._encoding)
            yield _row("curve", [(0, f"{first} {marks} {last}")], width)

    def _sample(self, width: int) -> Iterator[Text]:
        for n, line in enumerate(self.sample_lines(width - LABEL_WIDTH) if self.sample else ()):
            yield _row("" if n else "sample", [(0, line)], width)

    def _bar(self, width: int) -> Text:
        """Return how far the run is: a bar, in per cent, and in time."""
        now, done = self._progressed, 0.0
        elapsed = duration(self._elapsed_s + time.monotonic() - self._measured)
        times = [(2, f"  {elapsed}")]
        if now is not None:
            done = min(1.0, max(0.0, now.progress))
            if now.eta_s is not None:
                times.append((1, f"  {duration(now.eta_s)} left"))
        if self.evaluated is not None:
            done = max(done, self.evaluated.progress)
        begin = f"{done:4.0%}"
        end = "".join(fitting(times, width - len(begin) - 2 - LEAST_BAR))
        halves = round(2 * done * (length := width - len(begin) - 2 - len(end)))
        full, half, empty = ASCII_BAR if self._is_ascii else BAR
        bar = (full * (halves // 2) + half * (halves % 2)).ljust(max(LEAST_BAR, length), empty)
        n_done = (halves + 1) // 2
        return Text.assemble((begin, "bold"), "  ", (bar[:n_done], "cyan"), bar[n_done:], end)

    def _loss(self, label: str, found: events.Evaluated, width: int) -> Text:
        """Return the loss of an evaluation, in bits and with its step where there is room."""
        judged = judged_loss(found)
        assert judged is not None
        style = "green" if found.is_best else ""
        nats, *bits = loss(judged, self._unit, found.bits_per_char).partition(" (")
        parts = [(0, Text(nats, style)), (1, Text("".join(bits)))]
        if label == "best":
            parts.append((2, Text(f" at step {found.step:,}")))
        return _row(label, parts, width)


def judged_loss(found: events.Evaluated) -> float | None:
    """Return the loss that a model is judged by: of validation, or else of training."""
    return found.train_loss if found.val_loss is None else found.val_loss


def _row(label: str, parts: Iterable[tuple[int, str | Text]], width: int) -> Text:
    """Return a line that begins with what it is about."""
    texts = [(rank, Text(part) if isinstance(part, str) else part) for rank, part in parts]
    return Text.assemble((label.ljust(LABEL_WIDTH), "dim"), *fitting(texts, width - LABEL_WIDTH))


def fitting(parts: Iterable[tuple[int, _Part]], width: int | None) -> list[_Part]:
    """Return the parts of a line that fit into a width, in their order; those of rank 0 stay."""
    kept = list(parts)
    while width is not None and sum(cell_len(str(part)) for _, part in kept) > width:
        last = max((rank for rank, _ in kept), default=0)
        if last == 0:
            break
        kept = [(rank, part) for rank, part in kept if rank != last]
    return [part for _, part in kept]


class _Sequence(Control):
    """A control sequence that rich has no name for."""

    def __init__(self, text: str) -> None:
        """Wrap it."""
        self.segment = Segment(text, None, [(ControlType.CARRIAGE_RETURN,)])


ERASE = "\r\x1b[J"
"""From the beginning of the cursor's line to the end of the screen."""
ERASE_LINE, ERASE_REST = "\x1b[K", "\x1b[J"
"""A panel that is only drawn anew is erased line by line as it is written, and below from its last
line on: erased at once, from the first line of the screen, tmux keeps a copy above the screen."""
BEGIN, END = "\x1b[?25l\x1b[?7l", "\x1b[?7h"
"""Around the panel: no cursor, and a line that a terminal finds wider than we do stays one."""
LEAVE = f"{ERASE}{END}\x1b[?25h"
"""Removes the panel and shows the cursor again."""
SUSPEND = getattr(signal, "SIGTSTP", None)
"""Ctrl-Z, where there is such a thing."""


class LivePanel(RenderHook):
    """Keeps lines at the foot of a terminal while other lines are printed above them.

    What the console prints, and what other code writes to stderr, appears above. A thread draws:
    whoever changes the state has nothing to wait for, not even a terminal that is stopped. While
    the program is suspended or in the background, the terminal is another's and has no panel.

    Args:
        console: of an interactive terminal.
        lines: returns the panel for a width and a height.
    """

    def __init__(self, console: Console, lines: Callable[[int, int], Sequence[Text]]) -> None:
        """Prepare; nothing is shown yet."""
        self._console, self._lines = console, lines
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn: object = None
        self._redirected: list[str] = []
        self._is_suspended = False

    def start(self) -> None:
        """Show the panel until `stop`; it may not be started again."""
        self._console.push_render_hook(self)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            with contextlib.suppress(AttributeError, OSError, ValueError):
                if stream.isatty() and not isinstance(stream, FileProxy):
                    setattr(sys, name, FileProxy(self._console, stream))
                    self._redirected.append(name)
        with contextlib.suppress(ValueError):  # not in the main thread
            if SUSPEND is not None and signal.getsignal(SUSPEND) is signal.SIG_DFL:
                signal.signal(SUSPEND, self._suspend)
        self._thread = threading.Thread(target=self._draw_on, name="panel", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Remove the panel, and leave the terminal as it was."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)  # it may be waiting for a terminal that is stopped
        for name in self._redirected:
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
                setattr(sys, name, stream.rich_proxied_file)
        with contextlib.suppress(ValueError):
            if SUSPEND is not None and signal.getsignal(SUSPEND) == self._suspend:
                signal.signal(SUSPEND, signal.SIG_DFL)
        self._console.pop_render_hook()
        if self.is_in_front:
            self._console.control(_Sequence(LEAVE))

    def draw(self) -> None:
        """Write the panel if it has changed."""
        wanted = (self._console.size, [line.markup for line in self._rows()])
        if wanted != self._drawn and self.is_in_front:
            self._drawn = wanted
            self._console.print(Control(), soft_wrap=True, end="")

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Write what is printed in place of the panel, and the panel below it."""
        if not self.is_in_front:
            return renderables
        is_drawing = all(isinstance(one, Control) for one in renderables)
        return [_Sequence("\r" if is_drawing else ERASE), *renderables, self]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Write the lines, and go back to the beginning of the first."""
        rows = self._rows()
        yield _Sequence(BEGIN)
        for n, row in enumerate(rows):
            if n:
                yield Segment.line()
            yield _Sequence(ERASE_REST if n == len(rows) - 1 else ERASE_LINE).segment
            yield from row.render(console)
        if not rows:
            yield _Sequence(ERASE_REST).segment
        yield _Sequence("\r" + f"\x1b[{len(rows) - 1}A" * (len(rows) > 1) + END)

    @property
    def is_in_front(self) -> bool:
        """Whether the terminal is this program's now, as far as can be told."""
        try:
            terminal = self._console.file.fileno()
        except (AttributeError, OSError, ValueError):
            terminal = None
        return not self._is_suspended and (terminal is None or is_in_foreground(terminal))

    def _suspend(self, number: int, frame: object) -> None:
        """Leave the terminal to the shell until the program is continued."""
        self._is_suspended = True
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a write was interrupted
            self._console.file.write(LEAVE)
            self._console.file.flush()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, self._suspend)
        self._is_suspended, self._drawn = False, None

    def _rows(self) -> Sequence[Text]:
        size = self._console.size
        return self._lines(size.width, size.height)

    def _draw_on(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(Exception):  # a drawing that fails is no reason to stop
                self.draw()
            self._ended.wait(EVERY_S)
