"""Every method side by side, and what goes with what: two tables, made of the configs and of what their parts say."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mifo_verl.checks.run import facts_of
from mifo_verl.compose import ComposedConfig, compose_config, config_folder
from mifo_verl.config import MifoConfig, build_config
from mifo_verl.method.part import Part
from mifo_verl.run.budget import rl_cost
from mifo_verl.run.compute import sft_flops
from mifo_verl.tools.schemas import put
from mifo_verl.types import RunFacts

USAGE = """usage: mifo methods [<page.md>]   every method side by side, and which RL algorithms and constraints go with it

  without a page, the tables are printed; with one, they are written into it, between its two marks"""
BEGIN, END = "<!-- methods: made by `mifo methods docs/methods.md` -->", "<!-- end of methods -->"
HARD_SHARE = 0.25
"""Of the questions, where a gate decides by accuracy."""
FITS, IDLE = "✓", "–"


@dataclass(frozen=True)
class Method:
    """A file of ``method/`` with the paper's sizes on GPUs."""

    name: str

    @cached_property
    def config(self) -> Any:
        return _composed(f"method={self.name}").node

    @cached_property
    def mifo(self) -> MifoConfig:
        return _parts_of(_composed(f"method={self.name}"))

    @cached_property
    def facts(self) -> RunFacts:
        return facts_of(self.config, self.mifo)

    def row(self, rl_flops: float) -> list[str]:
        """Its line of the first table; ``rl_flops`` are those of a run of RL alone."""
        mifo = self.mifo
        on, when, weight = [], [], list[Part]()
        if mifo.schedule.has_sft_phases:
            on.append("the data set's prompts" if mifo.schedule.starts_with_sft else mifo.gate.describe())
            when.append(mifo.schedule.describe())
            weight += [mifo.token_selector, mifo.sft_loss, mifo.constraint]
        if mifo.gate.trains_now:
            on.append(mifo.gate.describe())
            when.append("every update")
            weight += [mifo.mixing, mifo.sft_loss]
        if "demonstrations" in mifo.prefix.needs:
            on.append(mifo.prefix.describe())
            when.append("as rollouts")
            weight.append(mifo.off_policy)
        if not mifo.on_policy.is_verls:
            weight.append(mifo.on_policy)
        weights = ", ".join(dict.fromkeys(f"`{part.name}`" for part in weight))
        cells = ["; ".join(cell) or "-" for cell in (on, when)]
        return [f"`{self.name}`", *cells, weights or "-", f"{self.flops / rl_flops:.2f}", f"{self.num_bytes:g}"]

    @property
    def flops(self) -> float:
        """Of a weight, over the run, if every response and demonstration is one token long and no prompt counts."""
        mifo, facts = self.mifo, self.facts
        share = mifo.gate.expected_share(HARD_SHARE)
        phases = mifo.schedule.expected(facts, share)
        rollouts = facts.prompts * facts.num_rollouts
        rl = rl_cost(self.config, 1, mifo.mixing.extra_trainings).flops(rollouts, rollouts)
        in_phases = phases.sft_phases * phases.demonstrations * mifo.sft.passes
        now = phases.rl_steps * facts.prompts * share * facts.epochs if mifo.gate.trains_now else 0
        forwards = int(bool(mifo.before_facts))
        return phases.rl_steps * rl + sft_flops(1, round(in_phases), forwards) + sft_flops(1, round(now))

    @property
    def num_bytes(self) -> float:
        """The most that its parts hold on the device at a time, a weight, beside the actor and its AdamW."""
        costs = [cost for part in self.mifo.parts for cost in part.costs(self.facts)]
        start = 4.0 * any("start" in part.needs for part in self.mifo.parts) * self.mifo.schedule.has_sft_phases
        return start + max(sum(c.num_bytes for c in costs if phase in c.phases) for phase in ("rollout", "rl", "sft"))


@cache
def _composed(*choices: str) -> ComposedConfig:
    return compose_config([*choices, "hardware=gpu", "actor_rollout_ref.model.path=model"])


def _parts_of(composed: ComposedConfig) -> MifoConfig:
    return build_config(composed.to_dict()["mifo"])


def names(group: str) -> list[str]:
    """The files of a group."""
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def methods() -> list[Method]:
    return [Method(name) for name in names("method")]


def side_by_side(every: Iterable[Method]) -> str:
    """What each method trains on, when, with what weight, and what it costs, as Markdown; methods alike in one line."""
    rl_flops, rows = (
        next(method.flops for method in every if method.name == "rl_only"),
        dict[tuple[str, ...], list[str]](),
    )
    for method in every:
        name, *cells = method.row(rl_flops)
        rows.setdefault(tuple(cells), []).append(name)
    heads = ["method", "trains on", "when", "weighed by", "FLOPs", "bytes"]
    return _markdown(heads, [[", ".join(alike), *cells] for cells, alike in rows.items()])


def rl_changes() -> dict[str, dict[str, Any]]:
    """By RL algorithm: the facts of a run in which it differs from the base's own algorithm."""
    base = Method("rl_only").facts
    found = {}
    for rl in names("rl"):
        composed = _composed("method=rl_only", f"rl={rl}")
        facts = facts_of(composed.node, _parts_of(composed))
        own = {field.name: getattr(facts, field.name) for field in fields(RunFacts)}
        found[rl] = {name: value for name, value in own.items() if value != getattr(base, name)}
    return found


def cell(parts: Iterable[Part], facts: RunFacts, reasons: dict[str, str]) -> str:
    """✓, – where the parts have no effect, or the letters of the reasons why ``mifo check`` refuses them."""
    problems = [problem for part in parts for problem in part.problems(facts)]
    refused = [f"`{problem.setting}` must be {problem.rule}" for problem in problems if problem.is_error]
    for rule in refused:
        reasons.setdefault(rule, chr(ord("a") + len(reasons)))
    idle = IDLE if any(problem.setting == "mifo.constraint.name" for problem in problems) else FITS
    return " ".join(dict.fromkeys(reasons[rule] for rule in refused)) or idle


def what_goes_with_what(every: Iterable[Method]) -> str:
    """Methods against RL algorithms and constraints, as Markdown, and why a pair is refused."""
    changes, rows = rl_changes(), dict[tuple[str, ...], list[str]]()
    constraints = {
        name: _parts_of(_composed(f"mifo/constraint={name}")).constraint for name in names("mifo/constraint")
    }
    reasons: dict[str, str] = {}
    for method in every:
        mifo, facts = method.mifo, method.facts
        with_rl = [cell(mifo.parts, replace(facts, **change), reasons) for change in changes.values()]
        held = [replace(mifo, constraint=constraint) for constraint in constraints.values()]
        with_constraint = [cell(one.parts, facts, reasons) for one in held]
        rows.setdefault((*with_rl, *with_constraint), []).append(f"`{method.name}`")
    heads = ["method", *(f"`{rl}`" for rl in changes), *(f"`{constraint}`" for constraint in constraints)]
    table = _markdown(heads, [[", ".join(alike), *cells] for cells, alike in rows.items()])
    return "\n".join([table, "", *(f"- **{letter}**: {rule}." for rule, letter in reasons.items())])


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text() -> str:
    """Both tables."""
    every = methods()
    return f"{side_by_side(every)}\n\n{what_goes_with_what(every)}"


def main(arguments: list[str]) -> int:
    """Print both tables, or write them into a page; the exit code."""
    if any(not argument.endswith(".md") for argument in arguments) or len(arguments) > 1:
        print(USAGE)
        return 0 if arguments[0] in ("-h", "--help") else 2
    if not arguments:
        print(text())
        return 0
    page = Path(arguments[0])
    page.write_text(put(page.read_text(), text(), BEGIN, END))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
