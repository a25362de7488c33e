"""A training run on the screen: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar, cast

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
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
from charrnn.display.terminal import line_starts, pasted, terminal_text, visible_text, wrapped
from charrnn.vocab import FIRST_CHARACTER_ID

SHOWN_UNKNOWN = 0.01
"""Share of unknown characters in the validation text that is worth a warning."""
SAMPLE_LINES = 4
"""A longer sample is cut: a list of short lines would push all else off the screen."""
MARGIN = "    "
"""Before the lines of a sample."""
CUT = " …"
"""After a sample that has more lines."""
LIST_HINT = (
    "looks like a list of short lines: with --documents line the model learns where each begins "
    "and ends"
)

_Part = TypeVar("_Part", str, Text)


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
        self._console = console or Console(file=stream, highlight=False)
        self._unit: Unit = "char"
        self._started: events.Started | None = None
        self._has_warned = False
        self._progress: Progress | None = None
        self._bar_column = BarColumn()
        self._task: TaskID | None = None
        self._val_loss: float | None = None
        if self._console.is_terminal and not quiet:
            self._progress = Progress(
                SpinnerColumn(),
                self._bar_column,
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                console=self._console,
                transient=True,
            )

    def __enter__(self) -> TrainingDisplay:
        """Start the progress bar, if there is a terminal."""
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()

    def working(self, what: str) -> None:
        """Show what is going on that has no known length."""
        self._bar(what, None)

    def encoded(self, characters: int) -> None:
        """Show how much of the text has been read."""
        self._bar(f"reading the text: {count(characters)} characters", None)

    def show(self, event: events.Event) -> None:
        """Show one event."""
        if isinstance(event, events.Started):
            self._started, self._unit = event, event.unit
        if not self._quiet:
            self._show(event)
            for note in _notes(event):
                self._line(note)
        if isinstance(event, events.Finished):
            self._show_end(event)
        for warning in self._warnings(event):
            self._line(Text(warning, style="yellow"))

    def _show(self, event: events.Event) -> None:
        if isinstance(event, events.Started):
            self._show_start(event)
        elif isinstance(event, events.Progressed):
            self._show_progress(event)
        elif isinstance(event, events.Evaluated):
            self._show_evaluation(event)
        elif isinstance(event, events.Sampled):
            self._show_sample(event.text)

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
            where += f", resumed at step {event.resumed_at:,}, at most {_further_limits(event)}"
        else:
            where += f", at most {_limits(event)}"
        self._line(where)

    def _show_progress(self, event: events.Progressed) -> None:
        parts = [(0, f"{event.progress:4.0%}")]
        if event.eta_s is not None:
            parts.append((1, f" · {duration(event.eta_s)} left"))
        if event.train_loss is not None:
            parts.append((2, f" · train {event.train_loss:.3f}"))
        if self._val_loss is not None:
            parts.append((1, f" · val {self._val_loss:.3f}"))
        if event.train_loss is not None or self._val_loss is not None:
            parts.append((3, f" nats/{self._unit}"))
        if event.chars_per_s:
            parts.append((4, f" · {count(event.chars_per_s)} {self._unit}/s"))
        parts.append((5, f" · lr {event.learning_rate:.2g}"))
        self._bar("".join(_fitting(parts, self._bar_room)), event.progress)

    def _show_evaluation(self, event: events.Evaluated) -> None:
        self._val_loss = event.val_loss
        style = "bold green" if event.is_best else ""
        parts = [
            (0, Text(f"{event.progress:4.0%}", "bold")),
            (5, Text(f"  epoch {event.epoch:.2f}")),
            (4, Text(f"  step {event.step:,}")),
            (2, Text(f"  {duration(event.elapsed_s)}")),
        ]
        if event.train_loss is not None and event.val_loss is not None:
            parts.append((3, Text(f"  train {event.train_loss:.3f}")))
        name, judged = "val", event.val_loss
        if judged is None:
            name, judged = "train", event.train_loss
        if judged is not None:
            nats, *bits = loss(judged, self._unit, event.bits_per_char).partition(" (")
            parts.append((0, Text.assemble(f"  {name} ", (nats, style))))
            parts.append((3, Text("".join(bits), style)))
        parts.append((7, Text(f"  lr {event.learning_rate:.2g}")))
        if event.chars_per_s:
            parts.append((6, Text(f"  {count(event.chars_per_s)} {self._unit}/s")))
        if event.is_best:
            parts.append((1, Text("  best", "green")))
        self._line(Text.assemble(*_fitting(parts, self._width)))

    def _show_sample(self, text: str) -> None:
        """Show the first lines of a sample, as many as leave room for the rest."""
        width = None if self._width is None else max(1, self._width - len(MARGIN) - len(CUT))
        lines = wrapped(terminal_text(text.strip("\n")), width).split("\n")
        shown = [MARGIN + line for line in lines[:SAMPLE_LINES]]
        if len(lines) > SAMPLE_LINES:
            shown[-1] += CUT
        self._line(Text("\n".join(shown), style="dim"))

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
        self._line("  " + pasted(["charrnn", *_next_command(self._started, run)]))
        again = ["charrnn", "train", "--resume", "--out", run]
        if event.reason == "interrupted":
            self._line(f"To continue where it stopped: {pasted(again)}")
        elif event.verdict.advice == "more training":
            more, option = _as_long(event)
            self._line(f"To train it for another {more}: {pasted(again + option)}")

    def show_break(self, run: Path, step: int | None, *, has_model: bool) -> None:
        """Show what a second Ctrl-C, which ends a run at once, has left.

        Args:
            run: its directory.
            step: of the state that was saved; None if none was.
            has_model: whether a model was.
        """
        if step is None:
            self._line("Stopped at once, before anything was saved.")
            return
        model = "the best model until then" if has_model else "no model yet"
        self._line(f"Stopped at once: what was saved at step {step:,} is kept, with {model}.")
        again = ["charrnn", "train", "--resume", "--out", str(run)]
        self._line(f"To continue from there: {pasted(again)}")

    def _warnings(self, event: events.Event) -> Iterator[str]:
        """Yield what a user should know even in a quiet run."""
        if isinstance(event, events.Started):
            yield from _start_warnings(event)
        elif isinstance(event, events.RolledBack):
            rate = f"{event.rate_scale:.2g} times the learning rate"
            if self._started is not None:
                peak = self._started.training.learning_rate
                before, after = peak * event.rate_scale_before, peak * event.rate_scale
                rate = f"a learning rate of {after:.3g} instead of {before:.3g}"
            yield (
                f"the loss exploded near step {event.exploded_at:,}: back to step {event.step:,} "
                f"with {rate}"
            )
        elif isinstance(event, events.RowsHalved):
            yield (
                f"the memory of the device is too small: from step {event.step:,} with "
                f"{event.batch_size} batch rows, half of those before"
            )
        elif isinstance(event, events.Evaluated) and not self._has_warned:
            self._has_warned = True
            if event.unknown_share >= SHOWN_UNKNOWN:
                judge = "by the others" if event.val_loss is not None else "by its training loss"
                yield (
                    f"{event.unknown_share:.0%} of the validation text is characters that the "
                    f"training text lacks, and the model is judged {judge}: try another "
                    "--val-fraction, a --held-out file, or --documents"
                )

    @property
    def _width(self) -> int | None:
        """Columns of the terminal; None of a pipe."""
        return self._console.width if self._console.is_terminal else None

    @property
    def _bar_width(self) -> int:
        return max(4, self._console.width // 6)

    @property
    def _bar_room(self) -> int:
        """Columns beside the spinner and the bar."""
        return self._console.width - self._bar_width - len("⠋  ")

    def _line(self, text: Text | str) -> None:
        """Print a line, on a terminal broken between words."""
        line = Text(text) if isinstance(text, str) else text
        starts = line_starts(line.plain, self._width)
        for part in line.divide(starts):
            if starts:
                part.rstrip()
            self._console.print(part, soft_wrap=True)

    def _bar(self, text: str, progress: float | None) -> None:
        if self._progress is None:
            return
        total = None if progress is None else 1.0
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._bar_column.bar_width = self._bar_width
        self._progress.update(self._task, description=text, completed=progress or 0, total=total)


def _fitting(parts: Iterable[tuple[int, _Part]], width: int | None) -> list[_Part]:
    """Return the parts of a line that fit into a width, in their order; those of rank 0 stay."""
    kept = list(parts)
    while width is not None and sum(cell_len(str(part)) for _, part in kept) > width:
        last = max(rank for rank, _ in kept)
        if last == 0:
            break
        kept = [(rank, part) for rank, part in kept if rank != last]
    return [part for _, part in kept]


def _limits(event: events.Started) -> str:
    """Write the limits of a run: `1m 30s or 50 epochs`."""
    training, limits = event.training, []
    if training.time_s is not None:
        limits.append(duration(training.time_s + event.late_s))
    if training.epochs is not None:
        limits.append(f"{training.epochs:g} epochs")
    if training.steps is not None:
        limits.append(f"{training.steps:,} steps")
    return " or ".join(limits)


def _further_limits(event: events.Started) -> str:
    """Write the limits of a resumed run: `20 epochs more (65.1 in all)`."""
    training, limits = event.training, []
    if training.time_s is not None:
        total = training.time_s + event.late_s
        limits.append(
            f"{duration(max(0, total - event.resumed_s))} more ({duration(total)} in all)"
        )
    if training.epochs is not None:
        more = max(0, training.epochs - event.resumed_epochs)
        limits.append(f"{more:.3g} epochs more ({training.epochs:.3g} in all)")
    if training.steps is not None:
        more = max(0, training.steps - event.resumed_at)
        limits.append(f"{counted(more, 'step')} more ({training.steps:,} in all)")
    return " or ".join(limits)


def _as_long(event: events.Finished) -> tuple[str, list[str]]:
    """Return how long a finished run was trained in all, and the option that adds as much."""
    if event.reason in ("time", "rising loss"):
        seconds = max(1, round(event.elapsed_s))
        return duration(seconds), ["--time", f"{seconds}s"]
    if event.reason == "epochs":
        return f"{event.epochs:.3g} epochs", ["--epochs", f"{event.epochs:.3g}"]
    return f"{event.step:,} steps", ["--steps", str(event.step)]


def _notes(event: events.Event) -> Iterator[str]:
    """Yield what happened to the text and to the run, which is as it should be."""
    if isinstance(event, events.LossRises):
        yield (
            f"validation loss keeps rising at step {event.step:,}: the run ends soon, with the "
            "learning rate brought down"
        )
    elif isinstance(event, events.Stopping):
        yield "stopping: the model is measured and saved first (Ctrl-C again stops at once)"
    if not isinstance(event, events.Started):
        return
    if event.files_read > 1 or event.files_left_out:
        left = f", {event.files_left_out:,} left out" if event.files_left_out else ""
        left += _named(event.left_out, event.files_left_out)
        yield f"{counted(event.files_read, 'file')} read{left}"
    if event.n_copies:
        others = "one has" if event.n_copies == 1 else f"{event.n_copies:,} have"
        yield (
            f"{others} the same text as another file{_named(event.copies, event.n_copies)}, and "
            "the text counts as often as it is read"
        )
    if event.name_taken is not None:
        yield (
            f"{terminal_text(str(event.name_taken))} exists: this run is "
            f"{terminal_text(str(event.run))}"
        )
    asked, used = (event.training.batch_size, event.training.bptt), (event.batch_size, event.bptt)
    if asked != used:
        yield (
            f"the text is short: the batch is {used[0]} × {used[1]} {UNITS[event.unit][1]} "
            f"instead of {asked[0]} × {asked[1]}"
        )
    unusual = [encoding for encoding in event.encodings if encoding != "UTF-8"]
    if unusual:
        yield f"the text was read as {', '.join(unusual)}"
    foreign = [repr(end)[1:-1] for end in event.newlines if end != "\n"]
    if foreign:
        yield f"line ends {', '.join(foreign)} became \\n"
    if event.looks_like_list:
        yield f"the text {LIST_HINT}"


def _named(names: Sequence[str], number: int) -> str:
    """Name the first of some files: ` (a.csv, b.csv, …)`."""
    if not names:
        return ""
    return f" ({', '.join(map(visible_text, names))}{', …' if number > len(names) else ''})"


def _start_warnings(event: events.Started) -> Iterator[str]:
    if event.lacking:
        yield f"the GPU lacks {event.lacking}, which training needs: training runs on the CPU"
    if event.late_s:
        yield (
            "starting and reading the text took more than half of the time limit: training gets "
            f"the other half, so the run takes {math.ceil(event.late_s)}s longer"
        )
    if event.n_val == 0:
        yield (
            "nothing is held out for validation: the model kept is the one with the lowest "
            "training loss"
        )
    if event.n_duplicates:
        yield (
            f"{counted(event.n_duplicates, 'validation document is', 'validation documents are')} "
            "in the training text too: new text will be harder"
        )


def _next_command(started: events.Started | None, run: str) -> list[str]:
    """Return what to do with the model first."""
    if started is not None and started.model.bidirectional:
        return ["fill", "-m", run, "A text with g_ps"]
    return ["sample", "-m", run, "--temp", "0.8"]
