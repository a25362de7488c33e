"""Run directories: named after the corpus, owned by one command, never written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn.errors import ConfigError, ModelFileError, RunError
from charrnn.storage import runs
from charrnn.storage.runs import (
    BUILTIN_MODEL,
    RunDirectory,
    find_model,
    new_run,
    take_over,
    unfinished_runs,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(path, *, age=0):
    """A file so many seconds old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_a_run_is_named_after_its_corpus_and_numbered(here):
    first = new_run("play")
    assert first.path.as_posix() == "runs/play"
    second = new_run("play")
    assert second.path.as_posix() == "runs/play-2", "the first is being worked on"
    make(here / "runs" / "play-3" / "notes.txt")
    assert new_run("play").path.as_posix() == "runs/play-4", "a folder of the user's is left alone"


@pytest.mark.parametrize(
    ("corpus", "folder"), [("a b/c", "a-b-c"), ("..", "run"), ("né", "né"), ("*?[x]", "x")]
)
def test_any_corpus_name_gives_a_plain_folder(corpus, folder):
    assert new_run(corpus).path.as_posix() == f"runs/{folder}"


@pytest.mark.parametrize("file", ["model.safetensors", "resume.safetensors", "metrics.jsonl"])
def test_a_run_that_exists_is_not_taken(here, file):
    make(here / "out" / file)
    with pytest.raises(RunError, match="already holds a run"):
        new_run("play", out=here / "out")
    make(here / "runs" / "mine" / file)
    with pytest.raises(RunError, match="already holds a run"):
        new_run("play", name="mine")


def test_an_empty_directory_can_be_used_and_nothing_else(here):
    (here / "out").mkdir()
    assert new_run("play", out=here / "out").path == here / "out"
    with pytest.raises(RunError, match="is a file"):
        new_run("play", out=make(here / "file"))
    for name in ("notes.txt", "corpus/ids.bin.old", "last.safetensors", "draft.bin"):
        mine = make(here / name.replace("/", "-") / name)
        with pytest.raises(RunError, match="is not empty: choose another"):
            new_run("play", out=here / name.replace("/", "-"))
        assert mine.read_bytes() == b"x"


def test_a_run_has_one_owner(here):
    run = new_run("play", out=here / "out")
    assert run.is_running
    with pytest.raises(RunError, match="another charrnn command is working on"):
        new_run("verse", out=here / "out")
    make(run.resume)
    with pytest.raises(RunError, match="another charrnn command is working on"):
        take_over(RunDirectory(run.path))
    run.release()
    run.release()
    assert not run.is_running
    assert not run.lock_file.exists()
    assert take_over(RunDirectory(run.path)).path == run.path


HOLD = """
import sys
from pathlib import Path
from charrnn.storage.runs import new_run
run = new_run("play", out=Path("out"))
(run.path / "corpus").mkdir()
(run.path / "corpus" / "ids.bin").write_bytes(b"half of the te")
(run.path / ".metrics.jsonl.abc.tmp").write_bytes(b"")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_taken_over(here):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(RunError, match="another charrnn command"):
        new_run("play", out=here / "out")
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    run = new_run("play", out=here / "out")
    assert [p.name for p in run.path.iterdir()] == [".lock"], "what the killed one left is gone"


def test_a_run_that_cannot_begin_leaves_nothing(here):
    run = new_run("play", out=here / "a" / "b")
    make(run.corpus / "ids.bin")
    run.discard()
    assert list(here.iterdir()) == []
    (here / "mine").mkdir()
    new_run("play", out=here / "mine").discard()
    assert list((here / "mine").iterdir()) == [], "a directory of the user's stays"


def test_the_newest_model_is_found(here):
    make(here / "runs" / "old" / "model.safetensors", age=100)
    newest = make(here / "runs" / "mid" / "model.safetensors", age=1)
    make(here / "runs" / "without" / "metrics.jsonl")
    make(here / "runs" / "older" / "model.safetensors", age=200)
    assert find_model(None).resolve() == newest


def test_a_model_is_a_file_or_its_run(here):
    path = make(here / "run" / "model.safetensors")
    assert find_model(path) == path
    assert find_model(here / "run") == path
    for wrong in (here / "nothing", here):
        with pytest.raises(ModelFileError, match="there is no model at"):
            find_model(wrong)


def test_before_any_training_the_builtin_model_is_found(here):
    make(here / "runs" / "without" / "metrics.jsonl")
    assert find_model(None) == BUILTIN_MODEL
    mine = make(here / "runs" / "mine" / "model.safetensors")
    assert find_model(None).resolve() == mine
    assert find_model("builtin") == find_model(Path("builtin")) == BUILTIN_MODEL


def test_a_file_called_builtin_needs_a_path(here):
    mine = make(here / "builtin")
    assert find_model("builtin") == BUILTIN_MODEL
    assert find_model("./builtin").resolve() == mine
    assert find_model(mine) == mine


def test_without_any_model_the_user_is_told_to_train(here, monkeypatch):
    monkeypatch.setattr(runs, "BUILTIN_MODEL", here / "lost")
    with pytest.raises(ModelFileError, match="train one first: charrnn train"):
        find_model(None)
    with pytest.raises(ModelFileError, match=r"the bundled model is missing .*lost"):
        find_model("builtin")


def test_unfinished_runs_come_with_the_newest_first(here):
    make(here / "runs" / "play" / "resume.safetensors", age=50)
    newest = make(here / "runs" / "play-2" / "resume.safetensors", age=5)
    make(here / "runs" / "verse" / "resume.safetensors", age=1)
    make(here / "runs" / "play-3" / "model.safetensors")  # finished
    assert [run.path.name for run in unfinished_runs()] == ["verse", "play-2", "play"]
    (one,) = unfinished_runs(name="play")
    assert one.path.as_posix() == "runs/play"
    (one,) = unfinished_runs(out=newest.parent)
    assert one.path == newest.parent


def test_a_run_that_is_finished_is_told_from_one_that_is_not_there(here):
    make(here / "runs" / "done" / "model.safetensors")
    with pytest.raises(RunError, match=r"done is finished, there is nothing to resume.*--init"):
        list(unfinished_runs(name="done"))
    with pytest.raises(RunError, match=r"there is no run in .*lost"):
        list(unfinished_runs(out=here / "lost"))


def test_metrics_are_one_json_object_a_line(here):
    run = RunDirectory(here / "run")
    rows = [{"step": 1, "val_loss_nats": 2.5}, {"step": 2, "val_loss_nats": None}]
    run.write_metrics(rows)
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == rows
    run.write_metrics(rows[:1])
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == rows[:1]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp"])
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError, match=r"^name must be a plain name"):
        new_run("text", name=name)
    with pytest.raises(ConfigError, match=r"^name must be a plain name"):
        list(unfinished_runs(name=name))


def test_a_name_and_a_directory_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="--out and --name"):
        new_run("text", name="x", out=tmp_path / "y")
