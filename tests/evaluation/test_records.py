"""Records, read and summed up."""

import json

import pytest
from made_records import make_records, record_of, write_records

from transformers_eilev.evaluation.records import find_mismatches, metrics_of, read_records, summarize


def by_run(records, metric="exact"):
    return {(cell.model, cell.condition, cell.shots): cell for cell in summarize(records, metric)}


def test_records_are_found_in_folders_once(tmp_path):
    records = make_records()
    write_records(tmp_path, records)
    found = read_records([tmp_path, tmp_path / "eilev-1", tmp_path / "eilev-1" / "in_context-2" / "results.json"])
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, records))


def test_means_are_over_seeds():
    cells = by_run(make_records())
    cell = cells["eilev", "in_context", 2]
    # 0.6 - 0.2, - 0.1, + 0.3: a variance of (0.04 + 0.01 + 0.09) / 2.
    assert (cell.mean, cell.std) == (pytest.approx(0.6), pytest.approx(0.07**0.5))
    assert (cell.min, cell.max, cell.interval, cell.low_high) == (0.4, 0.9, None, (0.4, 0.9))
    assert (cell.num_seeds, cell.num_queries, cell.num_answers, cell.counts) == (3, 10, 30, {})
    alone = cells["video-blip", "in_context", 2]
    assert (alone.mean, alone.std, alone.interval) == (0.25, None, (0.15, 0.35))
    assert alone.counts == {"empty": 3}


def test_cells_come_in_the_order_of_a_table():
    records = [
        record_of("none", "majority", shots=4),
        record_of("b", "text_only", shots=4),
        record_of("b", "top_500", shots=4),
        record_of("b", "top_100", shots=4),
        record_of("b", shots=16),
        record_of("b", shots=4),
        record_of("a", shots=4),
    ]
    assert [(cell.model, cell.condition, cell.shots) for cell in summarize(records, "exact")] == [
        ("b", "in_context", 4),
        ("b", "in_context", 16),
        ("b", "text_only", 4),
        ("b", "top_100", 4),
        ("b", "top_500", 4),
        ("a", "in_context", 4),
        ("none", "majority", 4),
    ]


def test_what_is_missing_is_said():
    records = [
        record_of(seed=0),
        record_of(seed=1, metrics={}, unavailable={"exact": "no memory", "bleu": "no library"}),
        record_of(seed=2, metrics={}, unavailable={"exact": "no memory"}, num_empty=2),
    ]
    (cell,) = summarize(records, "exact")
    assert (cell.mean, cell.num_seeds, cell.unavailable) == (0.5, 1, "in 2 of 3 seeds: no memory")
    assert (cell.counts, cell.num_answers) == ({"empty": 2}, 30)
    (cell,) = summarize(records, "bleu")
    assert (cell.mean, cell.num_seeds, cell.unavailable) == (None, 0, "no library")
    assert summarize(records, "cider") == []
    assert metrics_of([record_of(metrics={"new": {}, "bleu": {}, "exact": {}})]) == ["exact", "bleu", "new"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shots": -1}, "`shots` must be a whole number from 0 on, but is -1"),
        ({"seed": True}, "`seed` must be a whole number from 0 on, but is True"),
        ({"num_queries": 0}, "`num_queries` must be a whole number from 1 on, but is 0"),
        ({"num_empty": "3"}, "`num_empty` must be a whole number from 0 on, or null, but is '3'"),
        ({"model": ""}, "`model` must be a text, but is ''"),
        ({"metrics": []}, r"`metrics` must be an object, but is \[\]"),
        ({"metrics": {"exact": {"value": float("nan")}}}, "`metrics.exact` must have a number as `value`"),
        (
            {"metrics": {"exact": {"value": 0.5, "interval": [0.4]}}},
            "`metrics.exact` must have .* two numbers or null",
        ),
        ({"unavailable": None}, "`unavailable` must be an object, but is None"),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path, changes, message):
    write_records(tmp_path, [record_of(condition="in_context")])
    (file,) = tmp_path.rglob("results.json")
    file.write_text(json.dumps({**record_of(), **changes}))
    with pytest.raises(ValueError, match=f"in_context-0/results.json: {message}"):
        read_records([tmp_path])


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no results.json"):
        read_records([tmp_path])
    with pytest.raises(FileNotFoundError, match="There is no .*nowhere"):
        read_records([tmp_path / "nowhere"])
    for content, message in (("{", "no JSON"), ("[1]", "must be an object, but is '.1.'")):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(ValueError, match=f"results.json: {message}"):
            read_records([tmp_path])


def test_two_records_of_one_run_are_refused_with_both_files(tmp_path):
    for folder in ("first", "second"):
        write_records(tmp_path / folder, [record_of(), record_of("none", "majority", shots=1)])
    (tmp_path / "second" / "eilev-0" / "in_context-0" / "results.json").write_text(json.dumps(record_of(exact=0.6)))
    first, second = (rf"{folder}/eilev-0/in_context-0/results.json" for folder in ("first", "second"))
    with pytest.raises(ValueError, match=f"{first} and .*{second} are two records of one run: .*seed 0"):
        read_records([tmp_path])
    # What a rule says is the same beside each model.
    (tmp_path / second).unlink()
    assert [record["model"] for record in read_records([tmp_path])] == ["eilev", "none"]
    (tmp_path / "second" / "none-0" / "majority-1" / "results.json").write_text(
        json.dumps(record_of("none", "majority", shots=1, exact=0.6))
    )
    with pytest.raises(ValueError, match="two records of one run: .*model 'none'"):
        read_records([tmp_path])


def test_numbers_that_are_hard_to_compare_are_named():
    assert find_mismatches(make_records()) == []
    other = record_of(
        "video-blip", fingerprints={"queries": "others"}, settings={"metrics": {"exact": {"version": 2}}}
    )
    asked, computed = find_mismatches([record_of(), other])
    assert asked == (
        "generation of novel, clips and narrations, 0 shots, seed 0: not all were asked the same (eilev | video-blip)"
    )
    assert (
        computed
        == 'generation of novel, exact: not computed alike (eilev: {"version": 1} | video-blip: {"version": 2})'
    )
