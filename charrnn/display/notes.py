"""What a training run says of itself in sentences: its limits, notes and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from charrnn import events
from charrnn.display.format import UNITS, counted, duration
from charrnn.display.terminal import terminal_text, visible_text

SHOWN_UNKNOWN = 0.01
"""Share of unknown characters in the validation text that is worth a warning."""
LIST_HINT = (
    "looks like a list of short lines: with --documents line the model learns where each begins "
    "and ends"
)


def limits(event: events.Started) -> str:
    """Write the limits of a run: `1m 30s or 50 epochs`."""
    training, found = event.training, []
    if training.time_s is not None:
        found.append(duration(training.time_s + event.late_s))
    if training.epochs is not None:
        found.append(f"{training.epochs:g} epochs")
    if training.steps is not None:
        found.append(f"{training.steps:,} steps")
    return " or ".join(found)


def further_limits(event: events.Started) -> str:
    """Write the limits of a resumed run: `20 epochs more (65.1 in all)`."""
    training, found = event.training, []
    if training.time_s is not None:
        total = training.time_s + event.late_s
        found.append(f"{duration(max(0, total - event.resumed_s))} more ({duration(total)} in all)")
    if training.epochs is not None:
        more = max(0, training.epochs - event.resumed_epochs)
        found.append(f"{more:.3g} epochs more ({training.epochs:.3g} in all)")
    if training.steps is not None:
        more = max(0, training.steps - event.resumed_at)
        found.append(f"{counted(more, 'step')} more ({training.steps:,} in all)")
    return " or ".join(found)


def as_long(event: events.Finished) -> tuple[str, list[str]]:
    """Return how long a finished run was trained in all, and the option that adds as much."""
    if event.reason in ("time", "rising loss"):
        seconds = max(1, round(event.elapsed_s))
        return duration(seconds), ["--time", f"{seconds}s"]
    if event.reason == "epochs":
        return f"{event.epochs:.3g} epochs", ["--epochs", f"{event.epochs:.3g}"]
    return f"{event.step:,} steps", ["--steps", str(event.step)]


def next_command(started: events.Started | None, run: str) -> list[str]:
    """Return what to do with the model first."""
    if started is not None and started.model.bidirectional:
        return ["fill", "-m", run, "A text with g_ps"]
    return ["sample", "-m", run, "--temp", "0.8"]


def notes(event: events.Event) -> Iterator[str]:
    """Yield what happened to the text and to the run, which is as it should be."""
    if isinstance(event, events.LossRises):
        yield (
            f"validation loss keeps rising at step {event.step:,}: the run ends soon, with the "
            "learning rate brought down"
        )
    elif isinstance(event, events.Stopping):
        alone = event.processes == 1
        how = "Ctrl-C again stops at once" if alone else "torchrun gives it 30 seconds"
        yield f"stopping: the model is measured and saved first ({how})"
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


def warnings(event: events.Event, started: events.Started | None) -> Iterator[str]:
    """Yield what a user should know even in a quiet run.

    Args:
        event: what has happened.
        started: how the run began, if that is known.
    """
    if isinstance(event, events.Started):
        yield from _start_warnings(event)
    elif isinstance(event, events.RolledBack):
        rate = f"{event.rate_scale:.2g} times the learning rate"
        if started is not None:
            peak = started.training.learning_rate
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
    elif isinstance(event, events.Evaluated) and event.unknown_share >= SHOWN_UNKNOWN:
        judge = "by the others" if event.val_loss is not None else "by its training loss"
        yield (
            f"{event.unknown_share:.0%} of the validation text is characters that the "
            f"training text lacks, and the model is judged {judge}: try another "
            "--val-fraction, a --held-out file, or --documents"
        )


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
