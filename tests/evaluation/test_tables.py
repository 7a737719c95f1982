"""Tables, from numbers that are known."""

import pytest
from made_records import make_records, record_of

from transformers_eilev.evaluation.published import PAPER_FIGURES
from transformers_eilev.evaluation.records import summarize
from transformers_eilev.evaluation.tables import make_table


def test_a_table_has_rows_of_models_and_columns_of_shots():
    assert make_table(summarize(make_records(), "exact")).splitlines() == [
        "**Exact narrations (share)**, generation of novel, by number of shots:",
        "",
        "| model | condition | 0 | 2 |",
        "| --- | --- | ---: | ---: |",
        "| eilev | clips and narrations | 0.00 ± 0.00 | 0.60 ± 0.26 |",
        "| eilev | clips exchanged among the narrations |  | 0.13 [0.03, 0.23] |",
        "| video-blip | clips and narrations |  | 0.25 [0.15, 0.35] |",
        "| no model | most frequent verb and noun of the context |  | 0.45 [0.35, 0.55] |",
        "",
        "Queries that stand out:",
        "",
        "- video-blip, clips and narrations, 2 shots: 3 empty, of 10",
    ]
    assert "0.1300 [0.0300, 0.2300]" in make_table(summarize(make_records(), "exact"), digits=4)


def test_what_is_not_computed_stands_below():
    missing = {"metrics": {}, "unavailable": {"exact": "no library"}}
    records = [record_of(shots=1), record_of(shots=2, **missing), record_of(shots=4, **missing)]
    table = make_table(summarize(records, "exact"))
    assert "| eilev | clips and narrations | 0.50 [0.40, 0.60] | – | – |" in table
    assert table.endswith("Not computed:\n\n- eilev, clips and narrations, 2, 4 shots: no library\n")
    nothing = make_table(summarize(records[1:], "exact"))
    assert "|" not in nothing
    assert "- everywhere: no library" in nothing
    assert make_table(summarize(records, "bleu")) == ""


def test_published_figures_are_marked():
    metrics = {"sts_bi_encoder": {"value": 0.5, "interval": None}}
    cells = summarize([record_of("a|b", shots=4, metrics=metrics)], "sts_bi_encoder")
    lines = make_table(cells, published=PAPER_FIGURES["ego4d-held-out"], digits=3).splitlines()
    assert lines[2:6] == [
        "| model | condition | 0 | 1 | 2 | 4 | 8 | 16 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| a\\|b | clips and narrations |  |  |  | 0.500 |  |  |",
        "| EILEV-OPT † | clips and narrations | 0.328 | 0.550 | 0.571 | 0.628 | 0.674 | 0.694 |",
    ]
    assert any(line.startswith("† Published figures, of other models on other clips (Ego4D") for line in lines)
    # They are of one metric.
    assert "†" not in make_table(summarize(make_records(), "exact"), published=PAPER_FIGURES["ego4d-held-out"])


def test_a_table_is_of_one_metric():
    cells = summarize(make_records(), "exact")
    with pytest.raises(ValueError, match="must be of one task, data set and metric, but are of .*rare"):
        make_table([*cells, *summarize([record_of(dataset="rare")], "exact")])
