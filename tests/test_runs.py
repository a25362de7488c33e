"""Run directories: named after the corpus, owned by one command, never written over."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from conftest import links, named_pipes

from charrnn.errors import ConfigError, ModelFileError, RunError, StorageError
from charrnn.storage import runs
from charrnn.storage.listing import list_runs
from charrnn.storage.lock import take_lock
from charrnn.storage.model_file import save_model
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


def test_a_directory_that_may_not_be_looked_at_is_not_taken(here, monkeypatch):
    (here / "runs" / "play").mkdir(parents=True)
    real = os.listdir

    def listdir(path="."):
        if Path(path).name == "play":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert new_run("play").path.as_posix() == "runs/play-2"
    with pytest.raises(RunError, match="already holds a run"):
        new_run("verse", name="play")


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


def test_whoever_looks_keeps_nobody_from_owning_a_run(here):
    """A lock is looked at with a shared one, for which an owner waits."""
    run = new_run("play", out=here / "out")
    run.release()
    assert not run.is_running
    assert not run.lock_file.exists(), "looking makes no file"
    run.lock_file.touch()  # of a killed process
    looking = os.open(run.lock_file, os.O_RDONLY)
    take_lock(looking, shared=True)
    assert not run.is_running, "two may look at the same time"
    threading.Timer(0.05, os.close, [looking]).start()
    owned = take_over(run)
    assert run.is_running
    owned.release()


def test_a_run_being_swept_by_another_command_is_waited_for(here):
    make(here / "runs" / "play" / "resume.safetensors")
    sweeping = take_over(RunDirectory(here / "runs" / "play"))
    threading.Timer(0.05, sweeping.release).start()
    assert take_over(RunDirectory(here / "runs" / "play")).is_running


HOLD = """
import sys
from pathlib import Path
from charrnn.storage.runs import new_run
run = new_run("play", out=Path("out"))
(run.path / "corpus").mkdir()
(run.path / "corpus" / "ids.bin").write_bytes(b"half of the te")
(run.path / "corpus" / ".charrnn-abc.tmp").write_bytes(b"")
(run.path / ".charrnn-abc.tmp").write_bytes(b"")
run.write_record({"charrnn": "0.1.0", "started": "2026", "text": "play"})
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
    assert list(run.path.iterdir()) == [run.lock_file], "what the killed one left is gone"


def test_the_next_command_removes_what_killed_ones_left_under_runs(here):
    for name in ("begun", "saved", "mine"):
        make(here / "runs" / name / ".charrnn.lock")
        make(here / "runs" / name / ".charrnn-a.tmp")
        make(here / "runs" / name / "corpus" / "draft.bin")
    make(here / "runs" / "saved" / "model.safetensors")
    make(here / "runs" / "mine" / "notes.txt")
    running = new_run("play", name="running")
    make(running.path / ".charrnn-b.tmp")
    new_run("verse")
    left = [path.relative_to(here / "runs").as_posix() for path in (here / "runs").rglob("*")]
    assert sorted(path for path in left if (here / "runs" / path).is_file()) == [
        "mine/corpus/draft.bin",
        "mine/notes.txt",
        "running/.charrnn-b.tmp",
        "running/.charrnn.lock",
        "saved/corpus/draft.bin",
        "saved/model.safetensors",
        "verse/.charrnn.lock",
    ]
    assert not (here / "runs" / "begun").exists()


@pytest.mark.parametrize(
    "mine",
    [
        "notes.txt",
        ".notes.tmp",
        "corpus/notes.txt",
        "corpus/corpus.json.bak",
        "last.bin",
        "run.json",
        "corpus/corpus.json",
    ],
)
def test_files_beside_a_lock_that_was_left_are_not_ours(here, mine):
    make(here / "out" / ".charrnn.lock")
    make(here / "out" / "corpus" / "ids.bin")
    path = make(here / "out" / mine)
    with pytest.raises(RunError, match="is not empty: choose another"):
        new_run("play", out=here / "out")
    assert path.read_bytes() == (here / "out" / "corpus" / "ids.bin").read_bytes() == b"x"


@pytest.mark.parametrize("mine", ["run.json", "corpus/corpus.json"])
def test_other_commands_leave_what_is_called_like_ours(here, mine):
    make(here / "runs" / "mine" / ".charrnn.lock")
    path = make(here / "runs" / "mine" / mine)
    path.write_text('{"started": "my own"}')
    new_run("play")
    assert path.read_text() == '{"started": "my own"}'


@pytest.mark.parametrize("error", [errno.EACCES, errno.ELOOP])
def test_a_folder_of_runs_that_may_not_be_looked_into_is_told(here, monkeypatch, error):
    (here / "runs").mkdir()
    real = os.stat

    def stat(path, *more, **named):
        if os.fspath(path).startswith("runs"):
            raise OSError(error, os.strerror(error))
        return real(path, *more, **named)

    monkeypatch.setattr("charrnn.storage.runs.os.stat", stat)
    said = f"the folder runs cannot be used: {os.strerror(error).lower()}"
    for look in (lambda: new_run("play"), list_runs, lambda: find_model(None)):
        with pytest.raises(StorageError, match=said):
            look()


def test_a_date_that_is_none_hides_no_run(here, monkeypatch):
    make(here / "runs" / "odd" / "model.safetensors")
    real = Path.lstat

    def lstat(path):
        status = list(real(path))
        status[8] = 10**15
        return os.stat_result(status)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert [run.started for run in list_runs()] == [""]


@links
def test_nothing_is_removed_through_a_link(here):
    mine = make(here / "mine" / "ids.bin")
    make(here / "out" / ".charrnn.lock")
    (here / "out" / "corpus").symlink_to(here / "mine")
    with pytest.raises(RunError, match="is not empty: choose another"):
        new_run("play", out=here / "out")
    assert mine.read_bytes() == b"x"


def test_a_lock_that_cannot_be_made_leaves_no_folder(here, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "RunLock", full)
    with pytest.raises(StorageError, match="no space left on device"):
        new_run("play", out=here / "a" / "b")
    assert list(here.iterdir()) == []


def test_a_run_that_cannot_begin_leaves_nothing(here):
    run = new_run("play", out=here / "a" / "b")
    make(run.corpus / "ids.bin")
    run.write_record({"charrnn": "0.1.0", "started": "2026", "text": "play"})
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
    with pytest.raises(RunError, match=r"done has a model and no state.* --init runs/done$"):
        list(unfinished_runs(name="done"))
    with pytest.raises(RunError, match=r"there is no run in .*lost"):
        list(unfinished_runs(out=here / "lost"))


def resume_state(folder, **record):
    """The resume state of a run and its encoded text, as far as this room looks at them."""
    for name in ("corpus.json", "ids.bin"):
        make(folder / "corpus" / name)
    arrays = {"weights": np.zeros(3, np.float32)}
    metadata = {"charrnn_resume": json.dumps(record)}
    safetensors.numpy.save_file(arrays, folder / "resume.safetensors", metadata)


def test_a_finished_run_is_resumed_only_when_it_is_named(here):
    for name, record in (("done", {"finished": True}), ("open", {}), ("odd", {"finished": "yes"})):
        (here / "runs" / name).mkdir(parents=True)
        resume_state(here / "runs" / name, **record)
    make(here / "runs" / "bad" / "resume.safetensors")
    assert {run.path.name for run in unfinished_runs()} == {"open", "odd", "bad"}
    (done,) = unfinished_runs(name="done")
    assert done.is_finished


def test_what_is_advised_for_a_run_that_exists_can_be_done(here):
    taken = here / "my run"
    make(taken / "resume.safetensors")
    with pytest.raises(RunError, match=r"choose another name or directory$"):
        new_run("play", out=taken)  # its text is gone
    resume_state(taken)
    with pytest.raises(RunError, match=r"charrnn train --resume --out '.*my run'$"):
        new_run("play", out=taken)
    resume_state(taken, finished=True)
    with pytest.raises(RunError, match=r"--resume --out '.*my run' --time 10m$"):
        new_run("play", out=taken)


def test_a_record_comes_back_and_a_bad_one_is_empty(here):
    run = RunDirectory(here / "run")
    assert run.read_record() == {}
    record = {"text": "play é \ud800", "command": "charrnn train 'a b'", "started": "2026-01-02"}
    run.write_record(record)
    assert run.read_record() == record
    for content in (b"", b"[]", b"nul", b"{" * 100_000, b'{"text": "' + b"x" * 2_000_000 + b'"}'):
        run.record_file.write_bytes(content)
        assert run.read_record() == {}


@named_pipes
def test_a_record_that_is_a_pipe_is_not_waited_for(here):
    run = RunDirectory(make(here / "run" / "notes.txt").parent)
    os.mkfifo(run.record_file)
    assert run.read_record() == {}


def listed(here):
    return {run.path.name: run for run in list_runs(here / "runs")}


def test_runs_are_listed_with_what_is_in_them(here, tiny_model):
    assert list_runs() == []
    training = {
        "corpus": {"name": "verse"}, "val_loss_nats": 1.5, "train_loss_nats": 1.4,
        "bits_per_char": 2.25,
    }  # fmt: skip
    good = dataclasses.replace(tiny_model, training=training)
    (here / "runs").mkdir()
    for name in ("done", "again", "open", "busy"):
        save_model(here / "runs" / name / "model.safetensors", good)
    resume_state(here / "runs" / "open")
    resume_state(here / "runs" / "again", finished=True)
    (here / "runs" / "fresh").mkdir()
    resume_state(here / "runs" / "fresh")
    make(here / "runs" / "bad" / "model.safetensors")
    make(here / "runs" / "lost" / "metrics.jsonl")
    make(here / "runs" / "notes" / "notes.txt")
    make(here / "runs" / "file")
    RunDirectory(here / "runs" / "done").write_record({"text": "play", "started": "3026-01-02"})
    busy = take_over(RunDirectory(here / "runs" / "busy"))
    found = listed(here)
    assert {name: run.state for name, run in found.items()} == {
        "done": "finished",
        "again": "finished",
        "open": "interrupted",
        "busy": "running",
        "fresh": "interrupted",
        "bad": "damaged",
        "lost": "damaged",
    }
    done = found["done"]
    assert (done.text, done.started) == ("play", "3026-01-02")
    assert (done.val_loss, done.bits_per_char, done.unit, done.members) == (1.5, 2.25, "char", 1)
    assert done.train_loss is None
    assert next(iter(found)) == "done", "the newest first"
    assert found["open"].text == "verse"
    assert found["open"].started[:4].isdigit()
    assert (found["bad"].val_loss, found["bad"].unit) == (None, None)
    busy.release()


@pytest.mark.parametrize("value", [None, [], {}, "x" * 10_000, float("nan"), 10**400, True])
def test_what_strangers_wrote_into_a_run_is_listed_all_the_same(here, tiny_model, value):
    training = {"corpus": value, "val_loss_nats": value, "bits_per_char": value}
    model = dataclasses.replace(tiny_model, training=training)
    save_model(here / "runs" / "odd" / "model.safetensors", model)
    RunDirectory(here / "runs" / "odd").write_record({"text": value, "started": value})
    (odd,) = list_runs(here / "runs")
    assert (odd.state, odd.val_loss, odd.bits_per_char) == ("finished", None, None)
    assert len(odd.text) <= 200
    assert len(odd.started) <= 200
    training["corpus"] = {"name": value}
    save_model(here / "runs" / "odd" / "model.safetensors", model)
    assert len(list_runs(here / "runs")) == 1


def test_a_training_loss_is_not_listed_as_one_of_validation(here, tiny_model):
    training = {"val_loss_nats": None, "train_loss_nats": 1.4, "bits_per_char": 2.0}
    model = dataclasses.replace(tiny_model, training=training)
    save_model(here / "runs" / "own" / "model.safetensors", model)
    (own,) = list_runs()
    assert (own.val_loss, own.train_loss, own.bits_per_char) == (None, 1.4, None)


def test_a_folder_that_is_not_there_is_not_an_empty_one(here):
    assert list_runs() == []
    with pytest.raises(RunError, match="there is no folder nothing: name one that has runs"):
        list_runs(Path("nothing"))


def test_a_run_that_has_no_model_yet_says_when_it_will(here):
    run = new_run("play", out=here / "new")
    with pytest.raises(ModelFileError, match="saves one at its first evaluation"):
        find_model(run.path)
    run.release()
    with pytest.raises(ModelFileError, match="check the path"):
        find_model(run.path)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("play", "did you mean runs/play?"),
        ("runs/plays", "did you mean runs/play?"),
        ("runs", "runs is a folder of runs, to be seen with charrnn list"),
        (".", "runs is a folder of runs, to be seen with charrnn list"),
        ("verse", "check the path"),
    ],
)
def test_what_is_near_a_path_without_a_model_is_named(here, given, hint):
    make(here / "runs" / "play" / "model.safetensors")
    with pytest.raises(ModelFileError) as caught:
        find_model(given)
    assert str(caught.value).replace("\\", "/") == f"there is no model at {given}: {hint}"


def test_a_run_knows_whose_name_it_could_not_have(here):
    first = new_run("play")
    assert first.name_taken is None
    second = new_run("play")
    assert second.path.name == "play-2"
    assert second.name_taken == first.path
    first.release()
    second.release()


def test_a_model_that_may_not_be_looked_at_is_not_missing(here, monkeypatch):
    path = make(here / "run" / "model.safetensors")

    def refuse(self, **_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ModelFileError, match="cannot be read: permission denied"):
        find_model(path)


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
    with pytest.raises(ConfigError, match="a name and a directory both"):
        new_run("text", name="x", out=tmp_path / "y")


@links
def test_a_run_gets_out_of_the_way_of_files_and_long_names(here):
    make(here / "runs" / "play")
    assert new_run("play").path.as_posix() == "runs/play-2"
    (here / "runs" / "verse").symlink_to("/nowhere/at/all")
    assert new_run("verse").path.as_posix() == "runs/verse-2"
    first, second = new_run("é" * 127), new_run("é" * 127)
    assert (first.path.name, second.path.name) == ("é" * 100, "é" * 100 + "-2")


@links
def test_a_dangling_link_does_not_hide_a_run(here, tiny_model):
    run = here / "runs" / "play"
    save_model(run / "model.safetensors", tiny_model)
    (run / "link").symlink_to("/nowhere/at/all")
    assert [one.path.name for one in list_runs(here / "runs")] == ["play"]
