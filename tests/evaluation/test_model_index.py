"""What a model card says, read back by huggingface_hub."""

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from made_records import make_records, record_of

from transformers_eilev.evaluation.model_index import make_eval_results, make_model_index


METRICS = {
    "rouge_l": {"value": 0.61234, "interval": None},
    "noun_top_5": {"value": 0.9, "interval": None},
    "cider": {"value": 1.5, "interval": [1.2, 1.81]},
}


def test_a_card_has_every_number_with_shots_and_condition():
    records = [*make_records(), record_of(shots=1, dataset="Rare ones", metrics=METRICS)]
    text = make_model_index(records, "eilev", card_name="mine", dataset_ids={"novel": "me/novel-clips"})
    card = ModelCard(f"---\nlicense: mit\n{text}---\n# Card\n")
    name, results = model_index_to_eval_results(yaml.safe_load(text)["model-index"])
    assert name == card.data.model_name == "mine"
    assert card.data.eval_results == results
    expected = make_eval_results(records, "eilev", dataset_ids={"novel": "me/novel-clips"})
    assert sorted(results, key=repr) == sorted(expected, key=repr)

    found = {(result.dataset_name, result.metric_name): result for result in results}
    assert len(found) == len(results) == 6
    best = found["novel", "Exact narrations (share), in_context, 2 shots"]
    assert (best.task_type, best.dataset_type) == ("video-text-to-text", "me/novel-clips")
    assert (best.metric_type, best.metric_value) == ("exact_match", 0.6)
    expected = {"condition": "in_context", "shots": 2, "num_seeds": 3, "num_queries": 10, "std": 0.2646}
    assert best.metric_args == expected
    rouge = found["Rare ones", "ROUGE-L F1, in_context, 1 shot"]
    assert (rouge.metric_type, rouge.metric_value, rouge.dataset_type) == ("rouge", 0.6123, "rare-ones")
    nouns = found["Rare ones", "Top-5 accuracy of nouns (share), in_context, 1 shot"]
    assert nouns.metric_type == "accuracy"
    assert nouns.metric_args.items() >= {"of": "noun", "top_k": 5}.items()
    assert found["Rare ones", "CIDEr, in_context, 1 shot"].metric_args["interval"] == [1.2, 1.81]


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="No record is of the model 'other', but of .*'video-blip'"):
        make_model_index(make_records(), "other")
    with pytest.raises(ValueError, match=r"`dataset_ids` names 'rare', which is none of the data sets \['novel'\]"):
        make_model_index(make_records(), "eilev", dataset_ids={"rare": "me/rare"})
    records = [record_of(dataset="a b"), record_of(dataset="a-b")]
    with pytest.raises(ValueError, match="'a b' and 'a-b' would both have the id 'a-b': set it"):
        make_model_index(records, "eilev")
    assert "x/y" in make_model_index(records, "eilev", dataset_ids={"a b": "x/y"})
