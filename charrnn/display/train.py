"""A training run on the screen: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from textwrap import indent
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from charrnn import events
from charrnn.display.format import architecture, count, duration, loss

SHOWN_PADDING = 0.005
"""Share of padding that is worth a line."""


class TrainingDisplay:
    """Shows training events on stderr; use as a context manager.

    Args:
        quiet: show notices only.
        console: where to show; stderr by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        """Prepare; nothing is shown yet."""
        self._quiet = quiet
        self._console = console or Console(stderr=True, highlight=False)
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
        """Take the progress bar away."""
        if self._progress is not None:
            self._progress.stop()

    def working(self, what: str) -> None:
        """Show that something of unknown length goes on."""
        self._bar(what, None, None)

    def encoded(self, characters: int) -> None:
        """Show how much of the text has been read."""
        self._bar(f"reading the text: {count(characters)} characters", None, None)

    def show(self, event: events.Event) -> None:
        """Show one event."""
        if isinstance(event, events.Notice):
            self._line(Text(event.text, style="yellow"))
        elif isinstance(event, events.Progressed):
            self._show_progress(event)
        elif self._quiet:
            return
        elif isinstance(event, events.Started):
            self._show_start(event)
        elif isinstance(event, events.Planned):
            self._show_plan(event)
        elif isinstance(event, events.Evaluated):
            self._show_evaluation(event)
        elif isinstance(event, events.Sampled):
            self._line(Text(indent(event.text.strip("\n"), "    "), style="dim"))
        elif isinstance(event, events.Finished):
            self._show_end(event)

    def _show_start(self, event: events.Started) -> None:
        model, training = event.model, event.training
        facts = [
            architecture([model] * training.members),
            f"{count(event.n_parameters)} parameters",
            f"{model.vocab_size} ids",
            f"{count(event.n_train)} + {count(event.n_val)} characters",
            f"{training.batch_size} lanes × {training.bptt}",
            f"lr {training.learning_rate:g}",
            f"dropout {training.dropout:g}, recurrent {training.recurrent_dropout:g}",
            f"seed {training.seed}",
            f"{event.device} {event.dtype}",
        ]
        self._line(Text(" · ".join(facts), style="bold"))
        where = f"run {event.run}"
        if event.resumed_at:
            where += f", resumed at step {event.resumed_at:,}"
        elif training.time_s is not None:
            where += f", {duration(training.time_s)} at most"
        self._line(where)
        self._bar("measuring the speed", None, None)

    def _show_plan(self, event: events.Planned) -> None:
        text = f"{event.total_steps:,} steps, {event.epochs:.3g} passes over the text"
        if event.duration_s is not None:
            text += f", {duration(event.duration_s)} to go at the measured speed"
        self._line(text)

    def _show_progress(self, event: events.Progressed) -> None:
        parts = [] if event.eta_s is None else [f"{duration(event.eta_s)} left"]
        if event.train_loss is not None:
            parts.append(f"train {loss(event.train_loss)}")
        if self._val_loss is not None:
            parts.append(f"val {loss(self._val_loss)}")
        parts.append(f"{count(event.chars_per_s)} char/s")
        parts.append(f"lr {event.learning_rate:.2g}")
        self._bar(" · ".join(parts), event.step, event.total_steps)

    def _show_evaluation(self, event: events.Evaluated) -> None:
        self._val_loss = event.val_loss
        total = f"/{event.total_steps:,}" if event.total_steps else ""
        line = Text.assemble(
            (f"step {event.step:,}{total}", "bold"),
            f"  epoch {event.epoch:.2f}  {duration(event.elapsed_s)}",
        )
        if event.train_loss is not None:
            line.append(f"  train {loss(event.train_loss)}")
        if event.val_loss is not None:
            style = "bold green" if event.is_best else ""
            line.append_text(Text.assemble("  val ", (loss(event.val_loss), style)))
        line.append(f"  lr {event.learning_rate:.2g}  {count(event.chars_per_s)} char/s")
        if event.is_best:
            line.append("  best", style="green")
        self._line(line)

    def _show_end(self, event: events.Finished) -> None:
        how = {"complete": "Done", "patience": "Stopped early", "interrupted": "Interrupted"}
        good = f"training {loss(event.train_loss)} per character"
        if event.val_loss is not None:
            good = f"validation {loss(event.val_loss)} per character at step {event.best_step:,}"
        self._line(
            Text.assemble(
                (f"{how[event.reason]} after {duration(event.elapsed_s)}: ", "bold"),
                f"{good}; {event.verdict}.",
            )
        )
        if event.padding_share > SHOWN_PADDING:
            self._line(
                f"{event.padding_share:.1%} of the computation was padding: windows go beyond "
                "the end of a document or of the text."
            )
        self._line(f"The best model is {event.model_path}; now type:")
        self._line(f"  charrnn sample -m {event.run} --temp 0.8")
        if event.reason == "interrupted":
            self._line(f"To go on where it stopped: charrnn train --resume --out {event.run}")

    def _line(self, text: Text | str) -> None:
        """Print a line, in a pipe as long as it is: a pipe has no width."""
        self._console.print(text, soft_wrap=not self._console.is_terminal, markup=False)

    def _bar(self, text: str, done: int | None, total: int | None) -> None:
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._progress.update(self._task, description=text, completed=done or 0, total=total)
