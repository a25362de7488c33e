"""A training run on the screen: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from textwrap import indent
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from charrnn import events
from charrnn.config import Unit
from charrnn.display.format import UNITS, architecture, count, duration, loss, verdict
from charrnn.display.terminal import pasted, terminal_text

SHOWN_PADDING = 0.005
"""Share of padding that is worth a line."""


SHOWN_UNKNOWN = 0.01
"""Share of unknown characters in the validation text that is worth a warning."""


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
        self._chars_per_unit = 1.0
        self._has_warned = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._val_loss: float | None = None
        if self._console.is_terminal and not quiet:
            self._progress = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=16),
                TextColumn("{task.description}"),
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
            self._unit, self._chars_per_unit = event.unit, event.chars_per_unit
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
            self._line(Text(indent(self._safe(event.text.strip("\n")), "    "), style="dim"))

    def _safe(self, text: str) -> str:
        """Return a text that does nothing to a terminal but show; a pipe gets it exactly."""
        return terminal_text(text) if self._console.is_terminal else text

    def _show_start(self, event: events.Started) -> None:
        model, training = event.model, event.training
        facts = [
            architecture(model),
            f"{count(model.num_parameters())} parameters",
            f"{model.vocab_size} ids",
            f"{count(event.n_train)} + {count(event.n_val)} {UNITS[event.unit][1]}",
            f"{event.batch_size} rows × {event.bptt}",
            f"lr {training.learning_rate:g}",
            f"dropout {training.dropout:g}, recurrent {training.recurrent_dropout:g}",
            f"seed {training.seed}",
            f"{event.device} {event.dtype}",
        ]
        self._line(Text(" · ".join(facts), style="bold"))
        where = f"run {self._safe(str(event.run))}"
        if event.resumed_at:
            where += f", resumed at step {event.resumed_at:,}"
        self._line(f"{where}, at most {_limits(event)}")

    def _show_progress(self, event: events.Progressed) -> None:
        parts = [f"{event.progress:4.0%}"]
        if event.eta_s is not None:
            parts.append(f"{duration(event.eta_s)} left")
        if event.train_loss is not None:
            parts.append(f"train {event.train_loss:.3f}")
        if self._val_loss is not None:
            parts.append(f"val {self._val_loss:.3f}")
        if len(parts) > 1:
            parts[-1] += f" nats/{self._unit}"
        parts.append(f"{count(event.chars_per_s)} {self._unit}/s")
        parts.append(f"lr {event.learning_rate:.2g}")
        self._bar(" · ".join(parts), event.progress)

    def _show_evaluation(self, event: events.Evaluated) -> None:
        self._val_loss = event.val_loss
        line = Text.assemble(
            (f"{event.progress:4.0%}", "bold"),
            f"  epoch {event.epoch:.2f}  step {event.step:,}  {duration(event.elapsed_s)}",
        )
        bits, style = event.bits_per_char, "bold green" if event.is_best else ""
        if event.val_loss is None and event.train_loss is not None:
            line.append(f"  train {loss(event.train_loss, self._unit, bits)}")
        elif event.train_loss is not None:
            line.append(f"  train {event.train_loss:.3f}")
        if event.val_loss is not None:
            shown = loss(event.val_loss, self._unit, bits)
            line.append_text(Text.assemble("  val ", (shown, style)))
        line.append(f"  lr {event.learning_rate:.2g}  {count(event.chars_per_s)} {self._unit}/s")
        if event.is_best:
            line.append("  best", style="green")
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
        spent = f"{duration(event.elapsed_s)} and {event.epochs:.3g} epochs"
        judgement = verdict(event.verdict, self._unit)
        self._line(Text.assemble((f"{how} after {spent}: ", "bold"), f"{good}; {judgement}."))
        if self._quiet:
            self._line(f"The best model is {self._safe(str(event.model_path))}.")
            return
        if event.padding_share > SHOWN_PADDING:
            self._line(
                f"{event.padding_share:.1%} of the computation was padding: windows extend beyond "
                "the end of a document or of the text."
            )
        run = str(event.run)
        self._line(f"The best model is {self._safe(str(event.model_path))}; now type:")
        self._line("  " + pasted(["charrnn", "sample", "-m", run, "--temp", "0.8"]))
        again = ["charrnn", "train", "--resume", "--out", run]
        if event.reason == "interrupted":
            self._line(f"To continue where it stopped: {pasted(again)}")
        elif event.verdict.advice == "more training":
            self._line(f"To train it as long again: {pasted(again + _as_long(event))}")

    def _warnings(self, event: events.Event) -> Iterator[str]:
        """Yield what a user should know even in a quiet run."""
        if isinstance(event, events.Started):
            yield from _start_warnings(event)
        elif isinstance(event, events.RolledBack):
            yield (
                f"the loss exploded near step {event.exploded_at:,}: back to step {event.step:,} "
                f"with the learning rate times {event.rate_scale:g}"
            )
        elif isinstance(event, events.Evaluated) and not self._has_warned:
            self._has_warned = True
            if event.unknown_share >= SHOWN_UNKNOWN:
                judge = "by the others" if event.val_loss is not None else "by its training loss"
                yield (
                    f"{event.unknown_share:.0%} of the validation text are characters that the "
                    f"training text lacks, and the model is judged {judge}: try another "
                    "--val-fraction, a --held-out file, or --documents"
                )

    def _line(self, text: Text | str) -> None:
        """Print a line, in a pipe without wrapping: a pipe has no width."""
        self._console.print(text, soft_wrap=not self._console.is_terminal, markup=False)

    def _bar(self, text: str, progress: float | None) -> None:
        if self._progress is None:
            return
        total = None if progress is None else 1.0
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._progress.update(self._task, description=text, completed=progress or 0, total=total)


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


def _as_long(event: events.Finished) -> list[str]:
    """Return the option that trains a finished run as long again."""
    if event.reason in ("time", "rising loss"):
        return ["--time", f"{max(1, round(event.elapsed_s))}s"]
    if event.reason == "epochs":
        return ["--epochs", f"{event.epochs:.3g}"]
    return ["--steps", str(event.step)]


def _notes(event: events.Event) -> Iterator[str]:
    """Yield what happened to the text and to the run, which is as it should be."""
    if isinstance(event, events.LossRises):
        yield (
            f"validation loss keeps rising at step {event.step:,}: the run ends soon, with the "
            "learning rate brought down"
        )
    elif isinstance(event, events.Stopping):
        yield "stopping: the model is measured and saved first"
    if not isinstance(event, events.Started):
        return
    if event.files_read > 1 or event.files_left_out:
        left = f", {event.files_left_out:,} left out" if event.files_left_out else ""
        yield f"{event.files_read:,} files read{left}"
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
        yield (
            "this looks like a list of short lines: with --documents line the model learns where "
            "each begins and ends"
        )


def _start_warnings(event: events.Started) -> Iterator[str]:
    if event.late_s:
        yield (
            "reading the text took more than half of the time limit: training gets the other half, "
            f"so the run takes {math.ceil(event.late_s)}s longer"
        )
    if event.n_val == 0:
        yield (
            "nothing is held out for validation: the model kept is the one with the lowest "
            "training loss"
        )
    if event.n_duplicates:
        yield (
            f"{event.n_duplicates:,} validation documents are in the training text too: new text "
            "will be harder than they are"
        )
