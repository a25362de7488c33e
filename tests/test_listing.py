"""The table of runs: whole names at every width."""

from __future__ import annotations

from pathlib import Path

import pytest

from charrnn.display import listing
from charrnn.storage.listing import RunSummary

RUNS = [
    RunSummary(
        path=Path("runs/names-of-cats-2"),
        text="names-of-cats",
        started="2026-01-02T03:04:05",
        val_loss=2.123456,
        train_loss=None,
        bits_per_char=3.0635,
        unit="char",
        members=1,
        state="finished",
    ),
    RunSummary(
        path=Path("runs/猫"),
        text="猫",
        started="2026-01-01T03:04:05",
        val_loss=None,
        train_loss=11283.93,
        bits_per_char=None,
        unit="byte",
        members=1,
        state="interrupted",
    ),
]


def shown(capsys, monkeypatch, width):
    monkeypatch.setattr(listing, "columns_of", lambda stream: width)
    listing.show_runs(RUNS, "table")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("width", "headers"),
    [
        (None, "path text started state loss bits/char"),
        (120, "path text started state loss bits/char"),
        (95, "path text state loss bits/char"),
        (70, "path state loss"),
        (60, "path loss"),
        (40, "path"),
        (10, "path"),
    ],
)
def test_a_run_keeps_its_name_and_no_cell_is_broken(capsys, monkeypatch, width, headers):
    lines = shown(capsys, monkeypatch, width)
    assert lines[0].split() == headers.split()
    assert lines[1].startswith(str(RUNS[0].path))
    assert lines[2].startswith(str(RUNS[1].path))
    assert len(lines) == 3
    if width and width > 20:
        assert all(len(line) <= width for line in lines)


def test_a_training_loss_is_called_one(capsys, monkeypatch):
    _, first, second = shown(capsys, monkeypatch, None)
    assert first.split()[-3:] == ["2.123", "nats/char", "3.063"]
    assert second.endswith("11283.930 nats/byte (training)")
