"""`--precision auto`: the cheapest mix that keeps the budget, or the best there is."""

import json

import numpy as np
import pytest

from edgekit.bundle import read_bundle
from edgekit.cli import main

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.converters.budget import Search, meet_budget  # noqa: E402
from edgekit.converters.quantize.ranges import read_ranges  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.static import float_twin  # noqa: E402

layers = keras.layers
WIDE = 2000.0


def points(count, seed, wide=1.0):
    """Return [count, 2] and labels: the first number's sign decides, the other is `wide`."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 2))
    x[:, 0] = np.sign(x[:, 0]) * (0.2 + np.abs(x[:, 0]))
    return (x * (1, wide)).astype(np.float32), (x[:, 0] < 0).astype(np.int64)


def uneven():
    """Tells classes by a small channel beside a very wide one, which no equalization can even out.

    Between them stands a SiLU, which scales with nothing; int8 sees the wide channel only.
    """
    x = keras.Input((2,), name="point")
    y = layers.Dense(4, activation="relu", name="halves")(x)
    y = layers.Dense(2, name="mixed")(y)
    y = layers.Activation("silu", name="bend")(y)
    model = keras.Model(x, layers.Softmax(name="answer")(layers.Dense(2, name="logits")(y)))
    weights = {
        "halves": [[1, -1, 0, 0], [0, 0, 1, -1]],
        "mixed": [[1, 0], [-1, 0], [0, WIDE], [0, -WIDE]],
        "logits": [[4, -4], [0, 0]],
    }
    for name, kernel in weights.items():
        model.get_layer(name).kernel.assign(np.float32(kernel))
    return model


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uneven().save("m.keras")
    for name, seed, wide in (("c", 0, 1), ("e", 1, 1), ("wide_c", 0, WIDE), ("wide_e", 1, WIDE)):
        x, y = points(200, seed, wide)
        np.savez(f"{name}.npz", x=x, y=y)
    return tmp_path


def convert(*arguments):
    return main(["convert", "m.keras", *arguments])


def test_auto_finds_a_mix_where_int8_misses_the_budget(place, capsys):
    sets = ("--data", "c.npz", "--eval-data", "e.npz", "--max-drop", "0.1%")
    assert convert("-o", "plain.edgekit", "--precision", "int8", *sets) == 1
    assert "precision auto" in capsys.readouterr().err
    assert convert("-o", "b.edgekit", "--precision", "auto", *sets, "--json", "s.json") == 0
    shown = capsys.readouterr().out
    assert "layers not int8" in shown and "one inference, predicted" in shown
    summary = json.loads((place / "s.json").read_text())
    budget = summary["budget"]
    assert budget["is_met"] and budget["chosen"]["drop"] <= 0.001
    assert summary["accuracy"]["drop"] == pytest.approx(budget["chosen"]["drop"])
    tried = budget["tried"]
    assert tried[0]["layers"] == {} and tried[0]["drop"] > 0.1
    raised = budget["chosen"]["layers"]
    assert 0 < len(raised) < len(budget["sensitivities"])
    kept = [mix for mix in tried if mix["drop"] <= 0.001]
    assert budget["chosen"]["measured_ms"] == min(mix["measured_ms"] for mix in kept)
    worst = [one["layer"] for one in budget["sensitivities"]]
    assert set(raised) == set(worst[: len(raised)])
    assert read_ranges("b.edgekit").precisions == raised
    reasons = {
        f.what.split(" ", 1)[1]: f.reason for f in read_bundle("b.edgekit").manifest.fallbacks
    }
    assert reasons.keys() == raised.keys()
    assert all("to keep the accuracy budget" in reason for reason in reasons.values())


def test_auto_is_int8_where_that_keeps_the_budget(place, capsys):
    sets = ("--data", "c.npz", "--eval-data", "e.npz", "--max-drop", "100%")
    assert convert("-o", "b.edgekit", "--precision", "auto", *sets, "--json", "s.json") == 0
    budget = json.loads((place / "s.json").read_text())["budget"]
    assert budget["chosen"]["layers"] == {} and len(budget["tried"]) == 1
    assert budget["sensitivities"] == []


def test_a_budget_that_no_mix_keeps_says_what_the_best_was(place, capsys):
    """Here the model's own int8 input has lost what decides, and no layer can mend that."""
    sets = ("--data", "wide_c.npz", "--eval-data", "wide_e.npz", "--max-drop", "0.1%")
    before = sorted(place.iterdir())
    assert convert("-o", "b.edgekit", "--precision", "auto", *sets) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "a drop of at most 0.10 % is allowed" in last and "b.edgekit was not written" in last
    assert "best of those tried" in last
    assert sorted(place.iterdir()) == before


def test_the_search_evaluates_few_mixes_and_takes_the_cheapest(tmp_path):
    x, _ = points(64, 0)
    twin = float_twin(
        open_source(uneven(), scratch=tmp_path),
        lambda: iter([(row[None],) for row in x]),
        steps=(),
        observer="minmax",
        given=None,
        on_progress=lambda phase, done, total: None,
    )
    needed, seen = {"mixed", "bend"}, []

    def drop_of(quantized):
        raised = {name for name, _, precision in quantized.operators if precision != "int8"}
        seen.append(raised)
        return 0.0 if needed <= raised else 0.5 - 0.01 * len(raised)

    def search(max_drop):
        seen.clear()
        samples = lambda: iter([(row[None],) for row in x[:8]])  # noqa: E731
        return meet_budget(Search(twin, samples, drop_of, max_drop, lambda *event: None))

    quantized, budget = search(0.0)
    assert budget.is_met and needed <= set(budget.chosen.layers)
    assert {n for n, _, p in quantized.operators if p != "int8"} == set(budget.chosen.layers)
    worst = [one.layer for one in budget.sensitivities]
    fewest = max(map(worst.index, needed)) + 1
    assert min(len(raised) for raised in seen if needed <= raised) == fewest
    needed.add("no such layer")
    _, budget = search(0.0)
    assert not budget.is_met
    assert budget.chosen.drop == min(mix.drop for mix in budget.tried)
    assert max(map(len, seen)) < len(worst)  # all layers raised would be the float model
