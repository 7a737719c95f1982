"""The commands of examples/evaluation/README.md, as they are printed, and what it says of conditions and metrics."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

from made_clips import write_store

from transformers_eilev.evaluation import CONDITIONS, DEFAULT_METRICS, PLAIN_METRICS


ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "evaluation" / "README.md").read_text()


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    write_store(tmp_path / "clips", train=24, val=8)
    monkeypatch.chdir(tmp_path)
    for line in re.search(r"```bash\n(.*?)```", README, flags=re.DOTALL).group(1).splitlines():
        _, script, *arguments = shlex.split(line)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "eilev-synthetic-opt" in report and "video-blip-synthetic-opt" in report
    assert "narrations without their clips" in report and (tmp_path / "report" / "model_index.yaml").exists()
    assert json.loads((tmp_path / "results" / "eilev" / "in_context-2" / "results.json").read_text())["metrics"]
    assert (tmp_path / "embeddings" / "clips.png").exists()
    assert "rouge_l" in capsys.readouterr().out


def test_every_script_condition_and_metric_is_there():
    scripts = {path.name for path in (ROOT / "examples" / "evaluation").glob("*.py")}
    assert scripts == set(re.findall(r"^\| `(\w+\.py)`", README, flags=re.MULTILINE))
    named = set(re.findall(r"`([\w]+)`", README))
    # One is for the plain narrations of balanced contexts.
    assert {*CONDITIONS} - {"unseen_pair"} <= named
    assert {*DEFAULT_METRICS, *PLAIN_METRICS} <= named
