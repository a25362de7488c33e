"""What `charrnn inspect` shows: a unit, the units found, gradients, embeddings, what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import charrnn.cli.options as options
from charrnn.cli.pictures import write_picture
from charrnn.config import Feature, Gate, SamplingConfig
from charrnn.errors import ConfigError

if TYPE_CHECKING:
    from charrnn.inspection.activations import ReadText
    from charrnn.model import CharModel

FOUND = 5
NEIGHBOURS = 5
MOST_SHOWN = 20_000
"""Ids of a text that is coloured."""
MOST_SEARCHED = 50_000
"""Ids of a text in which a feature is looked for, or over which gradients are averaged."""
FILTERS = ("temperature", "top_k", "top_p", "min_p")


class Where:
    """Which layer, member and unit are meant; None where nobody said."""

    def __init__(self, layer: int | None, member: int | None, unit: int | None) -> None:
        """Keep the numbers."""
        self.layer = layer
        self.member = member
        self.unit = unit

    def check(self, model: CharModel) -> None:
        """See that a model has them.

        Raises:
            ConfigError: it has not.
        """
        from charrnn.inspection.activations import require_index, require_left_to_right

        config = model.saved.config
        require_left_to_right(config)
        sizes = {
            "layer": config.num_layers,
            "member": config.members,
            "unit": config.hidden_size,
        }
        for field, size in sizes.items():
            given = getattr(self, field)
            if given is not None:
                require_index(given, size, field)


def _read(model: CharModel, text: str, most: int, *, quietly: bool = False) -> ReadText:
    """Return a text in ids, or its beginning; say what is left out, if not quietly, or unknown."""
    from charrnn.display.terminal import say
    from charrnn.inspection.activations import most_ids, read_text
    from charrnn.vocab import list_unknown

    most = max(1, min(most, most_ids(model.saved.config)))
    found = read_text(model.saved, text[:most])
    n_chars = int((found.ends < most).sum())
    if n_chars < len(found.text):
        found = read_text(model.saved, found.text[:n_chars])
    if len(found.text) < len(text) and not quietly:
        say(f"only the first {len(found.text):,} of {len(text):,} characters are read")
    if found.unknown:
        say(f"read as unknown characters: {list_unknown(found.unknown)}")
    return found


def show_unit(
    name: str,
    model: CharModel,
    text: str,
    gate: Gate | None,
    where: Where,
    form: options.Format,
    out: Path | None,
) -> None:
    """Show a text coloured by a unit or a gate."""
    from charrnn.display import inspect as display
    from charrnn.inspection.activations import activations, levels, memory_of, require_gate

    saved, config = model.saved, model.saved.config
    signal = memory_of(config) if gate is None else require_gate(config, gate)
    shown = _read(model, text, MOST_SHOWN)
    found = activations(saved, shown.ids)
    m, k, unit = where.member or 0, where.layer or 0, where.unit
    values = found[signal][m, k, shown.ends]
    mine = levels(values, signal)
    one = display.Unit(signal, m, k, unit)
    pick = (slice(None), unit) if unit is not None else None
    values_N = values.mean(axis=1) if pick is None else values[pick]
    levels_N = mine.mean(axis=1) if pick is None else mine[pick]
    title = one.named(members=config.members, layers=config.num_layers)
    if out is not None:
        start = {"signal": signal, "member": m, "layer": k, "unit": unit}
        _write_page(out, name, model, shown, found, start)
    display.show_unit(shown.text, values_N.tolist(), levels_N.tolist(), one, title, form)


def show_find(
    name: str,
    model: CharModel,
    text: str,
    feature: Feature,
    where: Where,
    form: options.Format,
    out: Path | None,
) -> None:
    """Show the units that a feature explains best."""
    from charrnn.display import inspect as display
    from charrnn.inspection.activations import activations, levels, memory_of
    from charrnn.inspection.features import BINARY, feature_values, find_units

    config = model.saved.config
    shown = _read(model, text, MOST_SEARCHED)
    wanted = feature_values(shown.text, feature)
    found = activations(model.saved, shown.ids)
    signal = memory_of(config)
    values = found[signal][:, :, shown.ends]
    best = [
        one
        for one in find_units(values, wanted, binary=feature in BINARY)
        if where.layer in (None, one.layer) and where.member in (None, one.member)
    ][:FOUND]
    mine = levels(values, signal)
    if out is not None:
        first = best[0]
        start = {"signal": signal, "member": first.member, "layer": first.layer, "unit": first.unit}
        _write_page(out, name, model, shown, found, start, best)
    display.show_found(
        shown.text,
        feature,
        wanted.tolist(),
        signal,
        best,
        [mine[one.member, one.layer, :, one.unit].tolist() for one in best],
        [
            display.Unit(signal, one.member, one.layer, one.unit).named(
                members=config.members, layers=config.num_layers
            )
            for one in best
        ],
        form,
    )


def _write_page(
    out: Path,
    name: str,
    model: CharModel,
    shown: ReadText,
    found: dict[str, Any],
    start: dict[str, Any],
    best: Any = (),
) -> None:
    """Write the page in which the reader steps through the units.

    Raises:
        ConfigError: it would be too large.
    """
    from charrnn.display import inspect as display
    from charrnn.display import units
    from charrnn.display.terminal import say
    from charrnn.inspection.activations import gates_of, levels, memory_of, packed
    from charrnn.storage.atomic import write_text_atomically

    config = model.saved.config
    shape = units.Shape(config.members, config.num_layers, config.hidden_size)
    per_character = shape.members * shape.layers * shape.units
    names = [memory_of(config), *gates_of(config)]
    n_chars = min(len(shown.text), units.MAX_BYTES // per_character)
    if not n_chars:
        raise ConfigError(f"{out} would be too large a page: this model has too many units")
    if n_chars * per_character * len(names) > units.MAX_BYTES:
        names = list(dict.fromkeys([names[0], start["signal"]]))
        n_chars = min(n_chars, units.MAX_BYTES // per_character // len(names))
    if n_chars < len(shown.text):
        say(f"the page has the first {n_chars:,} characters")
    signals = [
        units.Signal(
            display.SIGNALS[one],
            one in gates_of(config),
            packed(levels(found[one][:, :, shown.ends[:n_chars]], one)),
        )
        for one in names
    ]
    page = units.page(
        shown.text[:n_chars],
        shape,
        signals,
        start={**start, "signal": names.index(start["signal"])},
        found=[(one, display.why(one)) for one in best],
        model=name,
    )
    write_text_atomically(out, page, follow_links=True)


def show_flow(
    models: dict[str, CharModel],
    text: str,
    where: Where,
    distance: int,
    positions: int,
    form: options.Format,
    out: Path | None,
) -> None:
    """Show how gradients fade with distance."""
    from charrnn.display import inspect as display
    from charrnn.display.format import counted

    read = {
        name: _read(model, text, MOST_SEARCHED, quietly=number > 0)
        for number, (name, model) in enumerate(models.items())
    }
    for one in read.values():
        if len(one.ids) <= distance:
            length = counted(len(one.text), "character")
            raise ConfigError(
                f"has {length}, too few for distances up to {distance:,}: give "
                "a longer text, or a smaller --distance",
                field="text",
            )
    from charrnn.training.system import load_torch

    load_torch()
    from charrnn.inspection.gradients import gradient_flow, network_of

    flows = {
        name: gradient_flow(
            network_of(model.saved),
            read[name].ids,
            distance=distance,
            positions=positions,
            layers=None if where.layer is None else [where.layer],
            members=None if where.member is None else [where.member],
        )
        for name, model in models.items()
    }
    if out is not None:
        write_picture(display.flow_chart(flows), out, ", ".join(flows))
    display.show_flow(flows, form)


def show_embeddings(
    name: str, model: CharModel, where: Where, form: options.Format, out: Path | None
) -> None:
    """Show the characters in two dimensions."""
    from charrnn.display import inspect as display
    from charrnn.inspection.embeddings import embeddings

    found = embeddings(model.saved, where.member or 0, NEIGHBOURS)
    if out is not None:
        write_picture(display.embeddings_chart(found), out, name)
    display.show_embeddings(found, form)


def show_next(
    name: str,
    model: CharModel,
    text: str,
    config: SamplingConfig,
    form: options.Format,
    out: Path | None,
) -> None:
    """Show what may come next."""
    from charrnn.display import inspect as display
    from charrnn.inspection.next_character import next_characters

    start = model.start(text, on_unknown="unk")
    found = next_characters(start, model.saved.vocabulary, config)
    changed = {
        field: getattr(config, field)
        for field in FILTERS
        if getattr(config, field) != getattr(SamplingConfig, field)
    }
    chart = display.next_chart(found, text, display.rules_of(changed))
    if out is not None:
        write_picture(chart, out, name)
    display.show_next(found, chart, form)
