"""The command line through real processes: streams, exit codes, one line for every error."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import texts

from charrnn.storage.model_file import load_model, save_model

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")

TRAIN = ("--hidden", "8", "--batch", "4", "--bptt", "8", "--dtype", "float32", "--device", "cpu")


def environment(**changes):
    """Ours, without what would change how programs write."""
    plain = ("NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONUTF8", "COLUMNS", "TERM")
    kept = {name: value for name, value in os.environ.items() if name not in plain}
    return {**kept, "PYTHONUTF8": "1", **changes}


def start(*arguments, cwd, env=None, **options):
    command = [sys.executable, "-m", "charrnn", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=cwd, env=env or environment(), **{**pipes, **options})


class Result:
    """Exit code and decoded streams of a finished process."""

    def __init__(self, code, out, err, encoding="utf-8"):
        self.code, self.out, self.err = code, out.decode(encoding), err.decode(encoding)

    def assert_one_error(self, code, *fragments):
        """One line that begins with the program's name and says what is wrong; no traceback."""
        assert self.code == code, self.err
        assert not CRASH.search(self.err), self.err
        said = [line for line in self.err.splitlines() if not COMMENTARY.match(line)]
        assert len(said) == 1, self.err
        assert said[0].startswith("charrnn: ")
        for fragment in fragments:
            assert fragment in said[0]


CRASH = re.compile("Traceback|mistake of ours")
"""What a user sees of an error that nobody thought of."""

COMMENTARY = re.compile(r"(seed \d|model )")
"""Which model, which seed: said on stderr before anything can go wrong."""


@pytest.fixture
def charrnn(tmp_path):
    """Run the command in an empty directory and wait for it."""

    def charrnn(*arguments, stdin=b"", encoding="utf-8", **options):
        process = start(*arguments, cwd=tmp_path, **{"stdin": subprocess.PIPE, **options})
        out, err = process.communicate(stdin, timeout=120)
        return Result(process.returncode, out or b"", err or b"", encoding)

    return charrnn


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "prose.txt"
    prose = texts.english(3000).replace("\n", "\n\n", 1)  # without it, it would look like a list
    path.write_text(prose, encoding="utf-8")
    return path


# bad input


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["there is no file given"]),
        (b"", ["given has no text"]),
        (b"abc\xe9def", ["given is not UTF-8", "0xE9 at offset 3"]),
        ({}, ["directory given has no *.txt"]),
        ({"readme.md": b"text"}, ["directory given has no *.txt"]),
        ({"a.txt": b""}, ["no text"]),
        ({"a.txt": b"fine", "b.txt": b"\xff"}, ["b.txt is not UTF-8", "offset 0"]),
    ],
    ids=["missing", "empty", "latin-1", "empty folder", "no text", "empty text", "bad folder"],
)
def test_a_corpus_that_cannot_be_used(charrnn, tmp_path, content, fragments):
    given = tmp_path / "given"
    if isinstance(content, dict):
        given.mkdir()
        for name, inner in content.items():
            (given / name).write_bytes(inner)
    elif content is not None:
        given.write_bytes(content)
    result = charrnn("train", "given")
    result.assert_one_error(1, *fragments)
    assert result.out == ""


def test_an_empty_standard_input(charrnn):
    charrnn("train", "-", stdin=b"").assert_one_error(1, "standard input has no text")


WRONG_SETTINGS = [
    ("--hidden", "0", "hidden size must be at least 1, got 0"),
    ("--layers", "0", "num layers"),
    ("--embedding", "-1", "embedding size"),
    ("--dropout", "1", "dropout must be in [0, 1), got 1.0"),
    ("--dropout", "nan", "dropout must be in [0, 1), got nan"),
    ("--lr", "-1", "learning rate"),
    ("--lr", "nan", "learning rate"),
    ("--epochs", "0", "epochs"),
    ("--steps", "0", "steps"),
    ("--time", "soon", "--time takes a duration"),
    ("--time", "0s", "time must be a positive number"),
    ("--cell", "transformer", "cell must be one of lstm, gru, rnn"),
    ("--nonlinearity", "relu", "belongs to the rnn cell"),
    ("--dtype", "float8", "dtype must be one of"),
    ("--seed", "99999999999999999999", "seed must be below 2**64"),
    ("--hidden", "many", "--hidden"),
    ("--colour", "red", "--colour"),
]


@pytest.mark.parametrize(("option", "value", "message"), WRONG_SETTINGS)
def test_a_setting_out_of_range(charrnn, text, tmp_path, option, value, message):
    result = charrnn("train", text, option, value)
    result.assert_one_error(2, message)
    assert result.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temp", "-1"), "temperature must be at least 0, got -1"),
        (("--temp", "nan"), "temperature must be at least 0, got nan"),
        (("--length", "0"), "length must be at least 1, got 0"),
        (("--length", "-5"), "length must be at least 1, got -5"),
        (("--seed", "-1"), "seed must be at least 0"),
        (("--nonsense",), "--nonsense"),
        (("surplus",), "surplus"),
    ],
)
def test_a_sampling_option_out_of_range(charrnn, tiny_model_path, arguments, message):
    result = charrnn("sample", "-m", tiny_model_path, *arguments)
    result.assert_one_error(2, message)
    assert result.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "sage"),
        (("train",), "no corpus given"),
        (("score",), "nothing to score"),
        (("wright",), "wright"),
        (("train", "a.txt", "--time", "1s", "--steps", "3"), "budgets"),
    ],
)
def test_wrong_usage_exits_with_2(charrnn, arguments, message):
    result = charrnn(*arguments)
    assert result.code == 2
    assert not CRASH.search(result.err)
    assert message in result.err + result.out


@pytest.mark.parametrize(
    "arguments", [("",), ("prose.txt", "--out", ""), ("prose.txt", "--held-out", "")]
)
def test_an_empty_path_is_not_the_directory_here(charrnn, text, tmp_path, arguments):
    charrnn("train", *arguments, "--steps", 1, *TRAIN).assert_one_error(2, "empty")
    charrnn("sample", "-m", "").assert_one_error(2, "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["prose.txt"]


@pytest.mark.parametrize("command", [("sample",), ("score", "abc"), ("info",)])
def test_no_model_at_all(tmp_path, command):
    """Nothing trained, and the model that ships with charrnn was taken out of the installation."""
    code = (
        "import pathlib, charrnn.runs; charrnn.storage.runs.BUILTIN_MODEL = pathlib.Path('lost'); "
        "from charrnn.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    result = Result(done.returncode, done.stdout, done.stderr)
    result.assert_one_error(1, "train one first: charrnn train")


@pytest.mark.parametrize("command", [("sample",), ("score", "abc"), ("info",)])
def test_a_file_that_is_not_a_model(charrnn, text, tmp_path, command):
    charrnn(*command, "-m", text).assert_one_error(1, "prose.txt is not a charrnn model")
    charrnn(*command, "-m", "nothing").assert_one_error(1, "there is no model at nothing")


def test_unknown_characters_in_a_prompt_are_named(charrnn, tiny_model_path):
    result = charrnn("sample", "-m", tiny_model_path, "--prompt", "a€b\t€")
    result.assert_one_error(1, "'€' (U+20AC) at position 1", "(U+0009) at position 3")
    assert result.out == ""


def test_nothing_to_resume(charrnn, text):
    charrnn("train", "--resume").assert_one_error(1, "nothing to resume")
    charrnn("train", "--resume", "--name", "lost").assert_one_error(1, "there is no run in")
    charrnn("train", text, "--resume").assert_one_error(1, "no unfinished run of prose")


@POSIX
def test_closed_streams(charrnn, tiny_model_path, text, tmp_path):
    """Nothing is written where a stream was, and nothing is lost without a word."""

    def without(number):
        return {"preexec_fn": lambda: os.close(number)}

    model = ("-m", tiny_model_path)
    for command in (("sample", *model), ("score", "abc", *model), ("info", *model)):
        charrnn(*command, **without(1)).assert_one_error(1, "standard output is closed")
    result = charrnn("sample", *model, "--seed", 1, **without(2))
    assert (result.code, result.err) == (0, "")
    assert result.out == charrnn("sample", *model, "--seed", 1).out
    lost = charrnn("sample", "-m", "nothing", **without(2))
    assert (lost.code, lost.out) == (1, ""), "what goes to stderr never goes to stdout"
    charrnn("sample", *model, "--interactive", **without(0)).assert_one_error(2, "a terminal")
    result = charrnn("sample", *model, "--prompt-file", "-", **without(0))
    result.assert_one_error(1, "standard input is closed")
    for number in (0, 1):
        out = tmp_path / f"without-{number}"
        result = charrnn("train", text, "--steps", 2, "--out", out, *TRAIN, **without(number))
        assert result.code == 0, result.err
        assert load_model(out / "model.safetensors").training["step"] == 2


@FULL
@pytest.mark.parametrize(
    "command", [("sample", "--length", 40), ("sample", "--no-stream"), ("score", "a"), ("info",)]
)
def test_no_space_for_the_output(charrnn, tiny_model_path, command):
    with open("/dev/full", "wb") as full:
        result = charrnn(*command, "-m", tiny_model_path, stdout=full)
    result.assert_one_error(1, "no space left on device")


@FULL
def test_no_space_for_the_encoded_text(charrnn, text, tmp_path):
    (tmp_path / "out" / "corpus").mkdir(parents=True)
    (tmp_path / "out" / "corpus" / "draft.bin").symlink_to("/dev/full")
    charrnn("train", text, "--out", "out").assert_one_error(1, "cannot write out", "no space")


@POSIX
def test_no_space_for_the_model(charrnn, text, tmp_path):
    """A limit on the size of files stands for the full disk: the text fits, the model does not."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = charrnn(
        "train", text, "--steps", 2, "--out", "out", "--quiet", *TRAIN, "--hidden", 64,
        preexec_fn=limit,
    )  # fmt: skip
    result.assert_one_error(1, "cannot write out/", "file too large")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left <= {"corpus", "metrics.jsonl"}  # no half model, no temporary file


def test_a_taken_run_directory(charrnn, text, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"precious")
    charrnn("train", text, "--out", "out").assert_one_error(1, "out already holds a run")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"precious"


def test_not_enough_memory(charrnn, text):
    result = charrnn("train", text, "--steps", 1, *TRAIN, "--hidden", 50_000_000, "--quiet")
    result.assert_one_error(1, "not enough memory")


@pytest.mark.parametrize(
    "record",
    [
        {"corpus": {}, "step": 3},
        {"corpus": {"surprise": 1}},
        {"corpus": "Shakespeare"},
        {"curve": [1, 2]},
        {"config": 7},
        {"val_loss_nats": "low"},
    ],
    ids=str,
)
def test_info_of_a_strange_training_record(charrnn, tiny_model, tmp_path, record):
    """The record is free-form: what cannot be shown is left out, or the file refused."""
    save_model(tmp_path / "strange", dataclasses.replace(tiny_model, training=record))
    result = charrnn("info", "-m", "strange")
    assert not CRASH.search(result.err)
    assert result.code in (0, 1)


# training


@POSIX
def test_training_is_interrupted_resumed_and_used(charrnn, text, tmp_path):
    """The life of a run: Ctrl-C saves it, --resume ends it, nothing writes over it."""
    options = ("--out", "out", "--steps", 400, "--sample-every", 0, "--seed", 1, *TRAIN)
    process = start("train", text, *options, cwd=tmp_path)
    head = []
    for line in process.stderr:
        head.append(line)
        if line.startswith(b"step "):  # the first evaluation of twenty
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    stopped = Result(process.returncode, out, b"".join(head) + err)
    assert stopped.code == 130, stopped.err
    assert stopped.out == ""
    assert not CRASH.search(stopped.err)
    assert "\x1b" not in stopped.err
    assert "stopping: the model is measured and saved first" in stopped.err
    assert "Interrupted after" in stopped.err
    assert "charrnn sample -m out" in stopped.err
    assert "charrnn train --resume --out out" in stopped.err
    step = load_model(tmp_path / "out" / "model.safetensors").training["step"]
    assert 0 < step < 400

    resumed = charrnn("train", "--resume", "--out", "out")
    assert resumed.code == 0, resumed.err
    assert resumed.out == ""
    assert "resumed at step" in resumed.err
    assert "Done after" in resumed.err
    assert load_model(tmp_path / "out" / "model.safetensors").training["step"] > step
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    assert rows[-1]["step"] == 400
    plain = [line for line in resumed.err.splitlines() if line.startswith("step ")]
    assert len(plain) == len(rows) - len([r for r in rows if f"step {r['step']:,}/" in stopped.err])

    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    charrnn("train", "--resume", "--out", "out").assert_one_error(1, "out is finished")
    charrnn("train", text, *options).assert_one_error(1, "already holds a run")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_training_on_an_ascii_terminal_without_utf8(charrnn, text, tmp_path):
    """Dots, dashes and the model's own characters become question marks, nothing worse."""
    text.write_text(texts.english(1000).replace("e", "é").replace("a", "中"), encoding="utf-8")
    env = environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0", NO_COLOR="1")
    result = charrnn("train", text, "--steps", 4, "--name", "née", *TRAIN, env=env)
    assert result.code == 0, result.err
    assert result.out == ""
    assert result.err.isascii()
    assert not CRASH.search(result.err)
    assert "Done after" in result.err
    assert (tmp_path / "runs" / "née" / "model.safetensors").is_file()


def test_quiet_training_says_nothing(charrnn, text):
    result = charrnn("train", "-", "--steps", 2, "-q", *TRAIN, stdin=text.read_bytes())
    assert (result.code, result.out, result.err) == (0, "", "")


# sampling


def test_stdout_is_the_text_and_stderr_the_commentary(charrnn, tiny_model_path, tiny_model):
    result = charrnn("sample", "-m", tiny_model_path, "--length", 60, "--seed", 5)
    assert result.code == 0
    assert result.out.endswith("\n")
    assert 0 < len(result.out) <= 61
    assert set(result.out) <= set(tiny_model.vocabulary.characters)
    assert "seed 5" in result.err


def test_the_newest_model_is_used_and_named(charrnn, tiny_model_path, tmp_path):
    path = tmp_path / "runs" / "mine" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_model_path.read_bytes())
    for command in (("sample", "--length", 5), ("score", "abc"), ("info",)):
        result = charrnn(*command)
        assert result.code == 0
        assert os.path.join("runs", "mine") in result.err


def test_same_seed_same_text(charrnn, tiny_model_path):
    def text(*arguments):
        result = charrnn("sample", "-m", tiny_model_path, "--length", 80, *arguments)
        assert result.code == 0
        return result.out

    streamed = text("--seed", 7)
    assert streamed == text("--seed", 7, "--no-stream")
    assert streamed != text("--seed", 8)
    assert text() != text()  # a fresh seed each time


def test_the_seed_that_is_printed_repeats_the_text(charrnn, tiny_model_path):
    first = charrnn("sample", "-m", tiny_model_path, "--length", 80)
    (seed,) = re.findall(r"^seed (\d+)", first.err, re.MULTILINE)
    again = charrnn("sample", "-m", tiny_model_path, "--length", 80, "--seed", seed)
    assert again.out == first.out


def test_the_prompt_comes_first(charrnn, tiny_model_path):
    result = charrnn("sample", "-m", tiny_model_path, "-p", "the key ", "--length", 5)
    assert result.code == 0
    assert result.out.startswith("the key ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
@pytest.mark.parametrize(
    "command",
    [("sample", "--length", 200, "--seed", 1, "-p", "é—ж中"), ("score", "é—ж中"), ("info",)],
)
def test_narrow_encodings(charrnn, tiny_model_path, encoding, command):
    env = environment(PYTHONIOENCODING=encoding)
    result = charrnn(*command, "-m", tiny_model_path, env=env, encoding=encoding)
    assert result.code == 0, result.err
    assert not CRASH.search(result.err)
    assert "?" in result.out
    assert ("é" in result.out) == (encoding != "ascii")


@POSIX
def test_a_reader_that_has_seen_enough(tiny_model_path, tmp_path):
    """`charrnn sample | head -c 10`: the end of the pipe is not an error."""
    process = start("sample", "-m", tiny_model_path, "--length", 1_000_000, cwd=tmp_path)
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    code = process.wait(timeout=60)
    assert all(COMMENTARY.match(line) for line in err.splitlines()), err
    assert code == 0


@POSIX
def test_ctrl_c_while_sampling(tiny_model_path, tmp_path):
    process = start("sample", "-m", tiny_model_path, "--length", 10_000_000, cwd=tmp_path)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not CRASH.search(err.decode())
    assert out.endswith(b"\n")


@POSIX
def test_ctrl_c_while_torch_is_loaded(text, tmp_path):
    """It would abort the process; so it waits, and a run that has not begun leaves nothing."""
    code = """if True:
        import builtins, signal, sys
        load = builtins.__import__

        def interrupted(name, *more, **named):
            if name == "torch" and name not in sys.modules:
                signal.raise_signal(signal.SIGINT)
                torch = load(name, *more, **named)
                print("torch is loaded", file=sys.stderr)
                return torch
            return load(name, *more, **named)

        builtins.__import__ = interrupted
        from charrnn.cli import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", code, "train", text, "--out", "out"],
        cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.decode() == "torch is loaded\ncharrnn: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["prose.txt"]


# scoring


def test_scores_in_a_pipe_are_tab_separated(charrnn, tiny_model_path):
    result = charrnn("score", "-m", tiny_model_path, "the key", "a\tb\\", "é?")
    assert result.code == 0
    header, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert header[:3] == ["text", "n_chars", "n_bytes"]
    assert [row[0] for row in rows] == ["the key", "a\\tb\\\\", "é?", "#total"]
    assert all(len(row) == len(header) for row in rows)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    assert columns["n_chars"] == ["7", "4", "2", "13"]
    assert columns["n_unknown"] == ["0", "2", "1", "3"]
    logprobs = [float(value) for value in columns["logprob"]]
    assert logprobs[-1] == pytest.approx(sum(logprobs[:-1]))
    assert "U+003F" in result.err


def test_the_lines_of_a_file_are_scored(charrnn, tiny_model_path, tmp_path):
    (tmp_path / "lines").write_text("the key\n\nsome bread", encoding="utf-8")
    from_file = charrnn("score", "-m", tiny_model_path, "--file", "lines")
    as_arguments = charrnn("score", "-m", tiny_model_path, "the key", "", "some bread")
    from_stdin = charrnn(
        "score", "-m", tiny_model_path, "--file", "-", stdin=b"the key\r\n\r\nsome bread\r\n"
    )
    assert from_file.code == 0
    assert from_file.out == as_arguments.out == from_stdin.out
    charrnn("score", "-m", tiny_model_path, "--file", "none").assert_one_error(1, "none")


# terminals


@POSIX
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_only_on_a_terminal_that_wants_them(tiny_model_path, tmp_path, no_color):
    import pty

    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", **({"NO_COLOR": "1"} if no_color else {}))
    process = start("info", "-m", tiny_model_path, cwd=tmp_path, env=env, stdout=theirs)
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"GRU 2" in out
    assert b"\x1b[1m" in out  # the labels are bold
    colours = re.findall(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m", out)
    assert not (no_color and colours)


# help


def test_version_and_help(charrnn):
    import charrnn as package

    assert charrnn("--version").out == f"charrnn {package.__version__}\n"
    help_text = charrnn("--help")
    assert help_text.code == 0
    for command in ("train", "sample", "score", "info"):
        assert command in help_text.out
        detail = charrnn(command, "--help")
        assert detail.code == 0
        assert "--model" in detail.out or command == "train"


@pytest.mark.parametrize(("given", "expected"), [({}, "500"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_do_not_wait_busily_for_long_unless_the_user_says_so(tmp_path, given, expected):
    """Beside another busy program the default of libgomp makes training several times slower."""
    code = (
        "import atexit, os; atexit.register(lambda: print(os.environ['GOMP_SPINCOUNT'])); "
        "from charrnn.cli import main; main()"
    )
    clean = {k: v for k, v in environment().items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=tmp_path, env={**clean, **given}, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.decode().split()[-1] == expected


def test_without_a_command_the_help_is_laid_out(charrnn):
    result = charrnn()
    assert result.code == 2
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0].startswith("Usage: ")
    assert any(line.split()[:1] == ["train"] for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_loses_nothing_where_stdout_is_narrow(charrnn, tiny_model_path, encoding):
    narrow = environment(PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    options = ("-m", tiny_model_path, "-p", "中ж", "-n", "30", "--seed", "1", "--format", "jsonl")
    wide = json.loads(charrnn("sample", *options).out)
    assert json.loads(charrnn("sample", *options, env=narrow, encoding=encoding).out) == wide
    assert wide["prompt"] == "中ж"


def test_repeating_names_the_model_that_was_used(charrnn, tmp_path, tiny_model_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(tiny_model_path.read_bytes())
    said = charrnn("sample", "-n", "5").err
    assert re.search(r"to repeat: .* -m runs/mine/model.safetensors .*--seed \d+", said)


def test_so_many_samples_are_a_mistake(charrnn, tiny_model_path):
    result = charrnn("sample", "-m", tiny_model_path, "--num", "100000000")
    result.assert_one_error(2, "--num must be from 1 to 1,000,000")


def test_a_page_is_never_written_over_what_it_is_made_from(charrnn, tmp_path, tiny_model_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("abc\n")
    model = tmp_path / "own.safetensors"
    model.write_bytes(tiny_model_path.read_bytes())
    for path in (lines, model):
        before = path.read_bytes()
        result = charrnn("score", "-m", model, "--file", lines, "--html", path)
        assert result.code == 2
        assert "--html would write over" in result.err
        assert path.read_bytes() == before


def test_a_run_that_cannot_begin_leaves_nothing_behind(charrnn, tmp_path, text):
    result = charrnn("train", text, "--steps", "3", "--device", "cuda:77")
    result.assert_one_error(2, "cuda:77")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_cannot_begin_leaves_the_folders_of_the_user_alone(charrnn, tmp_path, text):
    own = tmp_path / "mine" / "corpus" / "novel.txt"
    own.parent.mkdir(parents=True)
    own.write_text("years of work")
    assert charrnn("train", text, "--steps", "3", "--device", "cuda:77", "--out", "mine").code == 2
    assert own.read_text() == "years of work"
