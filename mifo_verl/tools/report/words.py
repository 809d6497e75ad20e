"""What a stranger should know after a minute: when SFT happened, what it cost, what was frozen, which data."""

from html import escape
from typing import Protocol

from mifo_verl.probes.coupling import coupling
from mifo_verl.tools.report.numbers import Number, numbers
from mifo_verl.tools.report.run import Run


class Show(Protocol):
    """A number of the run by its name, as HTML."""

    def __call__(self, name: str, form: str = ",d") -> str: ...


def shown(name: str, value: Number, form: str) -> str:
    """One number as HTML: formatted, with its name and its exact value beside it."""
    text = "–" if value is None else format(value, form)
    return f'<span class="n" data-n="{escape(name)}" data-v="{value!r}">{text}</span>'


def words(run: Run) -> list[tuple[str, str]]:
    """(heading, HTML sentence) of every question."""
    found = numbers(run)

    def n(name: str, form: str = ",d") -> str:
        return shown(name, found.get(name), form)

    return [
        ("State", _state(run, found, n)),
        ("When did SFT run?", _when(run, found, n)),
        ("What did it cost?", _cost(run, found, n)),
        ("What was frozen?", _frozen(run, found, n)),
        ("Which data were used?", _data(run, found, n)),
    ]


def _state(run: Run, found: dict[str, Number], n: Show) -> str:
    if not run.is_finished:
        planned = f" of {run.planned_steps}" if run.planned_steps else ""
        state = f"No summary yet: the run goes on, or was killed. Its last record is of step {run.steps}{planned}."
    else:
        state = f"Finished: {n('rl_steps')} RL steps in {n('seconds_total', ',.0f')} seconds."
    if found["accuracy_end"] is None:
        start = f" Validation accuracy at the start: {n('accuracy_start', '.3f')}."
        return state + start * (found["accuracy_start"] is not None)
    end = n("accuracy_end", ".3f") + ("" if run.is_finished else f" after step {n('accuracy_step')}")
    if found["accuracy_start"] is None:
        return f"{state} Validation accuracy: {end}."
    change = shown("accuracy_change", found["accuracy_end"] - found["accuracy_start"], "+.3f")
    return f"{state} Validation accuracy: {n('accuracy_start', '.3f')} → {end} ({change})."


def _when(run: Run, found: dict[str, Number], n: Show) -> str:
    phases = run.phases()
    if not phases:
        return "Never so far."
    steps = [str(phase[0]["step"]) for phase in phases]
    listed = ", ".join(steps[:12]) + (f" … {steps[-1]}" if len(steps) > 12 else "")
    buffers = [phase[0]["buffer_size"] for phase in phases]
    rule = f"the buffer of hard prompts held {min(buffers)} to {max(buffers)} (S = {n('buffer_size')})"
    full = run.config["mifo"]["schedule"]["name"] == "when_full"
    after_rl = "after RL " if {phase[0]["step"] for phase in phases} <= {line["step"] for line in run.rl} else ""
    return (
        f"{n('sft_phases')} time{'s' * (len(phases) > 1)}, {after_rl}in step {listed}, with {n('sft_updates')} updates "
        "in all" + (f"; {rule} when it did." if full else ".")
    )


def _cost(run: Run, found: dict[str, Number], n: Show) -> str:
    if not found["sft_phases"]:
        return "Nothing so far."
    share = f"{n('sft_time_share', '.1%')} of the run's {n('seconds_total', ',.0f')}"
    time = f"{n('seconds_sft', ',.1f')} seconds, {share}."
    if not found["probed_phases"]:
        return f"{time} Its cost in accuracy was not probed (<code>mifo.probe.around_sft</code>)."
    return (
        f"{time} Accuracy on {_held_out(found, n)} prompts fell in {n('phases_down')} of {n('probed_phases')} phases; "
        f"the mean change over a phase is {n('mean_change', '+.3f')}, the worst {n('worst_change', '+.3f')}. "
        f"{_won(found, n)}{_raised(run)}"
    )


def _held_out(found: dict[str, Number], n: Show) -> str:
    return f"{n('held_out_asked')} held-out" if found["held_out_asked"] else "held-out"


def _won(found: dict[str, Number], n: Show) -> str:
    """Of the prompts that were asked before and after the phases: how many more were right after."""
    said = [
        f"{n(f'{kind}_won', '+g')} of {n(f'{kind}_asked')} {kind} ones"
        for kind in ("hard", "solved")
        if found.get(f"{kind}_asked")
    ]
    return f"Prompts right after SFT less those before: {', '.join(said)}. " if said else ""


def _raised(run: Run) -> str:
    """What RL cost SFT, summed over the intervals."""
    name = "rl_raised_cross_entropy"
    total = coupling(run.rl + run.sft)["total"][name]
    if total is None:
        return ""
    value = shown(f"coupling_total_{name}", total, "+.4f")
    return f"RL raised the cross-entropy of held-out demonstrations by {value} nats, summed over the intervals."


def _frozen(run: Run, found: dict[str, Number], n: Show) -> str:
    if not found["masked_phases"]:
        return "Nothing." if found["sft_phases"] else "Nothing so far."
    text = (
        f"{n('frozen_share', '.1%')} of the {n('coordinates')} coordinates in an SFT phase; in the last one "
        f"{n('last_frozen')}{_which(run, found, n)}."
    )
    if found["frozen_drift"] is not None:
        text += f" Largest change of a frozen coordinate: {n('frozen_drift', '.3g')}."
    extremes = _extremes(run)
    return f"{text} {extremes}" if extremes else text


def _which(run: Run, found: dict[str, Number], n: Show) -> str:
    """Which coordinates the last mask froze, as far as one number tells it."""
    if run.config["mifo"]["importance"]["name"] == "random":
        return ", drawn at random"
    if found["last_threshold"] is None or run.config["mifo"]["constraint"].get("scope") != "global":
        return ""
    return f", those with an importance of at least {n('last_threshold', '.3g')}"


def _extremes(run: Run) -> str:
    """The kinds of matrix most and least frozen, over all phases."""
    tables = [line["mask"]["by_kind"] for line in run.inspection if line.get("mask")]
    frozen: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for table in tables:
        for kind, size, number in zip(table["kind"], table["coordinates"], table["frozen"], strict=True):
            frozen[kind] = frozen.get(kind, 0) + number
            sizes[kind] = sizes.get(kind, 0) + size
    if not any(frozen.values()):
        return ""
    shares = {kind: frozen[kind] / sizes[kind] for kind in frozen if sizes[kind]}
    most, least = max(shares, key=lambda kind: shares[kind]), min(shares, key=lambda kind: shares[kind])
    return (
        f"By kind of matrix, most of {most} ({shown(f'frozen_{most}', shares[most], '.0%')}) and least of {least} "
        f"({shown(f'frozen_{least}', shares[least], '.0%')})."
    )


def _data(run: Run, found: dict[str, Number], n: Show) -> str:
    of = f", {n('share_of_demonstrations', '.1%')} of the data set's {n('rows_with_demonstration')}"
    uses = "each used once" if found["most_uses"] == 1 else f"each used up to {n('most_uses')} times"
    hard = all(use["num_rollouts"] is not None for use in run.files.ledger)
    text = (
        f"SFT: {n('distinct_demonstrations')} demonstrations{' of hard prompts' * hard}"
        f"{of if found['rows_with_demonstration'] else ''}, {uses}; {n('kept_tokens')} of their {n('response_tokens')} "
        f"response tokens ({n('kept_share', '.1%')}) in the loss."
        if found["demonstrations"]
        else "SFT: none so far."
    )
    rl = f"RL: {n('rollouts')} rollouts"
    if found["rl_prompts"] is not None:
        share = f" ({n('share_of_prompts', '.1%')} of the data set)" if found["rows"] else ""
        rl += f" of {n('rl_prompts')} prompts drawn; {n('distinct_rl_prompts')} prompts are distinct{share}"
    return f"{text} {rl}. {_audit(run)}"


def _audit(run: Run) -> str:
    if run.faults:
        return f'<strong class="bad">The ledger has {len(run.faults)} faults</strong> (see Data).'
    agree = "Ledger and records agree." if run.files.ledger else ""
    other = f'<strong class="bad">{len(run.left_out)} other records cannot be used</strong> (see Data).'
    return f"{agree} {other}".strip() if run.left_out else agree
