"""Where the answer's queries read, against its definition in loops over float64 maps, and through whole models."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from headatlas.data.errors import NoTemplateError
from headatlas.data.groups import SLOTS
from headatlas.kernels.inputs import AttentionInputs
from headatlas.kernels.reference import materialised_logits
from headatlas.probes.batching import batch
from headatlas.probes.catalog import all_probes, select
from headatlas.probes.forward import observe
from headatlas.probes.library.allocation import PARTS, SHARES
from headatlas.probes.measure import measure, plan_runs
from headatlas.probes.trial import NAMES, example_inputs, read
from headatlas.probes.worked import stats_of

from ..data.tokenizers_offline import word_level
from .tiny import HEADS, LAYERS, tiny, uniform

INPUTS = example_inputs(seed=5)
PROBES = all_probes()
USER = ("user", "needle", "distractor", "subject", *SLOTS)


def head_map(inputs: AttentionInputs, example: int, head: int) -> np.ndarray:
    logits, visible = materialised_logits(inputs)
    return logits.masked_fill(~visible, -torch.inf).softmax(-1)[example, head].numpy()


def labels_of(inputs: AttentionInputs, example: int) -> list[str]:
    return [NAMES[label] for label in inputs.labels("key")[example].tolist()]


def asking(labels):
    return [i for i in range(len(labels) - 1) if labels[i + 1] == "answer"]


def mass(p, labels, queries, members):
    """Mean over queries of the mass on members, NaN where no key is one."""
    keys = [j for j, label in enumerate(labels) if label in members]
    return np.mean([sum(p[i, j] for j in keys) for i in queries]) if keys else math.nan


def group_mass(p, labels):
    folded = ["user" if label in SLOTS else label for label in labels]
    return [mass(p, folded, range(len(p)), {name}) for name in PARTS]


def answer_allocation(p, labels):
    named = ("system", "assistant", "template", "answer", "bos", "separator")
    sets = {name: {name} for name in named} | {"user": set(USER)}
    sets["rest"] = set(NAMES) - set().union(*sets.values())
    return [mass(p, labels, asking(labels), sets[name]) for name in SHARES]


def context_dependency(p, labels):
    return [mass(p, labels, [i for i, label in enumerate(labels) if label == "answer"], set(USER))]


def slot_mass(p, labels):
    place, last = [], None
    for label in labels:
        last = label if label in SLOTS else last
        place.append(last if label == "needle" or label in SLOTS else None)
    homes = {place[j] for j, label in enumerate(labels) if label == "needle"}
    return [math.nan if len(homes) > 1 and slot in homes else mass(p, place, asking(labels), {slot}) for slot in SLOTS]


@pytest.mark.parametrize(
    "oracle", [group_mass, answer_allocation, context_dependency, slot_mass], ids=lambda f: f.__name__
)
def test_a_probe_is_its_definition(oracle):
    values = read(PROBES[oracle.__name__], INPUTS).values
    for example in range(2):
        for head in range(4):
            expected = oracle(head_map(INPUTS, example, head), labels_of(INPUTS, example))
            assert values[example, head].tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6, nan_ok=True)


def relabelled(*blocks: tuple[str, int]) -> AttentionInputs:
    """The trial call with other labels: blocks of (label, tokens)."""
    row = torch.tensor([NAMES.index(name) for name, count in blocks for _ in range(count)], dtype=torch.int8)
    labels = row.expand(INPUTS.shape[0], -1)
    return dataclasses.replace(INPUTS, key_groups=labels, query_groups=labels)


PERMUTED = relabelled(
    ("bos", 1), ("user", 5), ("slot1", 20), ("slot2", 8), ("needle", 4), ("slot2", 8), ("slot3", 20), ("user", 16), ("answer", 8)
)  # fmt: skip


def test_the_needle_counts_to_the_slot_it_stands_in():
    values = read(PROBES["slot_mass"], PERMUTED).values
    needle = read(PROBES["needle_mass"], PERMUTED).values
    for head in range(4):
        p = head_map(PERMUTED, 1, head)
        rows = p[81:89]  # the eight answer tokens stand at 82 to 89
        whole = [rows[:, 6:26].sum(1).mean(), rows[:, 26:46].sum(1).mean(), rows[:, 46:66].sum(1).mean()]
        assert values[1, head].tolist() == pytest.approx([*whole, *[math.nan] * 3], rel=2e-5, nan_ok=True)
        assert needle[1, head, 0].item() == pytest.approx(rows[:, 34:38].sum(1).mean(), rel=2e-5)


def test_slots_without_a_needle_and_a_needle_outside_of_them():
    plain = relabelled(("bos", 1), ("slot1", 40), ("slot2", 40), ("answer", 9))
    outside = relabelled(("bos", 1), ("needle", 4), ("slot1", 36), ("slot2", 40), ("answer", 9))
    for inputs in (plain, outside):
        p, labels = head_map(inputs, 0, 0), labels_of(inputs, 0)
        expected = [mass(p, labels, asking(labels), {slot}) for slot in SLOTS]
        assert read(PROBES["slot_mass"], inputs).values[0, 0].tolist() == pytest.approx(expected, rel=2e-5, nan_ok=True)


def test_a_needle_in_two_slots_leaves_both_undefined_and_the_third_as_it_is():
    torn = relabelled(
        ("bos", 1), ("slot1", 20), ("needle", 3), ("slot2", 20), ("needle", 3), ("slot3", 34), ("answer", 9)
    )
    values = read(PROBES["slot_mass"], torn).values
    p, labels = head_map(torn, 0, 0), labels_of(torn, 0)
    assert values[0, 0, :2].isnan().all()
    assert values[0, 0, 2].item() == pytest.approx(mass(p, labels, asking(labels), {"slot3"}), rel=2e-5)


def test_shares_of_an_answer_add_up_to_one():
    for inputs in (INPUTS, PERMUTED):
        values = read(PROBES["answer_allocation"], inputs).values
        assert values.nansum(-1).flatten().tolist() == pytest.approx([1.0] * 12, abs=1e-5)


def test_group_masses_add_up_to_one_with_slots_too():
    values = read(PROBES["group_mass"], PERMUTED).values
    assert values.nansum(-1).flatten().tolist() == pytest.approx([1.0] * 12, abs=1e-5)


def test_context_dependency_reads_the_answers_own_tokens_and_the_paper_takes_the_highest_head_at_each():
    first = [[1, 0, 0, 0], [0.4, 0.6, 0, 0], [0.25, 0.75, 0, 0], [0.5, 0.25, 0.25, 0]]
    second = [[1, 0, 0, 0], [0.9, 0.1, 0, 0], [0.75, 0.25, 0, 0], [0, 1, 0, 0]]
    one = PROBES["context_dependency"]
    stats = stats_of(torch.tensor([[first, second]]), one.needs, groups=["template", "user", "answer", "answer"])
    assert one.measure(stats).values[0, :, 0].tolist() == [0.5, 0.625]
    lists = one.positions(stats)[0, :, :, 0]  # [head, token], as a run keeps them
    assert np.nanmean(np.max(lists.numpy(), axis=0)) == 0.875  # (0.75 + 1) / 2: no head has it by itself


def test_without_an_answer_or_a_user_there_is_nothing_to_read():
    silent = relabelled(("bos", 1), ("slot1", 40), ("slot2", 49))
    for name in ("answer_allocation", "context_dependency", "slot_mass"):
        reading = read(PROBES[name], silent)
        assert reading.values.isnan().all()
        assert (reading.n_queries == 0).all()
    alone = relabelled(("bos", 1), ("system", 80), ("answer", 9))
    assert read(PROBES["context_dependency"], alone).values.isnan().all()


def test_a_model_with_equal_weights_gives_each_slot_its_share_of_the_visible_keys():
    names = ("rest", "bos", "answer", "needle", "padding", "slot1", "slot2", "slot3")
    row = [1, *[5] * 6, *[6] * 3, 3, *[6] * 2, *[7] * 8, 0, *[2] * 2]
    model = uniform()
    made = batch(model, torch.arange(3, 3 + len(row))[None], groups=torch.tensor([row]), group_names=names)
    stats = observe(model, made, needs={"group_mass", "visible_keys"})[0]
    seen = (22, 23)  # keys that the queries before the two answer tokens see
    expected = [np.mean([size / keys for keys in seen]) for size in (6, 6, 8)]
    found = PROBES["slot_mass"].measure(stats).values[0, 0].tolist()
    assert found == pytest.approx([*expected, *[math.nan] * 3], rel=1e-5, nan_ok=True)


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory):
    """Every allocation probe on conversations with and without a template, of a random model with a template."""
    model = tiny(tokenizer=word_level(), vocab_size=40, max_position_embeddings=400)
    return measure(
        model, "answer_allocation,context_dependency", "chat", examples=6, store=tmp_path_factory.mktemp("runs")
    )


def test_a_run_splits_conversations_by_template_and_only_one_side_has_template_mass(chat_run):
    assert set(chat_run.heads("context_dependency")["stratum"]) == {
        "length=128", "length=128;template=no", "length=128;template=yes",
    }  # fmt: skip
    heads = chat_run.heads("answer_allocation", part="template")
    assert set(heads["stratum"]) == {"length=128", "length=128;template=yes"}
    rows = chat_run.rows("answer_allocation")
    sums = rows.groupby(["example", "layer", "head"])["value"].sum()
    assert sums.to_numpy() == pytest.approx(np.ones(6 * LAYERS * HEADS), abs=1e-5)


def test_the_papers_number_is_had_from_the_lists_a_run_keeps(chat_run):
    lists = chat_run.positions("context_dependency", example=0)
    papers = np.nanmean(np.max(np.stack(lists["values"]), axis=0))
    rows = chat_run.rows("context_dependency")
    assert papers > rows[rows["example"] == 0]["value"].max()


def test_a_run_over_slots_has_each_slot_in_each_stratum(tmp_path):
    model = tiny(tokenizer=word_level(), vocab_size=40, max_position_embeddings=600)
    run = measure(model, "slot_mass,needle_mass", "slots:documents=3", examples=6, store=tmp_path)
    heads = run.heads("slot_mass")
    cells = {f"length=256;slot={slot}" for slot in (1, 2, 3)} | {"length=256"}
    assert set(zip(heads["part"], heads["stratum"], strict=True)) == {
        (f"slot{n}", cell) for n in (1, 2, 3) for cell in cells
    }
    assert set(run.heads("needle_mass", part="needle")["stratum"]) == cells
    slots, needle = run.rows("slot_mass"), run.rows("needle_mass")
    home = slots[slots["part"] == "slot" + slots["example"].map(lambda k: str(k % 3 + 1))]
    both = home.merge(needle, on=["example", "layer", "head"])
    assert len(both) == 6 * LAYERS * HEADS and (both["value_x"] > both["value_y"]).all()


def test_a_model_without_a_template_is_measured_on_all_but_conversations(tmp_path):
    model = tiny(tokenizer=word_level(template=None), vocab_size=40, max_position_embeddings=600)
    plans = plan_runs(model, select("entropy,answer_allocation,slot_mass"), None, examples=2)
    assert [plan.data.name for plan in plans] == ["text", "slots"]
    assert "answer_allocation" in {one.name for one in plans[1].probes}
    assert plans[0].skipped["answer_allocation"].startswith("chat: expected a tokenizer with a chat template")
    with pytest.raises(NoTemplateError, match="chat:template=no"):
        measure(model, "entropy,answer_allocation", examples=2, store=tmp_path)
    with pytest.raises(NoTemplateError, match="chat:template=no"):
        plan_runs(model, select("context_dependency"), None, examples=2)


def test_the_first_token_after_padding_follows_no_token_that_looks_like_it():
    """Padding on the left with the id 5, which the text says too: the key after it is no induction key."""
    names, ids = ("rest", "repeat"), [5, 6, 7, 5, 6, 7]
    model, one = tiny(), PROBES["induction"]
    labels = torch.tensor([[0, 0, 0, 1, 1, 1]])
    plain = batch(model, torch.tensor([ids]), groups=labels, group_names=names)
    real = torch.tensor([[False, False, *[True] * 6]])
    padded = batch(
        model, torch.tensor([[5, 5, *ids]]), attention_mask=real, group_names=names,
        groups=torch.nn.functional.pad(labels, (2, 0)),
    )  # fmt: skip
    alone, beside = (one.measure(observe(model, made, needs=one.needs)[0]).values for made in (plain, padded))
    assert beside.flatten().tolist() == pytest.approx(alone.flatten().tolist(), rel=1e-4)
