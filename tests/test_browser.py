"""The exported page in a real browser, without a network: parity with the engine, every control.

Needs Chromium and the `browser` extra; `make test-browser` runs it.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import reference

from charrnn.config import TextConfig
from charrnn.model import CharModel
from charrnn.rng import stream_keys, uniforms
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, ByteVocabulary, Vocabulary

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
playwright = pytest.importorskip("playwright.sync_api", reason="needs the browser extra")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

ALPHABET = " \n'(,.abcdefghijklmnopqrstuvwxyzé—😀"
WAIT_MS = 20_000


def make(cell, *, layers=1, members=1, embedding=0, byte=False, documents="none", scale=1.0):
    vocabulary = ByteVocabulary() if byte else Vocabulary(ALPHABET)
    config = reference.make_config(
        cell,
        layers=layers,
        embedding=embedding,
        members=members,
        hidden=13,
        vocab_size=len(vocabulary),
    )
    weights = {
        name: (scale * array).astype(np.float32)
        for name, array in reference.random_weights(config).items()
    }
    if documents == "none":
        weights["output.bias"][..., EOS_ID] = -50  # as in a model of one long text
    return CharModel(
        SavedModel(
            config=config,
            vocabulary=vocabulary,
            text=TextConfig(documents=documents),
            training={"corpus": {"name": "songs", "n_chars": 1234}},
            weights=weights,
        )
    )


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as control:
        opened = control.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Page:
    """A page that is open in the browser; at its end there must have been no errors."""

    def __init__(self, browser, path):
        self.context = browser.new_context(offline=True, accept_downloads=True)
        self.context.set_default_timeout(WAIT_MS)
        self.tab = self.context.new_page()
        self.problems = []
        self.tab.on("console", lambda message: self.problems.append(message.text))
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.requests = []
        self.tab.goto(path.as_uri())
        self.until("#settings:not([disabled])")

    def until(self, selector):
        self.tab.wait_for_selector(selector, state="attached")

    def set(self, **values):
        for name, value in values.items():
            if name == "temperature":
                self.tab.evaluate(
                    "(v) => { const t = document.getElementById('temperature'); t.step = 'any';"
                    " t.value = v; }",
                    str(value),
                )
            else:
                if name in ("topK", "topP", "minP"):
                    self.tab.evaluate("document.querySelector('details').open = true")
                self.tab.fill(f"#{name}", str(value))

    def text(self, selector):
        return self.tab.eval_on_selector(selector, "(element) => element.textContent")

    def ask(self, task, answer, **request):
        """Ask the page's own worker."""
        code = (
            "([task, request, answer]) => new Promise((resolve) => ask(task, request, (data) => {"
            " if (answer in data) resolve(data[answer]); }))"
        )
        return self.tab.evaluate(code, [task, request, answer])

    def run(self, code, *, change=("", "")):
        """Let a worker of the page's own source, perhaps changed, run code that posts `result`."""
        return self.tab.evaluate(
            "([code, change]) => new Promise((resolve, reject) => {"
            " const source = find('worker').textContent;"
            " if (!source.includes(change[0])) reject(new Error('nothing to change'));"
            " const more = `addEventListener('message', ({ data }) => {"
            "   if (data.run) postMessage({ result: (() => { ${code} })() }); });`;"
            " const all = new Blob([source.replace(...change), more]);"
            " const other = new Worker(URL.createObjectURL(all));"
            " other.onmessage = ({ data }) => { if ('result' in data) resolve(data.result); };"
            " other.onerror = (event) => reject(new Error(event.message));"
            " const weights = find('weights').textContent;"
            " other.postMessage({ task: 'load', model, weights });"
            " other.postMessage({ run: true }); })",
            [code, list(change)],
        )

    def logits(self, ids, **how):
        """The logits after EOS and each of some ids."""
        return self.run(
            "network.begin(); const rows = [Array.from(network.logits)];"
            f" for (const id of {list(map(int, ids))})"
            " { network.step(id); rows.push(Array.from(network.logits)); } return rows;",
            **how,
        )

    def write(self, prompt=""):
        """Write a text to its end and return it with its prompt."""
        self.tab.click("#tab-write")
        self.tab.fill("#prompt", prompt)
        self.tab.click("#start")
        self.until("#stop[disabled]")
        return self.text("#text")

    def close(self):
        self.context.close()
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith(("file:", "blob:"))] == []


@pytest.fixture
def show(browser, tmp_path):
    """Return the call that opens the page of a model."""
    opened = []

    def open_page(model, name="page", **how):
        how = {"precision": "float32", **how}
        path = model.export(tmp_path / f"{name}.html", **how)
        opened.append(Page(browser, path))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


KINDS = [
    {"cell": "lstm"},
    {"cell": "lstm", "layers": 2, "members": 3, "embedding": 5},
    {"cell": "lstm", "layers": 3, "byte": True, "documents": "file"},
    {"cell": "peephole-lstm", "layers": 2, "members": 2, "embedding": 3},
    {"cell": "gru", "embedding": 3, "documents": "line"},
    {"cell": "gru-simple", "layers": 2, "members": 2, "documents": "line", "scale": 0.5},
    {"cell": "gru", "layers": 2, "members": 2, "byte": True},
    {"cell": "rnn-tanh", "layers": 2, "embedding": 4, "members": 2, "scale": 0.5},
    {"cell": "rnn-relu", "layers": 2, "documents": "blank-line", "scale": 0.3},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_page_computes_what_the_engine_does(show, kind):
    model, page = make(**kind), None
    page = show(model)
    ids = np.random.default_rng(1).integers(2, len(model.saved.vocabulary), 1000)
    found = page.logits(ids)
    state = model.engine.initial_state()
    wanted = [model.engine.step(int(i), state).copy() for i in (EOS_ID, *ids)]
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-4
    # the same seeds write the same texts
    for seed, options in enumerate(
        [
            {"temperature": 0.8},
            {"temperature": 1.3, "top_k": 7},
            {"temperature": 1.0, "top_p": 0.9},
            {"temperature": 0.5, "min_p": 0.1, "top_k": 20},
            {"temperature": 0.0, "length": 60},
        ]
    ):
        options = {"length": 500, "top_k": 0, "top_p": 1, "min_p": 0, **options}
        names = {"top_k": "topK", "top_p": "topP", "min_p": "minP"}
        page.set(seed=seed, **{names.get(name, name): value for name, value in options.items()})
        prompt = "the a" if seed % 2 else ""
        assert page.write(prompt) == prompt + model.sample(prompt, seed=seed, **options).text


def test_plain_javascript_computes_the_same(show):
    """For browsers whose WebAssembly has no vectors."""
    page = show(make("gru", layers=2, members=2, embedding=3))
    ids = range(2, 30)
    plain = page.logits(ids, change=("if (!WebAssembly.validate(bytes))", "if (true)"))
    assert plain != page.logits(ids)  # the last digits differ
    assert np.abs(np.array(plain) - np.array(page.logits(ids))).max() < 1e-4


def test_lists_are_the_samples_of_a_seed(show):
    model = make("gru", documents="line")
    page = show(model)
    page.until("#list:not([hidden])")  # what a model of documents shows first
    page.set(seed=12345678901234567890123, temperature=1.0, length=40)
    for count in (10, 20):
        page.tab.click("#ten" if count == 10 else "#ten-more")
        page.until("#stop-list[disabled]")
        samples = model.sample(num=count, seed=12345678901234567890123, length=40)
        wanted = [s.text + "…" * (s.stop_reason == "length") for s in samples]
        assert (
            page.tab.eval_on_selector_all("#items li", "(all) => all.map((li) => li.textContent)")
            == wanted
        )


def test_each_press_has_a_new_seed_unless_one_is_kept(show):
    page = show(make("lstm"))
    page.set(seed=7, length=20)

    def pressed():
        page.tab.click("#start")
        page.until("#stop[disabled]")
        return page.tab.input_value("#seed")

    assert pressed() == "7", "as it was typed"
    renewed = pressed()
    assert renewed != "7"
    assert pressed() != renewed
    page.set(seed=7)
    page.tab.check("#keep")
    assert [pressed(), pressed()] == ["7", "7"]


def test_each_line_is_scored_alone_by_a_model_of_lines(show):
    model = make("lstm", documents="line")
    page = show(model)
    page.tab.click("#tab-score")
    page.tab.fill("#given", "the key\nan old sea\n")
    page.tab.click("#measure")
    page.until("#measure:not([disabled])")
    scores = model.score_many(["the key", "an old sea"])
    bits = sum(score.bits_per_char * score.n_scored for score in scores)
    assert f"{bits:.1f} bits in all" in page.text("#figures")


def test_random_numbers_are_ours(show):
    page = show(make("lstm"))
    places = [0, 1, 7, 100_000]
    found = page.run(f"return {places}.map((k) => uniform(streamKey(-5n, 3), k));")
    assert found == uniforms(stream_keys(-5, [3]), places).tolist()


@pytest.mark.parametrize("byte", [False, True])
def test_scores_are_those_of_the_engine(show, byte):
    model = make("lstm", byte=byte, documents="file", members=2)
    page = show(model)
    text = "the key, é—😀\nand (so) on"
    found = page.ask("score", "characters", text=text, ends=True)
    groups = []
    for event in model.char_scores(text, alternatives=5):
        if event.text or event.character == "<end>":
            groups.append([])
        groups[-1].append(event)
    assert [one["text"] for one in found] == [*text, ""]
    for one, group in zip(found, groups, strict=True):
        name, bits, ranks, expected = one["card"]
        assert bits == pytest.approx(sum(event.bits for event in group), abs=1e-4)
        assert ranks == ", ".join(str(event.rank) for event in group)
        shares = np.exp([other.logprob for other in group[0].alternatives])
        np.testing.assert_allclose([share for _, share in expected], shares, atol=1e-4)
        shown = {" ": "space", "\n": "line end", "": "the end"}.get(one["text"], one["text"])
        parts = [f"byte {event.character[1:3]}" for event in group if len(group) > 1]
        assert name == " ".join([shown, *parts]) + " (unknown)" * group[0].is_unknown
    page.tab.click("#tab-score")
    page.tab.fill("#given", text)
    page.tab.click("#measure")
    page.until("#figures:not(:empty)")
    bits = sum(event.bits for group in groups for event in group)
    assert f"{bits / len(groups):.3f} bits per character or end" in page.text("#figures")
    assert f"{bits:.1f} bits in all" in page.text("#figures")
    assert page.text("#heat").replace("↵", "") == text + "∎"
    page.tab.hover("#heat span >> nth=2")
    assert page.text("#card h2") == "e"
    page.tab.focus("#heat")
    page.tab.keyboard.press("End")
    assert page.text("#said").startswith("the end: ")
    page.tab.keyboard.press("Home")
    assert page.text("#card h2") == "t"
    page.tab.keyboard.press("Escape")
    assert not page.tab.is_visible("#card")


def test_unknown_characters_are_charged_as_unk_and_left_out_of_beginnings(show):
    model = make("gru")
    page = show(model)
    found = page.ask("score", "characters", text="aXb", ends=False)
    events = model.char_scores("aXb")
    bits = [one["card"][1] for one in found]
    np.testing.assert_allclose(bits, [event.bits for event in events], atol=1e-4)
    assert [one["card"][0] for one in found] == ["a", "X (unknown)", "b"]
    page.set(length=30, seed=1, temperature=1.0)
    text = page.write("aX\u202eb")
    wanted = model.sample("ab", seed=1, length=30).text
    assert text == "aX\u202eb" + wanted
    assert "has never seen X U+202E: left out. The length is reached" in page.text("#status")


def test_a_text_can_be_stopped_continued_copied_and_saved(show):
    model = make("lstm")
    page = show(model)
    page.set(length=1_000_000, seed=1, temperature=1.0)
    page.tab.click("#start")
    page.tab.wait_for_selector("#text:not(:empty)")
    assert page.tab.is_enabled("#stop")
    page.tab.click("#stop")
    page.until("#start:not([disabled])")
    first = page.text("#text")
    # over tens of thousands of characters the rounding of another engine may move one
    whole = model.sample(seed=1, length=4000).text
    assert whole.startswith(first[:4000])
    page.set(length=100)
    page.tab.click("#more")
    page.until("#stop[disabled]")
    longer = page.text("#text")
    assert longer.startswith(first)
    assert len(longer) > len(first)
    assert whole.startswith(longer[:4000])
    with page.tab.expect_download() as caught:
        page.tab.click("#save")
    with open(caught.value.path(), encoding="utf-8") as file:
        assert file.read() == longer + "\n"


def test_writing_together(show):
    page = show(make("lstm"))
    page.set(temperature=1.0, seed=3)
    page.tab.click("#tab-together")
    page.tab.fill("#draft", "the ")
    page.tab.click("#ask")
    page.until("#choices button >> nth=2")
    offered = page.tab.eval_on_selector_all(
        "#choices button", "(all) => all.map((b) => b.textContent)"
    )
    assert len(set(offered)) == 3
    page.tab.click("#choices button >> nth=1")
    page.until("#ask:not([disabled])")
    assert page.tab.input_value("#draft") == "the " + offered[1]
    again = page.tab.eval_on_selector_all(
        "#choices button", "(all) => all.map((b) => b.textContent)"
    )
    assert again != offered
    page.tab.click("#undo")
    assert page.tab.input_value("#draft") == "the "
    assert not page.tab.is_enabled("#undo")
    page.tab.click("#ask")
    page.until("#ask:not([disabled])")
    page.until("#choices button >> nth=2")
    others = page.tab.eval_on_selector_all(
        "#choices button", "(all) => all.map((b) => b.textContent)"
    )
    assert others != offered  # asking again gives others


def test_wrong_settings_are_told(show):
    page = show(make("lstm"))
    page.tab.fill("#seed", "one")
    page.tab.click("#start")
    assert page.tab.is_enabled("#start")
    assert page.text("#text") == ""
    assert page.tab.eval_on_selector("#seed", "(input) => !input.checkValidity()")


def test_a_model_without_probabilities_says_so(show):
    saved = make("rnn-relu", layers=2).saved
    weights = {name: np.full_like(array, 1e12) for name, array in saved.weights.items()}
    page = show(CharModel(SavedModel(**{**vars(saved), "weights": weights})))
    page.write()
    assert "gives no probabilities" in page.text("#status")


HOSTILE = "</script><script>alert(1)</script><!-- \" ' & \u202e\x01"


def test_nothing_of_a_stranger_is_executed(show):
    vocabulary = Vocabulary(sorted(set(HOSTILE + "ab\n")))
    config = reference.make_config("gru", vocab_size=len(vocabulary))
    saved = SavedModel(
        config=config,
        vocabulary=vocabulary,
        training={"corpus": {"name": HOSTILE}},
        weights=reference.random_weights(config),
    )
    page = show(CharModel(saved), title=HOSTILE, prompt=HOSTILE)
    page.tab.on("dialog", lambda dialog: page.problems.append("a dialog"))
    assert page.text("h1") == HOSTILE
    assert page.tab.input_value("#prompt") == HOSTILE
    page.set(length=200, temperature=1.0)
    page.write(HOSTILE)
    page.ask("score", "characters", text=HOSTILE, ends=False)


def test_a_keyboard_is_enough(show):
    page = show(make("lstm"))
    page.tab.focus("#tab-write")
    page.tab.keyboard.press("ArrowRight")
    assert page.tab.is_visible("#list")
    page.tab.keyboard.press("ArrowLeft")
    page.tab.keyboard.press("ArrowLeft")
    assert page.tab.is_visible("#score")
    assert page.tab.get_attribute("#tab-score", "aria-selected") == "true"
    # every control has a name
    unnamed = page.tab.evaluate(
        "Array.from(document.querySelectorAll('input, textarea, button')).filter((e) =>"
        " !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).map((e) => e.id)"
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(show, width):
    page = show(make("lstm", documents="line"), title="W" * 200)
    page.tab.set_viewport_size({"width": width, "height": 844})
    page.set(length=400, seed=1)
    for tab in ("write", "list", "together", "score"):
        page.tab.click(f"#tab-{tab}")
        wide = page.tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
