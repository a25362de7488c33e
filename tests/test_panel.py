"""What a training run shows in a terminal, as a terminal shows it."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
import unicodedata

import pytest
from conftest import TINY_RUN
from rich.console import Console
from rich.control import Control
from test_train_display import EVALUATED, FINISHED, RUN, STARTED, changed

from charrnn import events
from charrnn.display import panel as panel_module
from charrnn.display.format import ASCII_BARS, BARS, sparkline
from charrnn.display.panel import LivePanel
from charrnn.display.train import TrainingDisplay

PROGRESSED = events.Progressed(
    progress=0.56, step=1300, train_loss=1.5, learning_rate=0.005, chars_per_s=1e5, eta_s=61.0
)
VERSE = events.Sampled(text="To be, or not to be\nthat is a question\nof some length")
LOSSES = (3.0, 2.2, 1.8, 1.6)
EVALUATIONS = [changed(EVALUATED, val_loss=loss, step=300 * n) for n, loss in enumerate(LOSSES, 1)]
RUNNING = (STARTED, *EVALUATIONS, PROGRESSED, VERSE)


class Screen(io.StringIO):
    """A terminal: its rows, those that have scrolled away included, and its cursor.

    Args:
        width: columns.
        height: rows.
        reflows: a change of the width breaks long lines anew, as most terminals do; others cut.
    """

    encoding = "utf-8"
    SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([a-zA-Z])|(\x1b)|([^\x1b])", re.DOTALL)

    def __init__(self, width=80, height=24, *, reflows=True):
        super().__init__()
        self.width, self.height, self.reflows = width, height, reflows
        self.rows, self.is_continued = [[]], [False]
        self.row = self.column = 0
        self.wraps = self.shows_cursor = True
        self.n_kept = 0
        """Copies above the screen of what was erased from its first line on, as by tmux."""
        self.colours = set()

    def write(self, text):
        for match in self.SEQUENCE.finditer(text):
            parameter, command, broken, character = match.groups()
            assert not broken, f"a broken sequence in {text!r}"
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.to_row(self.row + 1)
            elif character is not None:
                self.put(character)
            elif command == "A":
                top = max(0, len(self.rows) - self.height)
                self.row = max(top, self.row - int(parameter))
            elif command == "J":
                assert parameter == ""
                top = max(0, len(self.rows) - self.height)
                if (self.row, self.column) == (top, 0) and any(self.rows[self.row :]):
                    self.n_kept += 1
                del self.rows[self.row + 1 :], self.is_continued[self.row + 1 :]
                del self.rows[self.row][self.column :]
            elif command == "K":
                assert parameter == ""
                del self.rows[self.row][self.column :]
            elif command == "m":
                self.colours.add(parameter)
            else:
                assert command in "hl"
                assert parameter in ("?7", "?25"), f"an unknown mode in {text!r}"
                setattr(self, {"?7": "wraps", "?25": "shows_cursor"}[parameter], command == "h")
        return len(text)

    def put(self, character):
        if unicodedata.combining(character) or character == "\0":
            return
        assert character != "\t", "nobody knows how wide that is"
        cells = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self.column + cells > self.width:
            if self.wraps:
                self.to_row(self.row + 1, is_continued=True)
            else:
                self.column = self.width - cells
        row = self.rows[self.row]
        row += [" "] * (self.column - len(row))
        row[self.column : self.column + cells] = [character] + [""] * (cells - 1)
        self.column += cells

    def to_row(self, row, *, is_continued=False):
        self.row, self.column = row, 0
        if row == len(self.rows):
            self.rows.append([])
            self.is_continued.append(is_continued)

    def resize(self, width, height):
        if not self.reflows:
            self.rows = [row[:width] for row in self.rows]
        else:
            lines, at, offset = [], 0, 0
            for number, (row, is_continued) in enumerate(
                zip(self.rows, self.is_continued, strict=True)
            ):
                if number == self.row:
                    at = len(lines) - is_continued
                    offset = (len(lines[-1]) if is_continued else 0) + self.column
                if is_continued:
                    lines[-1] += row
                else:
                    lines.append(list(row))
            rows, is_continued = [], []
            for number, line in enumerate(lines):
                if number == at:
                    self.row, self.column = len(rows) + offset // width, offset % width
                pieces = [line[n : n + width] for n in range(0, len(line), width)] or [[]]
                rows += pieces
                is_continued += [n > 0 for n in range(len(pieces))]
            self.rows, self.is_continued = rows, is_continued
        self.width, self.height = width, height

    @property
    def lines(self):
        lines = ["".join(row).rstrip() for row in self.rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def console_of(screen, **options):
    options = {"color_system": "standard", "highlight": False, **options}
    return Console(
        file=screen, force_terminal=True, width=screen.width, height=screen.height, **options
    )


def draw(console):
    """Have the panel drawn."""
    console.print(Control(), end="")


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """Nothing is drawn in the background, and time stands still."""
    monkeypatch.setattr(LivePanel, "_draw_on", lambda self: None)
    monkeypatch.setattr(panel_module.time, "monotonic", lambda: 1000.0)


def shown(width, *given, height=24, **options):
    """Return what is on a terminal in the middle of a run, without the lines of its beginning."""
    screen = Screen(width, height)
    console = console_of(screen, **options)
    with TrainingDisplay(console=console) as display:
        for event in given:
            display.show(event)
        for _ in range(2):  # what one leaves behind, the next does not remove
            draw(console)
        lines = screen.lines
    begin = next(n for n, line in enumerate(lines) if re.match(r" *\d+%", line))
    return lines[begin:]


def test_the_panel_in_eighty_columns():
    assert shown(80, *RUNNING) == [
        " 56%  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╾───────────────────────  1m 05s  1m 01s left",
        "train   1.500 nats/char",
        "val     1.600 nats/char (2.31 bits/char)",
        "best    1.600 nats/char (2.31 bits/char) at step 1,200",
        "curve   3.00 █▄▂▁ 1.60",
        "speed   100k char/s  step 1,300  lr 0.005",
        "sample  To be, or not to be",
        "        that is a question",
        "        of some length",
    ]


def test_the_panel_in_forty_columns():
    assert shown(40, *RUNNING, changed(EVALUATED, val_loss=1.8, is_best=False)) == [
        " 56%  ━━━━━━━╾─────  1m 05s  1m 01s left",
        "train   1.500 nats/char",
        "val     1.800 nats/char (2.31 bits/char)",
        "best    1.600 nats/char (2.31 bits/char)",
        "curve   3.00 █▄▂▁▂ 1.80",
        "speed   100k char/s  step 1,300",
        "sample  To be, or not to be",
        "        that is a question",
        "        of some length",
    ]


@pytest.mark.parametrize("width", [4, 10, 20, 40, 60, 80, 120, 300])
def test_the_panel_fits(width):
    lines = shown(width, *RUNNING, changed(VERSE, text="words " * 100))
    assert max(map(len, lines)) <= min(width, 100)
    if width >= 40:
        assert len(lines) == 10
        assert lines[0].endswith("1m 05s  1m 01s left")
        assert lines[-1].endswith(" …")
        bar = [c for c in lines[0] if c in "━╾─"]
        assert (2 * bar.count("━") + bar.count("╾")) == round(2 * len(bar) * 0.56)


def test_a_terminal_of_one_column_ends_no_run():
    screen = Screen(1)
    with TrainingDisplay(console=console_of(screen)) as display:
        for event in (*RUNNING, FINISHED):
            display.show(event)
    assert "".join(screen.lines).count("Done") == 1


def test_a_low_terminal_keeps_what_matters_most():
    for height, labels in (
        (12, ["train", "val", "best", "curve", "speed", "sample"]),
        (10, ["train", "val", "best", "curve", "speed", "sample"]),
        (7, ["train", "val", "best", "curve", "speed"]),
        (5, ["train", "val", "best"]),
        (3, ["val"]),
        (1, []),
    ):
        first, *others = shown(80, *RUNNING, height=height)
        assert first.startswith(" 56%")
        assert [line.split()[0] for line in others if line[0] != " "] == labels
        assert len(others) <= max(0, height - 2)


def test_a_run_without_validation_shows_its_training_loss():
    events_ = [
        changed(EVALUATED, train_loss=loss, val_loss=None, bits_per_char=1.0) for loss in LOSSES
    ]
    lines = shown(80, changed(STARTED, n_val=0), *events_)
    assert lines[1:] == [
        "train   1.600 nats/char",
        "best    1.600 nats/char (1.00 bits/char) at step 1,200",
        "curve   3.00 █▄▂▁ 1.60",
    ]


def test_a_resumed_run_counts_from_where_it_was():
    (line,) = shown(40, changed(STARTED, resumed_at=5, resumed_s=3700.0))
    assert line == "  0%  ──────────────────────────  1h 01m"


def test_colours_are_not_needed_and_not_there_where_they_are_unwanted():
    screen = Screen()
    console = console_of(screen, no_color=True)
    with TrainingDisplay(console=console) as display:
        for event in RUNNING:
            display.show(event)
        draw(console)
    assert screen.colours <= {"0", "1", "2"}, "bold and dim"
    assert shown(80, *RUNNING, no_color=True) == shown(80, *RUNNING)
    assert shown(80, *RUNNING, color_system=None) == shown(80, *RUNNING)


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252"])
def test_a_terminal_that_lacks_block_characters(monkeypatch, encoding):
    monkeypatch.setattr(Screen, "encoding", encoding)
    lines = shown(40, *RUNNING, changed(VERSE, text="words " * 100))
    assert "\n".join(lines).isascii()
    assert lines[0] == " 56%  =======------  1m 05s  1m 01s left"
    assert lines[4] == f"curve   3.00 {ASCII_BARS[7]}{ASCII_BARS[3]}{ASCII_BARS[1]}_ 1.60"
    assert lines[-1].endswith(" ...")


def test_notes_and_warnings_scroll_above_the_panel():
    screen = Screen(height=14)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        display.working("reading the text")
        draw(console)
        assert screen.lines == ["⠋ reading the text"]
        for event in (*RUNNING, events.LossRises(step=1300)):
            display.show(event)
        draw(console)
        display.show(events.RolledBack(exploded_at=48, step=40, rate_scale=0.3))
        lines = screen.lines
    n = [number for number, line in enumerate(lines) if line.startswith(" 56%")]
    assert len(n) == 1, lines
    above = "\n".join(lines[: n[0]])
    assert above.count("ensemble members") == 1
    assert "step 1,300: the run ends soon" in above
    assert "the loss exploded near step 48" in above
    assert len(lines) - n[0] == len(shown(80, *RUNNING))


def test_what_others_write_to_a_terminal_appears_above(monkeypatch):
    screen, elsewhere = Screen(), io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", elsewhere)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        display.show(STARTED)
        print("a warning of a library", file=sys.stderr)
        print("a product")
        print("without an end", end="", file=sys.stderr)
        lines = screen.lines
    assert lines[-3:-1] == ["a warning of a library", ""]
    assert lines[-1].startswith("  0%")
    assert screen.lines[-1] == "without an end"
    assert elsewhere.getvalue() == "a product\n", "a pipe is left alone"
    assert sys.stderr is screen


@pytest.mark.parametrize("reflows", [True, False])
@pytest.mark.parametrize("widths", [(80, 40, 120), (40, 120, 40), (120, 20, 80)])
def test_a_resize_in_mid_run_leaves_one_panel(reflows, widths):
    screen = Screen(widths[0], 60, reflows=reflows)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        for event in RUNNING:
            display.show(event)
        draw(console)
        console.print("a note", soft_wrap=True)
        for width in widths[1:]:
            screen.resize(width, 60)
            console.size = (width, 60)
            draw(console)
            lines = screen.lines
            begin = lines.index("a note") + 2
            assert lines[begin - 1] == ""
            assert lines[begin:] == shown(width, *RUNNING), lines
            assert sum("%  ━" in line for line in lines) == 1


def test_a_panel_at_the_top_of_the_screen_leaves_no_copies():
    screen = Screen(80, 24)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        for event in RUNNING:
            display.show(event)
        screen.rows, screen.is_continued, screen.row, screen.column = [[]], [False], 0, 0
        for width in (80, 40, 120):
            screen.resize(width, 24)
            console.size = (width, 24)
            draw(console)
            assert screen.lines[1:] == shown(width, *RUNNING)
        assert screen.n_kept == 0


def test_characters_that_are_wider_than_expected_do_no_harm():
    for text in (
        "👩\u200d👩\u200d👧" * 60,
        "中" * 200,
        "a\tb\t" * 50,
        "\x1b[2J\x07" * 40,
        "é" * 300,
    ):
        lines = shown(40, *RUNNING, events.Sampled(text=text))
        assert lines[0].startswith(" 56%")
        assert [line[:6] for line in lines].count("sample") == 1
        assert len(lines) <= 10


def test_the_end_leaves_a_short_record():
    screen = Screen(90)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        for event in (*RUNNING, changed(EVALUATIONS[-1], progress=1.0, val_loss=1.5), FINISHED):
            display.show(event)
    begin = next(n for n, line in enumerate(screen.lines) if line.startswith("100%"))
    record = screen.lines[begin:]
    assert record[:5] == [
        "100%  step 1,200  1m 05s  train 1.512  val 1.500 nats/char (2.31 bits/char)  best",
        "curve   3.00 █▄▂▁▁ 1.50",
        "sample  To be, or not to be",
        "        that is a question",
        "        of some length",
    ]
    assert record[5].startswith("Done after 1m 31s and 3 epochs: validation 2.000")
    assert record[-2].strip() == f"charrnn sample -m {RUN} --temp 0.8"
    assert screen.wraps
    assert screen.shows_cursor
    assert screen.column == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_end_in_mid_run_leaves_a_record_and_a_clean_terminal(error):
    screen = Screen()
    console = console_of(screen)
    display = TrainingDisplay(console=console)
    display.__enter__()
    for event in RUNNING:
        display.show(event)
    draw(console)
    assert not screen.shows_cursor
    screen.write("^C")
    display.__exit__(error, error(), None)
    assert not any("━" in line or "^C" in line for line in screen.lines)
    assert "curve   3.00 █▄▂▁ 1.60" in screen.lines
    assert screen.lines[-1] == "        of some length"
    assert screen.wraps
    assert screen.shows_cursor
    assert screen.column == 0


def test_training_on_a_terminal_leaves_its_record_alone(monkeypatch, charrnn, text):
    monkeypatch.undo()
    given = ("train", text, "--steps", 4, "--sample-every", 1, *TINY_RUN[2:])
    result = charrnn(*given, terminals=("stderr",), COLUMNS="80", LINES="25", TERM="xterm")
    assert result.code == 0, result.err
    screen = Screen(80, 25)
    screen.write(result.err.replace("\r\n", "\n"))
    begins = [line.split()[0] for line in screen.lines if line[:1].strip()]
    assert begins.count("100%") == 1
    assert begins.index("100%") < begins.index("curve") < begins.index("sample")
    assert begins.index("sample") < begins.index("Done")
    assert "━" not in "".join(screen.lines)
    assert screen.shows_cursor
    assert screen.wraps


def test_one_display_may_show_several_runs():
    screen = Screen()
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        for event in (*RUNNING, FINISHED, STARTED, PROGRESSED):
            display.show(event)
        draw(console)
        assert screen.lines[-2:] == [
            "train   1.500 nats/char",
            "speed   100k char/s  step 1,300  lr 0.005",
        ]
        display.show(FINISHED)
    assert sum(line.startswith("Done after") for line in screen.lines) == 2
    assert sum(line.startswith("curve") for line in screen.lines) == 1


def test_quiet_runs_have_no_panel():
    screen = Screen(200)
    with TrainingDisplay(quiet=True, console=console_of(screen)) as display:
        display.working("reading the text")
        for event in RUNNING:
            display.show(event)
        assert screen.lines == []


@pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="there is no Ctrl-Z")
def test_a_suspended_run_leaves_the_terminal_to_the_shell(monkeypatch):
    screen, seen = Screen(), []

    def stopped(number):
        assert signal.getsignal(number) is signal.SIG_DFL
        draw(console)
        seen.append((list(screen.lines), screen.shows_cursor, screen.wraps))

    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    monkeypatch.setattr(signal, "raise_signal", stopped)
    try:
        console = console_of(screen)
        with TrainingDisplay(console=console) as display:
            display.working("reading")
            draw(console)
            assert not screen.shows_cursor
            signal.getsignal(signal.SIGTSTP)(signal.SIGTSTP, None)
            assert seen == [([], True, True)]
            draw(console)
            assert screen.lines == ["⠋ reading"]
            assert callable(signal.getsignal(signal.SIGTSTP))
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTSTP, before)


@pytest.mark.skipif(not hasattr(os, "tcgetpgrp"), reason="there is no background")
def test_a_run_in_the_background_has_lines(monkeypatch):
    """As with `&` or `timeout`: the terminal is another's, and is not drawn on."""
    screen = Screen(200)
    monkeypatch.setattr(screen, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(os, "tcgetpgrp", lambda number: -1)
    console = console_of(screen)
    with TrainingDisplay(console=console) as display:
        display.working("reading")
        for event in RUNNING:
            display.show(event)
        draw(console)
        lines = screen.lines
        assert sum(line.startswith(" 50%  epoch") for line in lines) == len(EVALUATIONS)
        assert lines[-1] == "    of some length"
        assert screen.shows_cursor
        monkeypatch.setattr(os, "tcgetpgrp", lambda number: os.getpgrp())
        draw(console)
        assert screen.lines[-1] == "        of some length"
        assert not screen.shows_cursor
        monkeypatch.setattr(os, "tcgetpgrp", lambda number: -1)
        display.show(FINISHED)
    assert not any(line.startswith("curve") for line in screen.lines[: len(lines)])


class Gone(Screen):
    """A terminal that can no longer be written after the first lines."""

    n_writes = 0

    def isatty(self):
        return True

    def write(self, text):
        self.n_writes += 1
        if self.n_writes > 3:
            raise BrokenPipeError
        return super().write(text)

    def flush(self):
        raise OSError


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch):
    monkeypatch.undo()  # it is drawn in the background, too
    stream = Gone()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(panel_module, "EVERY_S", 0.001)
    monkeypatch.setenv("TERM", "xterm")
    with TrainingDisplay() as display:
        display.working("reading")
        for event in (*RUNNING, FINISHED):
            display.show(event)
            time.sleep(0.002)
    assert stream.n_writes > 10


def test_a_terminal_that_is_stopped_does_not_hold_up_the_run(monkeypatch):
    """As by Ctrl-S: nothing is written until Ctrl-Q."""
    monkeypatch.undo()
    monkeypatch.setattr(panel_module, "EVERY_S", 0.001)
    goes_on, is_stopped, waits = threading.Event(), threading.Event(), threading.Event()

    class Stopped(Screen):
        def write(self, text):
            if is_stopped.is_set():
                waits.set()
                goes_on.wait(60)
            return super().write(text)

    screen = Stopped()
    with TrainingDisplay(console=console_of(screen)) as display:
        display.show(STARTED)
        is_stopped.set()
        for step in range(100):
            for event in (*EVALUATIONS, VERSE):
                display.show(event)
            display.show(changed(PROGRESSED, step=step))
            waits.wait(0.01)
        assert waits.wait(60), "the panel was to be drawn meanwhile"
        goes_on.set()
    assert screen.lines[-1] == "        of some length"


def test_a_panel_that_has_not_changed_is_not_written_again():
    screen = Screen()
    written = []
    original = screen.write
    screen.write = lambda text: written.append(text) or original(text)
    console = console_of(screen)
    panel = LivePanel(console, lambda width, height: [console.render_str(f"{len(drawn)}")])
    drawn = []
    panel.start()
    before = len(written)
    panel.draw()
    panel.draw()
    assert len(written) == before + 1
    drawn.append(1)
    panel.draw()
    assert len(written) == before + 2
    assert screen.lines == ["1"]
    panel.stop()
    assert screen.lines == []


@pytest.mark.parametrize(
    ("values", "width", "heights"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 80, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([7.0, 0.0], 80, [7, 0]),
        ([2.5, 2.5, 2.5], 80, [0, 0, 0]),
        ([1.0], 80, [0]),
        ([], 80, []),
        ([10.0, 10.4, 10.6, 17.0], 80, [0, 0, 1, 7]),
        ([0.0, float("inf"), 7.0, float("nan")], 80, [0, 7, 7, 7]),
        ([float("inf")], 80, [0]),
        (range(8), 4, [0, 2, 5, 7]),
        (range(1000), 2, [0, 7]),
        ([7, 3, 0], 1, [0]),
    ],
)
def test_a_sparkline_has_the_height_of_its_values(values, width, heights):
    assert sparkline(values, width) == "".join(BARS[n] for n in heights)
    assert sparkline(values, width, "latin-1") == "".join(ASCII_BARS[n] for n in heights)
