"""A training run on the screen: a live panel in a terminal, a line per evaluation elsewhere."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from charrnn import events
from charrnn.config import Unit
from charrnn.display.format import (
    UNITS,
    architecture,
    count,
    counted,
    duration,
    loss,
    verdict,
)
from charrnn.display.notes import (
    LIST_HINT,
    as_long,
    further_limits,
    limits,
    next_command,
    notes,
    warnings,
)
from charrnn.display.panel import LivePanel, RunView, fitting, judged_loss
from charrnn.display.terminal import line_starts, pasted, terminal_text
from charrnn.vocab import FIRST_CHARACTER_ID

MARGIN = "    "
"""Before the lines of a sample."""


class _Tolerant:
    """A stream whose errors are nobody's concern: training does not end with its terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class TrainingDisplay:
    """Shows training events on stderr; use as a context manager.

    Nothing that happens to stderr, such as a full disk or a dead `tee`, ends the training.

    Args:
        quiet: show warnings and the result only.
        console: where to show; stderr by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        """Prepare; nothing is shown yet."""
        self._quiet = quiet
        stream = cast(IO[str], _Tolerant(sys.stderr))
        self._console = console or Console(
            file=stream,
            highlight=False,
            force_interactive=None if _is_terminal(stream) else False,  # whatever FORCE_COLOR says
        )
        self._unit: Unit = "char"
        self._started: events.Started | None = None
        self._has_evaluated = False
        self._is_live = False
        self._view = RunView(self._console.encoding)
        self._panel: LivePanel | None = None

    def __enter__(self) -> TrainingDisplay:
        """Let the panel appear, if there is a terminal that can have one."""
        console = self._console
        self._is_live = console.is_interactive and not console.legacy_windows and not self._quiet
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the panel; what it showed last stays."""
        self._close_panel()
        self._is_live = False

    def working(self, what: str) -> None:
        """Show what is going on that has no known length."""
        self._view.activity = what
        self._open_panel()

    def encoded(self, characters: int) -> None:
        """Show how much of the text has been read."""
        self.working(f"reading the text: {count(characters)} characters")

    def show(self, event: events.Event) -> None:
        """Show one event."""
        if isinstance(event, events.Started):
            self._started, self._unit, self._has_evaluated = event, event.unit, False
            self._open_panel()
        self._view.take(event)
        if not self._quiet:
            self._show(event)
            for note in notes(event):
                self._line(note)
        if isinstance(event, events.Finished):
            self._close_panel()
            self._show_end(event)
        is_evaluation = isinstance(event, events.Evaluated)
        if not (is_evaluation and self._has_evaluated):  # what is true of all is said of the first
            for warning in warnings(event, self._started):
                self._line(Text(warning, style="yellow"))
        self._has_evaluated |= is_evaluation

    def _show(self, event: events.Event) -> None:
        if isinstance(event, events.Started):
            self._show_start(event)
        elif self._panel is not None and self._panel.is_in_front:
            return
        elif isinstance(event, events.Evaluated):
            self._show_evaluation(event)
        elif isinstance(event, events.Sampled):
            self._show_sample()

    def _show_start(self, event: events.Started) -> None:
        model, training, (one, units) = event.model, event.training, UNITS[event.unit]
        facts = [
            architecture(model),
            f"{count(model.num_parameters())} parameters",
            f"alphabet of {counted(model.vocab_size - FIRST_CHARACTER_ID, one)}",
            f"{count(event.n_train)} {units} to train on"
            + (f" and {count(event.n_val)} to validate on" if event.n_val else ""),
            f"{counted(event.batch_size, 'row')} × {event.bptt}",
            f"lr {training.learning_rate:g}",
            f"dropout {training.dropout:g}, recurrent {training.recurrent_dropout:g}",
            f"seed {training.seed}",
            f"{event.device} {event.dtype}",
        ]
        self._line(Text(" · ".join(facts), style="bold"))
        where = f"run {terminal_text(str(event.run))}"
        if event.resumed_at:
            where += f", resumed at step {event.resumed_at:,}, at most {further_limits(event)}"
        else:
            where += f", at most {limits(event)}"
        self._line(where)

    def _show_evaluation(self, event: events.Evaluated) -> None:
        style = "bold green" if event.is_best else ""
        parts = [
            (0, Text(f"{event.progress:4.0%}", "bold")),
            (5, Text(f"  epoch {event.epoch:.2f}")),
            (4, Text(f"  step {event.step:,}")),
            (2, Text(f"  {duration(event.elapsed_s)}")),
        ]
        if event.train_loss is not None and event.val_loss is not None:
            parts.append((3, Text(f"  train {event.train_loss:.3f}")))
        if (judged := judged_loss(event)) is not None:
            name = "train" if event.val_loss is None else "val"
            nats, *bits = loss(judged, self._unit, event.bits_per_char).partition(" (")
            parts.append((0, Text.assemble(f"  {name} ", (nats, style))))
            parts.append((3, Text("".join(bits), style)))
        parts.append((7, Text(f"  lr {event.learning_rate:.2g}")))
        if event.chars_per_s:
            parts.append((6, Text(f"  {count(event.chars_per_s)} {self._unit}/s")))
        if event.is_best:
            parts.append((1, Text("  best", "green")))
        self._line(Text.assemble(*fitting(parts, self._width)))

    def _show_sample(self) -> None:
        """Show the first lines of the newest sample."""
        width = None if self._width is None else max(1, self._width - len(MARGIN))
        lines = [MARGIN + line for line in self._view.sample_lines(width)]
        self._line(Text("\n".join(lines), style="dim"))

    def _open_panel(self) -> None:
        if self._is_live and self._panel is None:
            self._panel = LivePanel(self._console, self._view.lines)
            self._panel.start()

    def _close_panel(self) -> None:
        """Remove the panel, and leave what is worth keeping of it: how the losses went."""
        panel, view = self._panel, self._view
        self._panel, self._view = None, RunView(self._console.encoding)
        if panel is None:
            return
        panel.stop()
        if not panel.is_in_front:  # it has printed each evaluation
            return
        if view.evaluated is not None:
            self._show_evaluation(view.evaluated)
        for line in view.record(self._console.width):
            self._line(line)

    def _show_end(self, event: events.Finished) -> None:
        how = {
            "time": "Done",
            "steps": "Done",
            "epochs": "Done",
            "rising loss": "Ended early",
            "interrupted": "Interrupted",
        }[event.reason]
        good = f"training {loss(event.train_loss, self._unit, event.bits_per_char)}"
        if event.val_loss is not None:
            good = f"validation {loss(event.val_loss, self._unit, event.bits_per_char)}"
            good += f" at step {event.best_step:,}"
        resumed_at = 0 if self._started is None else self._started.resumed_at
        spent = f"{duration(event.elapsed_s)} and {event.epochs:.3g} epochs"
        spent += " in all" if resumed_at else ""
        judgement = verdict(event.verdict, self._unit)
        self._line(Text.assemble((f"{how} after {spent}: ", "bold"), f"{good}; {judgement}."))
        if 0 < resumed_at == event.step and event.reason != "interrupted":
            self._line("Nothing was trained: the limit was too short for a step.")
        elif 0 < resumed_at >= event.best_step:
            self._line(
                f"The model did not improve after it was resumed at step {resumed_at:,}: the best "
                f"one, from step {event.best_step:,}, is kept."
            )
        if self._quiet:
            self._line(f"The best model is {terminal_text(str(event.model_path))}.")
            return
        if self._started is not None and self._started.looks_like_list:
            self._line(f"The text {LIST_HINT}.")
        run = str(event.run)
        self._line(f"The best model is {terminal_text(str(event.model_path))}; now type:")
        self._line("  " + pasted(["charrnn", *next_command(self._started, run)]))
        again = ["charrnn", "train", "--resume", "--out", run]
        if event.reason == "interrupted":
            self._line(f"To continue where it stopped: {pasted(again)}")
        elif event.verdict.advice == "more training":
            more, option = as_long(event)
            self._line(f"To train it for another {more}: {pasted(again + option)}")

    def show_break(self, run: Path, step: int | None, *, has_model: bool) -> None:
        """Show what a second Ctrl-C, which ends a run at once, has left.

        Args:
            run: its directory.
            step: of the state that was saved; None if none was.
            has_model: whether a model was.
        """
        self._close_panel()
        if step is None:
            self._line("Stopped at once, before anything was saved.")
            return
        model = "the best model until then" if has_model else "no model yet"
        self._line(f"Stopped at once: what was saved at step {step:,} is kept, with {model}.")
        again = ["charrnn", "train", "--resume", "--out", str(run)]
        self._line(f"To continue from there: {pasted(again)}")

    @property
    def _width(self) -> int | None:
        """Columns of the terminal; None of a pipe."""
        return self._console.width if self._console.is_terminal else None

    def _line(self, text: Text | str) -> None:
        """Print a line, on a terminal broken between words."""
        line = Text(text) if isinstance(text, str) else text
        starts = line_starts(line.plain, self._width)
        for part in line.divide(starts):
            if starts:
                part.rstrip()
            self._console.print(part, soft_wrap=True)


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
