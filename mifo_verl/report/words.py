"""What a stranger should know after a minute: when SFT happened, what it cost, what was frozen, which data."""

from html import escape
from typing import Protocol

from mifo_verl.coupling import coupling
from mifo_verl.report.numbers import Number, numbers
from mifo_verl.report.run import Run


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
    if run.files.summary is None:
        planned = f" of {run.planned_steps}" if run.planned_steps else ""
        state = f"No summary yet: the run goes on, or was killed. Its last record is of step {run.steps}{planned}."
    else:
        state = f"Finished: {n('rl_steps')} RL steps in {n('seconds_total', ',.0f')} seconds."
    if found["accuracy_start"] is None or found["accuracy_end"] is None:
        return state
    change = shown("accuracy_change", found["accuracy_end"] - found["accuracy_start"], "+.3f")
    return f"{state} Validation accuracy: {n('accuracy_start', '.3f')} → {n('accuracy_end', '.3f')} ({change})."


def _when(run: Run, found: dict[str, Number], n: Show) -> str:
    phases = run.phases()
    if not phases:
        return "Never so far."
    steps = [str(phase[0]["step"]) for phase in phases]
    listed = ", ".join(steps[:12]) + (f" … {steps[-1]}" if len(steps) > 12 else "")
    buffers = [phase[0]["buffer_size"] for phase in phases]
    rule = f"the buffer of hard prompts held {min(buffers)} to {max(buffers)} (S = {n('buffer_size')})"
    full = run.config["mifo"]["schedule"]["name"] == "when_full"
    return (
        f"{n('sft_phases')} time{'s' * (len(phases) > 1)}, after RL in step {listed}, with {n('sft_updates')} updates "
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
        f"{time} Accuracy on held-out prompts fell in {n('phases_down')} of {n('probed_phases')} phases; the mean "
        f"change over a phase is {n('mean_change', '+.3f')}, the worst {n('worst_change', '+.3f')}. {_coupling(run)}"
    )


def _coupling(run: Run) -> str:
    """The sums of the coupling table that were measured."""
    total = coupling(run.rl + run.sft)["total"]
    said = [
        f"{text} {shown(f'coupling_total_{name}', total[name], form)}"
        for name, text, form in (
            ("rl_raised_cross_entropy", "RL raised the cross-entropy of held-out demonstrations by", "+.4f"),
            ("sft_lost_solved", "SFT lost on solved prompts", "+.3f"),
            ("sft_gained_hard", "and gained on hard ones", "+.3f"),
        )
        if total[name] is not None
    ]
    return f"Summed over the intervals: {', '.join(said)}." if said else ""


def _frozen(run: Run, found: dict[str, Number], n: Show) -> str:
    if not found["masked_phases"]:
        return "Nothing." if found["sft_phases"] else "Nothing so far."
    threshold = f"importance of at least {n('last_threshold', '.3g')}"
    text = (
        f"{n('frozen_share', '.1%')} of the {n('coordinates')} coordinates in an SFT phase; in the last one "
        f"{n('last_frozen')}, those with an {threshold}."
    )
    if found["frozen_drift"] is not None:
        text += f" Largest change of a frozen coordinate: {n('frozen_drift', '.3g')}."
    extremes = _extremes(run)
    return f"{text} {extremes}" if extremes else text


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
    text = (
        f"SFT: {n('distinct_demonstrations')} demonstrations of hard prompts"
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
