"""What verbs refuse before torch is imported: the same words as ever, in a second rather than ten."""

import subprocess
import sys

import pytest
from headatlas.probes.early import SCORE_NAMES
from headatlas.probes.edits.kind import REQUIRED, all_kinds
from headatlas.probes.scores import SCORES

BARRED = """
import sys
for name in {barred!r}:
    sys.modules[name] = None
from headatlas.__main__ import main
sys.exit(main({words!r}))
"""
MODEL = "organism:pico-lm"


def refused(*words, barred=("torch", "transformers"), cwd=None):
    """The one line that a verb refuses with, where these packages can't be imported."""
    code = BARRED.format(barred=barred, words=list(words))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("edit", MODEL, "--kind", "zeero"), "unknown edit 'zeero'. Did you mean 'zero'?"),
        (("edit", MODEL, "--kind", "boost"), "edit boost needs amount"),
        (("edit", MODEL, "--kind", "identity", "--amount", "2"), "expected an amount from 0 to 1, came 2"),
        (("edit", MODEL, "--heads", "L1X0"), "expected a head like L5H1"),
        (("edit", MODEL, "--heads", ""), "--heads: expected heads like L5H1,L6H0, came an empty word"),
        (("edit", MODEL, "--seed", "-1"), "expected a whole number of 0 or more; came '-1'"),
        (("edit", "nofolder/"), "model 'nofolder/': expected a hub id, a folder with config.json"),
        (("learn", MODEL, "--label", "label", "--penalty", "0"), "expected a number above 0; came '0'"),
        (("gates", MODEL, "--price", "-1"), "expected a number of 0 or more; came '-1'"),
        (("bench", "nope"), "unknown table 'nope'. Expected some of kernels, model, edits"),
        (("edit", MODEL, "--heads", "L9H9"), "there is no head L9H9; there are 6 layers"),
        (("edit", MODEL, "--heads", "L0H9"), "there is no head L0H9; layer 0 has 8 heads"),
        (("edit", MODEL, "--spare", "L9H0"), "--spare: there is no head L9H0"),
        (("edit", MODEL, "--data", "nosuch"), "unknown data set 'nosuch'"),
        (("edit", MODEL, "--data", "needle:lenths=5"), "has no parameter 'lenths'. Did you mean 'lengths'?"),
        (("edit", MODEL, "--data", "none.jsonl"), "none.jsonl cannot be read"),
        (("edit", MODEL, "--from", "latest:retrieval:top=3", "--store", "nowhere"), "there is no store at nowhere"),
        (("edit", MODEL, "--kind", "block", "--from-group", "needel"), "unknown token group 'needel'. Did you mean"),
        (
            ("edit", MODEL, "--kind", "block", "--from-group", "needle", "--data", "text"),
            "no token of 'text' is 'needle'; expected one of its labels (no labels) or 'first'",
        ),
        (("edit", "organism:nope"), "no organism is called 'nope'"),
        (("edit", "./no/such/folder"), "model './no/such/folder': expected a hub id, a folder with config.json"),
        (("edit", MODEL, "--dtype", "flaot32"), "unknown dtype 'flaot32'. Did you mean 'float32'?"),
        (("budget", MODEL, "latest", "--kind", "zeero"), "unknown edit 'zeero'"),
        (("budget", MODEL, "latest", "--score", "exact"), "unknown score 'exact'. Did you mean 'exact_match'?"),
        (("budget", MODEL, "latest", "--store", "nowhere"), "there is no store at nowhere"),
        (("tune", MODEL, "gredy"), "unknown method 'gredy'. Did you mean 'greedy'?"),
        (("tune", MODEL, "greedy", "--kind", "zeero"), "unknown edit 'zeero'"),
        (("tune", MODEL, "greedy", "--goal", "good"), "expected a goal of better, worse"),
        (("tune", MODEL, "act", "--grid", "1"), "act takes --amount, --threshold, --leave-out; came --grid"),
        (("tune", MODEL, "pasta", "--group", "slot9", "--data", "secrets"), "pasta: unknown token group 'slot9'"),
        (("tune", MODEL, "pasta", "--heads", "L7H0"), "pasta: there is no head L7H0"),
        (("gates", MODEL, "--data", "text"), "gates are trained on answers: no token of 'text' is 'answer'"),
        (("learn", MODEL, "--data", "nosuch", "--label", "a"), "unknown data set 'nosuch'"),
        (("learn", MODEL, "--data", "text", "--label", "domain", "--at", "answer"), "--at answer"),
        (("measure", MODEL, "--data", "needle:lenths=5"), "has no parameter 'lenths'"),
        (("measure", MODEL, "--probes", "nosuch"), "unknown probe 'nosuch'"),
        (("measure", MODEL, "--probes", "entropie"), "unknown probe 'entropie'. Did you mean 'entropy'?"),
    ],
)
def test_a_refusal_needs_no_torch(words, said, tmp_path):
    assert said in refused(*words, cwd=tmp_path)


def test_a_probe_that_the_data_cannot_have_needs_no_model(tmp_path):
    said = refused("measure", MODEL, "--probes", "retrieval", "--data", "text", barred=("transformers",), cwd=tmp_path)
    assert "retrieval: needs tokens labelled needle, answer; data set 'text' has no labels" in said


def test_the_scores_that_are_known_early_are_those_there_are():
    assert tuple(SCORES) == SCORE_NAMES


def test_kinds_are_read_as_they_are_declared():
    kinds = all_kinds()
    assert [one for one in kinds if not callable(kinds[one].apply)] == []
    assert {name for name, one in kinds.items() if one.keeps} == {"block", "redistribute", "force"}
    force = kinds["force"]
    assert (force.level, force.takes["amount"], force.takes["to_group"]) == ("output", 1.0, REQUIRED)
    assert force.summary.startswith("The queries of `from_group` put a share")
    assert kinds["streaming"].needs == "rotary" and kinds["streaming"].check is not None
