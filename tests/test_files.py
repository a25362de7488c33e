"""A file is the old one or the new one, whole."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest
from conftest import links, named_pipes, posix

from charrnn.errors import StorageError
from charrnn.storage.atomic import (
    atomic_writer,
    is_temporary,
    remove_temporary_files,
    storage_errors,
    write_text_atomically,
)
from charrnn.storage.lock import RunLock
from charrnn.storage.reading import open_ordinary


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_writer(path) as file:
        file.write(b"new")
        assert not path.exists()  # nobody sees half a file
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write():
        with atomic_writer(path) as file:
            file.write(b"half of the ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"file\.bin: no space left on device"):
        write_text_atomically(path, "new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_the_data_is_on_disk_before_the_file_is_renamed(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (calls.append(n), r(*a))[1])
    write_text_atomically(tmp_path / "file.txt", "new")
    assert calls[:2] == ["fsync", "replace"]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text_atomically(tmp_path / "file" / "x", "new")


def test_text_is_utf8_with_line_ends_as_given(tmp_path):
    path = tmp_path / "file.txt"
    write_text_atomically(path, "é\n€\r\n\ud800")
    assert path.read_bytes() == b"\xc3\xa9\n\xe2\x82\xac\r\n\xed\xa0\x80"


@posix
def test_a_written_file_has_ordinary_permissions(tmp_path):
    path = tmp_path / "file.txt"
    before = os.umask(0o027)
    try:
        write_text_atomically(path, "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_storage_errors_names_the_path(tmp_path):
    with pytest.raises(StorageError, match="somewhere"), storage_errors(tmp_path / "somewhere"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(KeyError), storage_errors(tmp_path):
        raise KeyError("not ours")


@links
def test_a_link_keeps_its_place(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text_atomically(link, "new", follow_links=True)
    assert link.is_symlink()
    assert target.read_text() == "new"


@links
def test_a_link_in_a_folder_of_ours_is_replaced_not_written_through(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    write_text_atomically(link, "new")
    assert not link.is_symlink()
    assert link.read_text() == "new"
    assert target.read_text() == "precious"


@named_pipes
def test_a_named_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_text_atomically(path, "through", follow_links=True)
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert path.is_fifo()


@links
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    with atomic_writer(tmp_path / "page.html") as file:
        (writing,) = (p.name for p in tmp_path.iterdir())
        left = tmp_path / ".charrnn-left.tmp"
        mine = [
            tmp_path / name for name in (".mine.tmp", "charrnn-a.tmp", ".charrnn-a", "page.tmp")
        ]
        for path in (left, *mine):
            path.write_bytes(b"x")
        (tmp_path / ".charrnn-folder.tmp").mkdir()
        (tmp_path / ".charrnn-link.tmp").symlink_to(mine[0])
        assert is_temporary(left)
        remove_temporary_files(tmp_path)
        assert not left.exists()
        assert (tmp_path / writing).exists(), "another process is writing it"
        file.write(b"page")
    assert (tmp_path / "page.html").read_bytes() == b"page"
    assert all(path.read_bytes() == b"x" for path in mine)


def test_the_next_command_clears_what_a_killed_one_left_beside_a_file_of_the_user(tmp_path):
    left = tmp_path / ".charrnn-left.tmp"
    left.write_bytes(b"half of a pa")
    write_text_atomically(tmp_path / "page.html", "page", follow_links=True)
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_file_that_another_takes_for_a_left_over_is_made_again(tmp_path, monkeypatch):
    """Another process may look between the making of a file and its lock."""
    real, swept = tempfile.mkstemp, []

    def mkstemp(**where):
        handle, name = real(**where)
        if len(swept) < 2:  # once it is gone, once it is held
            swept.append(name)
            lock = RunLock(Path(name))
            if len(swept) == 1:
                lock.release()
            else:
                held.append(lock)
        return handle, name

    held = []
    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    write_text_atomically(tmp_path / "page.html", "page")
    held.pop().release()
    assert os.listdir(tmp_path) == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "page"


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("n" * 250)
    write_text_atomically(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "what",
    [
        "folder",
        pytest.param("pipe", marks=named_pipes),
        "nothing",
        pytest.param("/dev/zero", marks=posix),
    ],
)
def test_only_ordinary_files_are_opened(tmp_path, what):
    (tmp_path / "folder").mkdir()
    if what == "pipe":
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"directory|ordinary|No such"):
        open_ordinary(tmp_path / what)
    (tmp_path / "file").write_bytes(b"text")
    with open_ordinary(tmp_path / "file") as file:
        assert file.read() == b"text"
