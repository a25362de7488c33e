"""What was seen inside a model: coloured texts, tables and charts, or records for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.text import Text

from charrnn.display.charts import Bars, Curves, Scatter, Series, show_chart
from charrnn.display.heatmap import Level, show_heatmap
from charrnn.display.records import Records
from charrnn.display.table import new_table, show_table
from charrnn.display.terminal import visible, visible_text
from charrnn.inspection.embeddings import Embeddings
from charrnn.inspection.features import MEANINGS, Found
from charrnn.inspection.next_character import Next

if TYPE_CHECKING:
    from charrnn.inspection.gradients import GradientFlow  # it imports torch

SHOWN_NEXT = 15
"""Characters in the chart of what may come next."""
DISTANCES = (1, 10, 50, 100, 200)
"""Columns of the table under the curves, beside the largest."""
SHOWN_LINES = 6
SHOWN_CHARS = 800
"""Of the text under each unit that was found."""
BANDS = (
    Level(-1, "underline #ffffff on #1d4f91", "bold underline"),
    Level(-0.75, "underline #04203f on #8fbcea", "underline"),
    Level(-0.45, "#3b7dc4", "dim"),
    Level(-0.15, "", ""),
    Level(0.15, "#b8610f", "bold"),
    Level(0.45, "#2b1200 on #f0a067", "reverse"),
    Level(0.75, "bold #ffffff on #a8430a", "bold reverse"),
)
"""Each band begins where the one before it ends, at a level from -1 to 1."""
SIGNALS = {
    "c": "memory cell c",
    "h": "hidden state h",
    "input": "input gate",
    "forget": "forget gate",
    "output": "output gate",
    "reset": "reset gate",
    "update": "update gate",
}


class Unit(NamedTuple):
    """Which unit of a model, or the mean of all of a layer."""

    signal: str
    """Array of `inspection.activations`."""
    member: int
    layer: int
    unit: int | None

    def named(self, *, members: int, layers: int) -> str:
        """Write it: `memory cell c of unit 7 in layer 0`."""
        which = "all units (their mean)" if self.unit is None else f"unit {self.unit}"
        where = f" in layer {self.layer}" * (layers > 1) + f" of member {self.member}" * (
            members > 1
        )
        return f"{SIGNALS[self.signal]} of {which}{where}"


def band_of(level: float) -> Level:
    """Return what a level from -1 to 1 looks like."""
    return [band for band in BANDS if level >= band.from_bits or band is BANDS[0]][-1]


def show_unit(
    text: str, values: Sequence[float], levels: Sequence[float], unit: Unit, name: str, output: str
) -> None:
    """Write a text coloured by a unit, or one record for each character.

    Args:
        text: what was read.
        values: the activation after each character.
        levels: the same from -1 to 1.
        unit: which.
        name: of the unit.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for position, (character, value) in enumerate(zip(text, values, strict=True)):
            records.write(
                {"position": position, "character": character, "value": value, **unit._asdict()}
            )
        return
    console = Console(highlight=False)
    console.print(Text(name, style="bold"), soft_wrap=True)
    console.print()
    show_heatmap(console, zip(text, levels, strict=True), band_of)
    console.print()
    is_gate = unit.signal not in ("c", "h")
    _show_legend(console, 1.0 if is_gate else max(1.0, *map(abs, values)), is_gate=is_gate)


def _show_legend(console: Console, top: float = 1.0, *, is_gate: bool = False) -> None:
    """Print what the colours mean; `top` is the value of the highest level."""
    legend = Text("closed  " if is_gate else "low  ")
    ends = [*(band.from_bits for band in BANDS[1:]), 1.0]
    for band, end in zip(BANDS, ends, strict=True):
        middle = (band.from_bits + end) / 2
        style = band.plain if console.no_color else band.style
        legend.append(f" {signed((middle + 1) / 2 if is_gate else middle * top)} ", style)
        legend.append(" ")
    legend.append(" open" if is_gate else " high")
    console.print(legend, soft_wrap=True)


def signed(value: float) -> str:
    """Write a number with two digits and a proper sign."""
    return f"{value:.2f}".replace("-", "−")


def why(found: Found) -> str:
    """Write how well a feature explains a unit."""
    r = f"r {signed(found.correlation)}"
    return r if found.auc is None else f"AUC {found.auc:.3f}, {r}"


def show_found(
    text: str,
    feature: str,
    values: Sequence[float],
    signal: str,
    found: Sequence[Found],
    levels: Sequence[Sequence[float]],
    names: Sequence[str],
    output: str,
) -> None:
    """Write the units that a feature explains best, each with the text, or as records.

    Args:
        text: what was read.
        feature: which.
        values: of the feature at each character.
        signal: array of `inspection.activations`.
        found: the best first.
        levels: of each, after each character, from -1 to 1.
        names: of each.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for rank, one in enumerate(found, 1):
            records.write({"rank": rank, "feature": feature, "signal": signal, **one._asdict()})
        return
    console = Console(highlight=False)
    shown = _excerpt(text, values)
    for rank, (one, mine, name) in enumerate(zip(found, levels, names, strict=True), 1):
        title = Text(f"{rank}  {name}", style="bold")
        title.append(f"  {why(one)}", "not bold")
        console.print(title, soft_wrap=True)
        cells = zip(text[shown], mine[shown], strict=True)
        show_heatmap(console, cells, band_of)
        console.print()
    _show_legend(console)
    is_binary = found[0].auc is not None
    measure = "AUC: how often the unit is higher there than elsewhere (0.5 by chance); " * is_binary
    console.print(Text(f"{feature}: {MEANINGS[feature]}. {measure}r: correlation.", style="dim"))


def _excerpt(text: str, feature: Sequence[float]) -> slice:
    """Return some lines of a text in which a feature changes: from just before it first does."""
    changes = next((k for k, value in enumerate(feature) if value != feature[0]), 0)
    before = text.rfind("\n", 0, changes)
    begin = end = text.rfind("\n", 0, max(before, 0)) + 1
    for _ in range(SHOWN_LINES):
        end = text.find("\n", end) + 1
        if not end:
            end = len(text)
            break
    return slice(begin, min(end, begin + SHOWN_CHARS))


def flow_chart(flows: Mapping[str, GradientFlow]) -> Curves:
    """Return the curves of gradients over distance, by model."""
    return Curves(
        title="How far back the gradient reaches",
        x_label="k, characters back",
        y_label="mean norm of ∂ log P(x_t) / ∂ h_{t−k}",
        series=[
            Series(name=name, points=list(enumerate(flow.norms, 1)), colour=number)
            for number, (name, flow) in enumerate(flows.items())
        ],
        is_log=True,
    )


def show_flow(flows: Mapping[str, GradientFlow], output: str) -> None:
    """Write how gradients fade with distance: a chart and a table, or records.

    Args:
        flows: by the name of the model.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for name, flow in flows.items():
            for k, norm in enumerate(flow.norms, 1):
                records.write(
                    {"model": name, "distance": k, "norm": norm, "n_positions": flow.n_positions}
                )
        return
    show_chart(flow_chart(flows))
    longest = len(next(iter(flows.values())).norms)
    chosen = sorted({k for k in DISTANCES if k <= longest} | {longest})
    table = new_table("model", *(f"k={k}" for k in chosen))
    for name, flow in flows.items():
        cells = (f"{flow.norms[k - 1]:.2g}" for k in chosen)
        table.add_row(Text(visible_text(name)), *cells)
    print()
    show_table(table, [f"k={k}" for k in chosen[1:-1]])


def embeddings_chart(found: Embeddings) -> Scatter:
    """Return the characters in two dimensions."""
    shares = [f"{100 * share:.0f}% of the variance" for share in found.shares]
    what = "embeddings" if found.is_learned else "columns of the first input weights"
    return Scatter(
        title=f"The characters in two dimensions (PCA of their {what})",
        x_label=f"first component, {shares[0]}",
        y_label=f"second, {shares[1]}",
        points=[(label(one.character), one.x, one.y) for one in found.places],
    )


def show_embeddings(found: Embeddings, output: str) -> None:
    """Write the characters in two dimensions and their neighbours.

    Args:
        found: where they are.
        output: table, tsv or jsonl.
    """
    if output != "table":
        records = Records(as_json=output == "jsonl")
        for place in found.places:
            record: dict[str, Any] = {"character": place.character, "x": place.x, "y": place.y}
            if output == "jsonl":
                record["neighbours"] = [one._asdict() for one in place.neighbours]
            for k, one in enumerate(place.neighbours if output == "tsv" else (), 1):
                record[f"neighbour_{k}"] = one.character
                record[f"neighbour_{k}_similarity"] = one.similarity
            records.write(record)
        return
    show_chart(embeddings_chart(found))
    print()
    table = new_table("character")
    table.add_column("nearest, with the cosine of the angle between them", overflow="fold")
    for place in found.places:
        near = "  ".join(f"{label(n.character)} {signed(n.similarity)}" for n in place.neighbours)
        table.add_row(Text(label(place.character), "bold"), Text(near))
    show_table(table)


def next_chart(found: Sequence[Next], text: str, rules: str) -> Bars:
    """Return what may come next as bars.

    Args:
        found: the most probable first.
        text: what stands before; empty for the beginning.
        rules: temperature and filters in words; empty for none.
    """
    top = sorted(found, key=lambda one: -max(one.probability, one.sampling_probability))
    shown = sorted(top[:SHOWN_NEXT], key=lambda one: -one.probability)
    after = f"after “{visible_text(text[-30:])}”" if text else "at the beginning of a text"
    return Bars(
        title=f"The next character {after}",
        names=("the model", f"drawn from ({rules or 'nothing filtered'})"),
        rows=[(label(one.character), one.probability, one.sampling_probability) for one in shown],
    )


def show_next(found: Sequence[Next], chart: Bars, output: str) -> None:
    """Write what may come next: a chart, or one record for each character.

    Args:
        found: the most probable first.
        chart: made by `next_chart`.
        output: table, tsv or jsonl.
    """
    if output == "table":
        show_chart(chart)
        return
    records = Records(as_json=output == "jsonl")
    for one in found:
        records.write(one._asdict())


def rules_of(values: Mapping[str, Any]) -> str:
    """Write temperature and filters: `temperature 0.5, top-k 10`."""
    return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in values.items())


def label(character: str) -> str:
    """Return a character as a label: a blank has a sign, events that are none their names."""
    if character == " ":
        return "␣"
    return visible(character) if len(character) == 1 else character
