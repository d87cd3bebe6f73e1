"""Edits against the model's own eager attention, whose weights are changed by hand."""

import sys
from dataclasses import replace

import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.probes.attention import configs
from headatlas.probes.edits.edit import Edit, edits_from_json
from headatlas.probes.edits.kind import all_kinds
from headatlas.probes.forward import edited, observe
from headatlas.probes.loading import load
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from .architectures import ARCHITECTURES
from .tiny import GROUPS, labelled, tiny

NAMES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gpt_oss", "opt",
         "deepseek_v3", "llama4", "starcoder2")  # fmt: skip
LENGTH = 21
NEEDLE = slice(4, 9)
USER = slice(12, 15)
HEADS = ["L0H1", "L1H0", "L1H3"]
EDITS = {
    "zero": Edit("zero", HEADS),
    "scale": Edit("scale", HEADS, amount=0.3),
    "mean": Edit("mean", HEADS),
    "resample": Edit("resample", HEADS),
    "first": Edit("first", HEADS),
    "identity": Edit("identity", HEADS, amount=0.4),
    "block": Edit("block", HEADS, from_group="needle"),
    "boost": Edit("boost", HEADS, from_group="needle", amount=2.5),
    "block all others": Edit("block", HEADS, from_group="not:needle+first"),
    "boost the first": Edit("boost", HEADS, from_group="first", amount=0.3),
    "boost all others": Edit("boost", HEADS, from_group="not:needle", amount=0.3),
    "boost several": Edit("boost", HEADS, from_group="first+needle", amount=2.5),
    "temperature": Edit("temperature", HEADS, amount=1.7),
    "uniform": Edit("uniform", HEADS),
    "mask": Edit("mask", HEADS, sinks=2, recent=3),
    "redistribute": Edit("redistribute", HEADS, from_group="first", to_group="needle", amount=0.6),
    "redistribute to all": Edit("redistribute", HEADS, from_group="needle"),
    "act": Edit("act", HEADS, amount=0.4, threshold=0.05),
    "force": Edit("force", HEADS, from_group="user", to_group="needle"),
    "force a share": Edit("force", HEADS, from_group="user", to_group="needle", amount=0.3),
}


def _rescaled(weights, factor, slot):
    """Weights times a factor, and the sink slot as it is, normalised again; rows of which nothing is left stay."""
    left = weights * factor
    total = left.sum(-1, keepdim=True) + slot
    return torch.where(total > 0, left / total, weights)


def by_hand(edit, weights, value, means, partner):
    """The output [batch, head, query, d] of edited weights [batch, head, query, key], in float64."""
    if edit.kind == "mean":
        return means[None, :, None].double().expand(*weights.shape[:3], -1)
    if edit.kind == "resample":
        return partner.double()
    return BY_HAND[edit.kind](edit, weights) @ value.double()


def _slot(weights):
    """What a learned sink logit takes of each row."""
    slot = (1 - weights.sum(-1, keepdim=True)).clamp(min=0)
    return torch.where(slot > 1e-4, slot, 0.0)


def _uniform(weights, keys=True):
    """The same weight for every visible key among some."""
    seen = (weights > 0) & keys
    return seen.double() / seen.sum(-1, keepdim=True).clamp(min=1)


def _redistribute(edit, weights):
    giving = NEEDLES if edit.from_group == "needle" else KEYS == 0
    return _moved(weights, giving, NEEDLES if edit.to_group else ~giving, edit.amount)


def _act(edit, weights):
    alpha = weights.sum(2) / (weights > 0).sum(2).clamp(min=1)
    sinks = ((alpha > edit.threshold) & (KEYS > 0))[:, :, None]
    return _moved(weights, sinks, ~sinks, 1 - edit.amount)


def _force(edit, weights):
    forced = _uniform(weights, NEEDLES)
    rows = (USERS | NEEDLES)[:, None]  # a needle is the user's, too
    share = edit.amount * (rows & (forced.sum(-1, keepdim=True) > 0))
    return share * forced + (1 - share) * weights


KEYS = torch.arange(LENGTH)
NEEDLES, USERS = ((part.start <= KEYS) & (part.stop > KEYS) for part in (NEEDLE, USER))
NAMED = {
    "needle": NEEDLES, "first": KEYS == 0, "not:needle": ~NEEDLES, "first+needle": NEEDLES | (KEYS == 0),
    "not:needle+first": ~(NEEDLES | (KEYS == 0)),
}  # fmt: skip
KEPT = ((KEYS < 2) | (KEYS[:, None] - KEYS < 3)).double()
BY_HAND = {
    "zero": lambda edit, p: p * 0,
    "scale": lambda edit, p: p * edit.amount,
    "first": lambda edit, p: (KEYS == 0).double().expand_as(p),
    "identity": lambda edit, p: (1 - edit.amount) * p + edit.amount * torch.eye(LENGTH).double(),
    "block": lambda edit, p: _rescaled(p, (~NAMED[edit.from_group]).double(), _slot(p)),
    "boost": lambda edit, p: _rescaled(p, 1 + (edit.amount - 1) * NAMED[edit.from_group].double(), _slot(p)),
    "temperature": lambda edit, p: _rescaled(p ** (1 / edit.amount), 1.0, _slot(p) ** (1 / edit.amount)),
    "uniform": lambda edit, p: _uniform(p),
    "mask": lambda edit, p: _rescaled(p, KEPT, _slot(p)),
    "redistribute": _redistribute,
    "act": _act,
    "force": _force,
}


def _moved(weights, giving, taking, amount):
    mass, room = ((weights * part).sum(-1, keepdim=True) for part in (giving, taking))
    factor = 1 - amount * giving + torch.where(room > 0, amount * mass / room, 0) * taking
    return torch.where(room > 0, weights * factor, weights)


_task = {}


def _by_hand(module, query, key, value, attention_mask, **options):
    """The model's own eager attention, with the heads of the task's edit done by hand."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    output, weights = eager(module, query, key, value, attention_mask, **options)
    edit, layer = _task["edit"], module.layer_idx
    chosen = list(edit.places.get(layer, ()))
    if chosen:
        wide = value.repeat_interleave(query.shape[1] // value.shape[1], 1)[:, chosen]
        means, partner = _task["means"][layer][chosen], _task["partner"][layer][:, chosen]
        made = by_hand(edit, weights[:, chosen].double(), wide, means, partner)
        output = output.clone()
        output[:, :, chosen] = made.transpose(1, 2).to(output.dtype)
    return output, weights


AttentionInterface.register("edited by hand", _by_hand)
AttentionMaskInterface.register("edited by hand", eager_mask)


def _ids(seed=3):
    return torch.randint(5, 90, (2, LENGTH), generator=torch.Generator().manual_seed(seed))


def _outputs(model, ids):
    found = observe(model, labelled(model, ids), {"output"})
    return {("text", stats.layer): stats["output"] for stats in found}


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load((ARCHITECTURES[request.param].build(), None))


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_forward_is_that_of_eager_weights_changed_by_hand(model, edit):
    if edit.kind == "act" and "Llama4" in type(model.network).__name__:
        pytest.skip("act counts all later queries of a key, also those of other chunks, as the paper does")
    batch = labelled(model, _ids(), {"needle": NEEDLE, "user": USER})
    partner = _outputs(model, _ids(4))
    means = {place: value.mean((0, 2)) for place, value in partner.items()}
    found = edited(model, batch, [edit], means=means, partner=partner).logits
    _task.update(
        edit=edit,
        means={layer: value for (_, layer), value in means.items()},
        partner={layer: value for (_, layer), value in partner.items()},
    )
    before = [(config, config._attn_implementation_internal) for config in configs(model.network)]
    try:
        for config, _ in before:
            config._attn_implementation_internal = "edited by hand"
        with torch.no_grad():
            expected = model.network(input_ids=batch.input_ids).logits
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
    plain = edited(model, batch, []).logits
    size = expected.abs().max()
    assert (found - expected).abs().max() < 2e-5 * size
    assert (plain - expected).abs().max() > 1e-3 * size, "the edit changed nothing"


IDENTITIES = (
    Edit("scale", amount=1.0), Edit("identity", amount=0.0), Edit("boost", from_group="needle", amount=1.0),
    Edit("temperature", amount=1.0), Edit("mask", sinks=0, recent=LENGTH),
    Edit("redistribute", from_group="needle", amount=0.0), Edit("act", amount=1.0),
    Edit("force", from_group="user", to_group="needle", amount=0.0),
)  # fmt: skip


@pytest.mark.parametrize("edit", IDENTITIES, ids=lambda edit: edit.kind)
def test_an_edit_that_changes_nothing_changes_nothing(edit):
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE, "user": USER})
    plain, found = edited(model, batch, []).logits, edited(model, batch, [edit]).logits
    assert (plain - found).abs().max() <= 1e-6 * plain.abs().max().clamp(min=1)


@pytest.mark.parametrize("kind", ["block", "boost", "temperature", "mask", "uniform"])
def test_rows_of_edited_weights_sum_to_one(kind):
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE})
    for stats in observe(model, batch, {"row_mass"}, edits=[replace(EDITS[kind], heads=None)]):
        assert (stats["row_mass"] - 1).abs().max() < 1e-6


def test_a_blocked_group_gets_nothing_and_the_others_share_as_before():
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE})
    plain, blocked = (
        observe(model, batch, {"group_mass"}, edits=edits, layers=lambda call: call.layer == 0)[0]["group_mass"]
        for edits in ([], [Edit("block", from_group="needle")])
    )
    needle, rest = GROUPS.index("needle"), GROUPS.index("rest")
    assert (blocked[..., needle] == 0).all() and (plain[:, :, 10:, needle] > 0).any()
    torch.testing.assert_close(blocked[..., rest], torch.ones_like(blocked[..., rest]))


def test_all_others_leaves_padding_out_on_either_side():
    model = tiny()
    ids = _ids()
    alone = edited(model, labelled(model, ids[:1, :15]), [Edit("boost", from_group="not:first", amount=0.2)]).logits
    for real in (torch.arange(LENGTH) < 15, torch.arange(LENGTH) >= LENGTH - 15):
        padded = torch.zeros_like(ids)
        padded[:, real] = ids[:, :15]
        mask = real.long().expand(2, -1)
        both = labelled(model, padded, attention_mask=mask)
        found = edited(model, both, [Edit("boost", from_group="not:first", amount=0.2)]).logits
        torch.testing.assert_close(found[:1, real], alone, rtol=0, atol=1e-4)


def test_a_row_of_blocked_keys_alone_keeps_its_weights():
    model = tiny()
    batch = labelled(model, _ids(), {"needle": slice(0, 6)})
    plain, blocked = (
        observe(model, batch, {"entropy"}, edits=edits, layers=lambda call: call.layer == 0)[0]["entropy"]
        for edits in ([], [Edit("block", from_group="needle")])
    )
    torch.testing.assert_close(plain[:, :, :6], blocked[:, :, :6], rtol=1e-3, atol=1e-3)
    assert (plain[:, :, 6:] - blocked[:, :, 6:]).abs().max() > 0.1


@pytest.mark.parametrize(("edit", "kept", "every"), [
    (Edit("block", HEADS, from_group="first"), 3 * 1, 3 * LENGTH),  # the first token sees itself alone
    (Edit("block", HEADS, from_group="first+needle"), 3 * 1, 3 * LENGTH),
    (Edit("redistribute", HEADS, from_group="first", to_group="needle"), 3 * NEEDLE.start, 3 * LENGTH),
    (Edit("force", ["L0H1"], from_group="first", to_group="needle"), 1, LENGTH),
    (Edit("block", from_group="first", by_prompt={"0": ["L0H1"], "1": ["L0H1", "L1H0"]}), [1, 2], [LENGTH, 2 * LENGTH]),
    (Edit("boost", HEADS, from_group="first", amount=0.5), 0, 0),
], ids=lambda one: one.kind if isinstance(one, Edit) else "")  # fmt: skip
def test_rows_without_another_key_are_counted(edit, kept, every):
    model, counted = tiny(), torch.zeros(2, 2)
    edited(model, labelled(model, _ids(), {"needle": NEEDLE, "user": USER}), [edit], kept=counted)
    expected = torch.tensor([kept, every]).reshape(2, -1).expand(2, 2).T
    assert torch.equal(counted, expected.float())


def test_a_zeroed_head_is_its_slice_zeroed_before_the_output_projection():
    model = tiny()
    batch = labelled(model, _ids())
    found = edited(model, batch, [Edit("zero", ["L1H2"])]).logits
    projection = model.network.model.layers[1].self_attn.o_proj

    def silence(_, inputs):
        (hidden,) = inputs
        hidden = hidden.clone()
        hidden[..., 16:24] = 0
        return (hidden,)

    with projection.register_forward_pre_hook(silence), torch.no_grad():
        expected = model.network(input_ids=batch.input_ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_edits_add_up_in_their_order():
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE})
    twice = edited(model, batch, [Edit("scale", ["L0H1"], amount=2.0), Edit("scale", ["L0H1"], amount=0.5)]).logits
    torch.testing.assert_close(twice, edited(model, batch, []).logits, rtol=0, atol=1e-5)
    both = [Edit("block", ["L0H1"], from_group="needle"), Edit("scale", ["L0H1"], amount=0.5)]
    other = [Edit("scale", ["L0H1"], amount=0.5), Edit("block", ["L0H1"], from_group="needle")]
    torch.testing.assert_close(edited(model, batch, both).logits, edited(model, batch, other).logits)


@pytest.mark.parametrize("other", [Edit("uniform"), Edit("temperature", amount=30.0), Edit("mask", sinks=0, recent=9)])
def test_a_blocked_group_stays_blocked_whatever_comes_after(other):
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE})
    for edits in ([Edit("block", from_group="needle"), other], [other, Edit("block", from_group="needle")]):
        for stats in observe(model, batch, {"group_mass"}, edits=edits):
            rows = stats["group_mass"][:, :, 16:]
            assert rows[..., GROUPS.index("needle")].max() == 0 and (rows.sum(-1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("wide", [EDITS["block"], EDITS["boost"]], ids=lambda one: one.kind)
@pytest.mark.parametrize("name", [name for name in EDITS if name not in ("mean", "resample", "block", "boost")])
def test_kinds_go_together(wide, name):
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE, "user": USER})
    edits = [replace(one, heads=["L0H1"]) for one in (wide, EDITS[name])]
    found = edited(model, batch, edits).logits
    assert found.isfinite().all() and not torch.allclose(found, edited(model, batch, []).logits)


def test_a_blocked_key_gets_nothing_however_sharp_attention_is():
    model = tiny()
    batch = labelled(model, _ids(), {"needle": NEEDLE})
    sharp = [Edit("temperature", amount=0.02), Edit("block", from_group="needle")]
    for stats in observe(model, batch, {"group_mass"}, edits=sharp):
        assert stats["group_mass"][:, :, 10:, GROUPS.index("needle")].max() == 0


def test_an_edit_survives_json():
    for edit in EDITS.values():
        assert Edit.from_card(edit.card()) == edit
    assert edits_from_json('[{"kind": "zero", "heads": ["L1H0"]}]') == [Edit("zero", ["L1H0"])]


def test_every_kind_is_tried():
    assert {edit.kind for edit in EDITS.values()} | {"streaming"} == set(all_kinds())
    assert all(kind.summary for kind in all_kinds().values())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Edit("zeero"), r"unknown edit 'zeero'. Did you mean 'zero'"),
        (lambda: Edit("zero", amount=1.0), "zero takes no parameters; came amount=1.0"),
        (
            lambda: Edit("boost", from_group="needle"),
            "boost needs amount, a number that says how much; it takes from_group, amount",
        ),
        (lambda: Edit("boost", from_group="needle", amount=0.0), "expected an amount above 0, came 0"),
        (lambda: Edit("identity", amount=2.0), "expected an amount from 0 to 1, came 2"),
        (
            lambda: Edit("mask", sinks=-3, recent=4),
            "expected sinks of 0 or more and recent of 1 or more, came -3 and 4",
        ),
        (lambda: Edit("mask", sinks=0, recent=0), "expected sinks of 0 or more and recent of 1 or more, came 0 and 0"),
        (lambda: Edit("zero", ["L0"]), "expected a head like L5H1"),
        (lambda: Edit("zero", ["L0H1"], by_prompt={"a": ["L0H2"]}), "expected heads for all prompts or by_prompt, not"),
        (lambda: Edit("zero", phase="later"), "expected a phase of both, prefill, decode; came 'later'"),
        (lambda: edits_from_json("[{"), "expected a JSON list of edits"),
    ],
)
def test_a_wrong_edit_says_what_is_wrong(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("zero", ["L1H4"]), "there is no head L1H4; layer 1 has 4 heads, counted from 0"),
        (Edit("zero", ["L2H0"]), "there is no head L2H0; there are 2 layers, counted from 0"),
        (Edit("block", from_group="image"), "no token is labelled 'image' here; the prompts have rest, needle"),
        (Edit("block", from_group="not:image"), "no token is labelled 'image' here"),
        (Edit("block", from_group="not:rest+needle"), "no token is left for 'not:rest[+]needle' here"),
        (Edit("mean"), "edit mean needs `means` beside the prompt"),
        (Edit("resample"), "edit resample needs `partner` beside the prompt"),
    ],
)
def test_what_a_model_or_a_prompt_does_not_have_is_refused(edit, said):
    model = tiny()
    with pytest.raises(UserError, match=said):
        edited(model, labelled(model, _ids(), {"needle": NEEDLE}), [edit])


def test_prompts_may_have_heads_of_their_own():
    model = tiny()
    batch = labelled(model, torch.cat([_ids(), _ids(5)]), {"needle": NEEDLE})
    edit = Edit("block", from_group="needle", by_prompt={"1": ["L1H2", "L0H0"], "3": ["L0H3"], "not here": ["L0H1"]})
    assert Edit.from_card(edit.card()) == edit and edit.card()["by_prompt"]["1"] == ["L0H0", "L1H2"]
    assert edit.spelled == "block(from_group=needle) of heads of 3 prompts"
    plain, found = observed(model, batch, []), observed(model, batch, [edit])
    for row, heads in enumerate([[], ["L0H0", "L1H2"], [], ["L0H3"]]):
        expected = observed(model, batch, [Edit("block", heads, from_group="needle")]) if heads else plain
        for one, other in zip(found, expected, strict=True):
            if heads:
                torch.testing.assert_close(one[row], other[row], rtol=0, atol=1e-6)
            else:
                assert torch.equal(one[row], other[row])
    for edits in ([edit], [Edit("scale", ["L0H1"], amount=1.0), edit]):
        both = edited(model, batch, [*edits, Edit("zero", by_prompt={"1": ["L0H0"]})]).logits
        alone = edited(model, batch, [Edit("block", ["L1H2"], from_group="needle"), Edit("zero", ["L0H0"])]).logits
        torch.testing.assert_close(both[1], alone[1], rtol=0, atol=1e-5)


def observed(model, batch, edits):
    """Logits and statistics of an edited forward, the prompts first."""
    stats = observe(model, batch, {"entropy", "group_mass"}, edits=edits)
    return [edited(model, batch, edits).logits, *(one[name] for one in stats for name in ("entropy", "group_mass"))]


def test_answering_names_the_tokens_whose_next_is_of_the_answer():
    """Of two prompts of different lengths: in the first layer, those rows alone are forced, and as every row would be."""
    model = tiny()
    ids = torch.randint(5, 90, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    real = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [17]])
    batch = labelled(model, ids.masked_fill(~real, 0), {"needle": NEEDLE, "answer": USER}, attention_mask=real)
    rows = batch.answering()
    assert rows[0].nonzero().flatten().tolist() == [11, 12, 13]
    forced = (Edit("force", ["L0H1"], from_group=of, to_group="needle") for of in ("answering", "not:first"))
    plain, found, every = (
        observe(model, batch, {"output"}, edits=edits)[0]["output"][:, 1] for edits in ((), *([one] for one in forced))
    )
    torch.testing.assert_close(found[rows], every[rows])
    torch.testing.assert_close(found[~rows], plain[~rows])
    assert (found[rows] - plain[rows]).abs().max() > 1e-3
    with pytest.raises(UserError, match="no token is labelled 'answer' here"):
        observe(model, labelled(model, ids, {"needle": NEEDLE}), {"output"},
                edits=[Edit("force", ["L0H1"], from_group="answering", to_group="needle")])  # fmt: skip
