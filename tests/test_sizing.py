"""Defaults from corpus, budget and machine."""

from __future__ import annotations

import dataclasses

import pytest

from charrnn.errors import ConfigError
from charrnn.training.sizing import (
    CHARS_PER_WEIGHT,
    ENOUGH_EPOCHS,
    MOST_EPOCHS,
    RELATIVE_SPEED,
    SIDE_BY_SIDE,
    Speed,
    complete_settings,
    default_time_s,
    measure_speed,
)


def shape(n_chars, speed=100_000.0, gain=1.0, **given):
    """Settings where one network reads so fast, and two together so many times as fast."""
    return complete_settings(n_chars, 70, given, speed=Speed(speed, gain * speed))


def width(n_chars=1_000_000, speed=100_000.0, **given):
    return shape(n_chars, speed, **given)[0].hidden_size


def test_more_time_never_means_a_narrower_network():
    widths = [width(n_chars=10**8, time_s=t) for t in (1, 10, 60, 300, 1800, 10_000, 36_000)]
    assert widths == sorted(widths)
    assert widths[0] == min(RELATIVE_SPEED)
    assert widths[-1] == max(RELATIVE_SPEED)


def test_a_faster_machine_affords_a_wider_network():
    assert width(time_s=60, speed=10_000) < width(time_s=60, speed=1_000_000)


def test_the_speed_of_the_machine_has_no_say_in_steps_and_epochs():
    for given in ({"steps": 4000}, {"epochs": 8}):
        assert width(speed=1.0, **given) == width(speed=1e9, **given)


def test_a_short_text_gets_a_narrow_network_however_long_it_may_train():
    assert width(n_chars=10_000, time_s=36_000) == 128
    assert width(n_chars=100_000, time_s=36_000) == 256
    assert width(n_chars=10**9, time_s=36_000) == 1024


def test_every_weight_reads_its_share_of_characters():
    model, _ = complete_settings(10**8, 70, {"epochs": 0.1})
    assert CHARS_PER_WEIGHT * model.num_parameters() <= 10**7
    wider = [w for w in RELATIVE_SPEED if w > model.hidden_size]
    bigger, _ = complete_settings(10**8, 70, {"epochs": 0.1, "hidden_size": min(wider)})
    assert CHARS_PER_WEIGHT * bigger.num_parameters() > 10**7


def test_layers_share_the_time():
    assert width(time_s=60, num_layers=3) <= width(time_s=60)


def test_dropout_only_where_the_text_is_read_often():
    for n_chars, epochs, expected in (
        (10**6, 3, (0, 0)),
        (10**6, 15, (0.25, 0)),
        (10**6, 40, (0.25, 0.2)),
        (200_000, 3, (0, 0)),
        (200_000, 15, (0.25, 0.2)),
    ):
        training = complete_settings(n_chars, 70, {"epochs": epochs})[1]
        assert (training.dropout, training.recurrent_dropout) == expected


def test_what_is_given_is_kept_and_the_rest_follows():
    model, training = shape(10**6, hidden_size=100, dropout=0.5, batch_size=7)
    assert (model.hidden_size, training.dropout, training.batch_size) == (100, 0.5, 7)
    assert training.time_s == default_time_s(10**6), "no limit was given"


def test_a_time_limit_alone_is_one_of_epochs_too():
    for given in ({}, {"time_s": 60.0}):
        assert shape(10**6, **given)[1].epochs == MOST_EPOCHS
    assert shape(10**6, time_s=60.0, epochs=300)[1].epochs == 300
    assert shape(10**6, steps=10**6)[1].epochs is None


def test_the_smallest_limit_decides_the_size():
    assert width(time_s=600, epochs=1) == width(epochs=1) < width(time_s=600)
    assert width(time_s=600, steps=1000) == width(steps=1000) < width(time_s=600)
    assert width(time_s=5, epochs=100) == width(time_s=5) < width(epochs=100)
    assert width(epochs=1, steps=10**6) == width(epochs=1) < width(steps=10**6)


def test_the_shorter_the_text_the_more_overfitting_is_held_back():
    for epochs, measured in ((3, {10**6: 0.05}), (30, {10**6: 0.05, 200_000: 0.056})):
        decays = {
            n: complete_settings(n, 70, {"epochs": epochs})[1].weight_decay
            for n in (20_000, 200_000, 10**6, 10**8)
        }
        assert list(decays.values()) == sorted(decays.values(), reverse=True)
        for n_chars, decay in measured.items():
            assert decays[n_chars] == decay


def test_default_time_grows_with_the_text_between_limits():
    assert default_time_s(1000) == 20
    assert 20 < default_time_s(500_000) < 600
    assert default_time_s(10**9) == 570


def test_the_speed_of_the_machine_is_measured_for_a_time_and_for_nothing_else(prepare, monkeypatch):
    asked = []

    def speed(device, dtype):
        asked.append((device, dtype))
        return Speed(1e9, 1e9)

    monkeypatch.setattr("charrnn.training.sizing.measure_speed", speed)
    text, free = "abcdefgh\n" * 40_000, {"hidden_size": None, "embedding_size": None}
    assert prepare(text, time_s=600.0, **free).model.hidden_size == 512
    assert asked == [("cpu", "float32")]
    prepare(text, steps=3, **free)
    prepare(text, epochs=1, **free)
    assert len(asked) == 1


def test_a_measured_speed_is_one():
    speed = measure_speed("cpu", "float32")
    assert 0 < speed.alone < float("inf")
    assert 0 < speed.together < float("inf")


def test_no_speed_of_a_device_that_is_not_here():
    with pytest.raises(ConfigError, match="cuda:77"):
        measure_speed("cuda:77", "auto")


def test_time_left_over_goes_into_more_members():
    members = [shape(10**6, time_s=t)[0].members for t in (20, 60, 200, 1000, 36_000)]
    assert members == sorted(members)
    assert members[:2] == [1, 1]
    assert members[-1] == max(ENOUGH_EPOCHS)
    assert shape(10**8, time_s=3600)[0].members == 1, "a long text is not read often enough"
    model, training = shape(10**6, time_s=600)
    assert (model.members, training.dropout) == (2, 0.1), "each reads the text ten times"


def test_two_networks_where_they_read_more_than_one_does():
    for n_chars, seconds in ((10**6, 20), (10**6, 45), (5 * 10**6, 120)):
        for gain, members in ((0.9, 1), (SIDE_BY_SIDE - 0.01, 1), (SIDE_BY_SIDE + 0.01, 2)):
            assert shape(n_chars, time_s=seconds, gain=gain)[0].members == members


def test_a_tiny_text_has_a_single_network_until_that_has_learned_all_it_can():
    """Narrow as they are, networks would need more epochs than are of use."""
    members = [shape(10_000, 75_000.0, 1.4, time_s=t)[0].members for t in (2, 5, 20)]
    assert members == [1, 2, 4]


def test_what_several_networks_gain_together():
    """As much as two of 256 units do, less where they are wider; never more than all of it."""
    speed = Speed(100.0, 140.0)
    gains = [speed.gain(width) for width in RELATIVE_SPEED]
    assert gains == sorted(gains, reverse=True)
    assert speed.gain(256) == pytest.approx(1.4)
    assert speed.gain(512) == pytest.approx(1.2)
    assert Speed(100.0, 300.0).gain(128) == 2
    assert Speed(100.0, 50.0).gain(256) == 1


def test_the_shape_asked_for_is_one_network():
    for given in ({"hidden_size": 128}, {"num_layers": 2}, {"members": 1}):
        assert shape(10_000, time_s=36_000, **given)[0].members == 1
    for given in ({"epochs": 300}, {"steps": 10**6}):
        assert shape(10_000, **given)[0].members == 1
    assert shape(10_000, hidden_size=128, members=5, time_s=10)[0].members == 5


def test_members_share_the_time_but_not_the_epochs():
    alone, together = (shape(10**6, time_s=120, members=n)[0] for n in (1, 4))
    assert together.hidden_size < alone.hidden_size
    many, single = (shape(10**6, epochs=12, **n)[0] for n in ({"members": 4}, {}))
    assert dataclasses.replace(many, members=1) == single
    dropout = [shape(10**6, hidden_size=512, members=n, time_s=1000)[1].dropout for n in (1, 2, 4)]
    assert dropout == [0.25, 0.1, 0]


def test_several_networks_are_narrower_than_one():
    """Where one of 256 units reads 75,000 characters a second; the first two did best there."""
    for seconds, members, units in ((120, 2, 256), (570, 2, 384), (1800, 4, 512)):
        model = shape(10**6, 75_000.0, 1.4, time_s=seconds)[0]
        assert (model.members, model.hidden_size) == (members, units)
        assert shape(10**6, 75_000.0, 1.4, time_s=seconds, members=1)[0].hidden_size >= units
