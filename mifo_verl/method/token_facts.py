"""Facts of the next token's distribution, which selectors and losses ask for by name (``needs``).

``entropy``: H_t = -sum_v p_v log p_v in nats (MIFO section 3, token selection). ``top_mass:K``: the probability of the
K likeliest tokens together. ``top_entropy:K``: the entropy of those K, renormalised, in nats.
Beside them a part may ask for facts that no logits of the same pass give (``GIVEN``): ``progress``, the share of the
run's steps that are finished; ``teacher_log_prob``, log p of the token by the model that wrote the demonstration, a
column of the data; ``log_prob_before``, log p of the token by the policy before the SFT phase.
Shapes: N tokens, V vocabulary.
"""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from mifo_verl.method.part import Part
from mifo_verl.types import Problem, RunFacts

PROGRESS, TEACHER, BEFORE = "progress", "teacher_log_prob", "log_prob_before"
GIVEN = frozenset({PROGRESS, TEACHER, BEFORE})


def facts_of_logits(needs: Iterable[str]) -> set[str]:
    """Those of the names that ``token_facts`` knows."""
    kinds = [(name, *name.partition(":")[::2]) for name in needs]
    return {
        name
        for name, kind, number in kinds
        if name == "entropy" or (kind in ("top_mass", "top_entropy") and number.isdigit() and int(number) >= 1)
    }


def unknown_facts(part: Part, facts: RunFacts) -> Iterable[Problem]:
    """What a part needs and nobody gives, or not in this run."""
    for name in sorted(part.needs - facts_of_logits(part.needs) - GIVEN):
        known = ", ".join(sorted(GIVEN))
        rule = f"a part whose needs are entropy, {known}, top_mass:K or top_entropy:K, of the K likeliest tokens"
        yield Problem(part.group.replace("/", "."), f"{part.name} (needs {name})", rule, "correct its needs")
    if BEFORE in part.needs and not facts.has_sft_phases:
        rule = "beside SFT phases, which it compares with the policy before them, and mifo.schedule has none"
        yield Problem(
            part.setting("name"), part.name, rule, f"choose a mifo/schedule with them, or another {part.group}"
        )


@torch.no_grad()
def token_facts(logits_NV: Tensor, names: Collection[str], chunk_tokens: int = 1024) -> dict[str, Tensor]:
    """fact_N of every name, float32, over the full vocabulary at temperature 1, without gradient.

    The logits may be half precision: sums are float32, taken ``chunk_tokens`` tokens at a time, so that no full
    float32 copy of the logits exists (at V = 152k a chunk of 1,024 tokens is 0.6 GB, and two live at once).
    """
    num_tokens = logits_NV.shape[0]
    found = {name: torch.empty(num_tokens, dtype=torch.float32, device=logits_NV.device) for name in names}
    for start in range(0, num_tokens, chunk_tokens):
        here = slice(start, start + chunk_tokens)
        facts, _ = facts_of(logits_NV[here], names)
        for name, fact_N in found.items():
            fact_N[here] = facts[name]
    return found


@torch.no_grad()
def facts_of(logits_NV: Tensor, names: Collection[str], overwrites: bool = False) -> tuple[dict[str, Tensor], Tensor]:
    """(fact_N of every name, log sum_v exp(logit_v) of every token) of all tokens at once, in float32.

    ``overwrites``: float32 logits may be written to, which saves a tensor of their size.
    """
    highest_N1 = logits_NV.amax(dim=-1, keepdim=True).float()
    weight_NV = (logits_NV.sub_(highest_N1) if overwrites else logits_NV - highest_N1).exp_()
    total_N = weight_NV.sum(dim=-1)
    facts = {}
    for name in names:
        kind, _, number = name.partition(":")
        part = weight_NV if kind == "entropy" else weight_NV.topk(min(int(number), weight_NV.shape[-1]), dim=-1).values
        mass_N = total_N if kind == "entropy" else part.sum(dim=-1)
        # H = log Z + sum(-w log w) / Z for w = exp(logit - max) and Z = sum w: no term is negative, entr(0) is 0
        is_mass = kind == "top_mass"
        facts[name] = mass_N / total_N if is_mass else mass_N.log() + torch.special.entr(part).sum(dim=-1) / mass_N
    return facts, highest_N1[:, 0] + total_N.log()
