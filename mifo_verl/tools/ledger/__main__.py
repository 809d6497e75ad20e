"""Print and verify the data ledger of a run: ``python -m mifo_verl.tools.ledger <run> [data=<file>]``.

Exit code 0 where everything agrees, 1 where a line is missing, doubled, altered or of another data set, 2 where there
is nothing to verify, or nothing to verify it with: no run, a config that cannot be used, a data file that is none.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mifo_verl.tools.ledger import dataset
from mifo_verl.tools.ledger.account import Account, account
from mifo_verl.tools.ledger.audit import audit, audit_hashes, prompt_ids, settled, unproved
from mifo_verl.tools.ledger.read import RunFiles, read_run

USAGE = "usage: python -m mifo_verl.tools.ledger <run> [data=<file>[,<file>]]   the data that a run used, verified"
_SHOWN = 20


def main(arguments: list[str]) -> int:
    """Print the account and the audit; returns the exit code."""
    named = [argument.removeprefix("data=") for argument in arguments if argument.startswith("data=")]
    runs = [argument for argument in arguments if not argument.startswith(("data=", "-"))]
    if len(runs) != 1 or len(runs) + len(named) != len(arguments):
        print(USAGE, file=sys.stdout if {"-h", "--help"} & set(arguments) else sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    try:
        files = dataset.named_files([name for part in named for name in part.split(",")])
        return _report(read_run(Path(runs[0])), files)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _report(run: RunFiles, named: list[Path]) -> int:
    console = Console()
    faults = audit(run)
    data = None
    try:
        files = named or dataset.find_files(run.config, run.folder)
        data = dataset.count(files)
        faults += audit_hashes(run, dataset.hashes(files, prompt_ids(run)))
    except (ValueError, OSError) as error:
        faults.append(f"the hashes are not checked: {error}")
    whole = settled(run)
    console.print(_table(account(whole, data)))
    if run.summary is None:
        console.print("no summary.json: the run goes on, or was killed")
    for words in unproved(run):
        console.print(words, soft_wrap=True, highlight=False, markup=False)
    for fault in faults[:_SHOWN]:
        console.print(fault, style="red", soft_wrap=True, highlight=False, markup=False)
    if len(faults) > _SHOWN:
        console.print(f"and {len(faults) - _SHOWN} more faults", style="red")
    rl = "" if whole.prompts is None else f", the prompts of {len(whole.prompts)} RL steps"
    uses = f"{len(whole.ledger)} uses in {len(whole.sft)} SFT updates{rl}"
    console.print(f"NOT verified: {len(faults)} faults" if faults else f"verified: {uses}, no fault")
    return 1 if faults else 0


def _table(counted: Account) -> Table:
    table = Table("data", "count", "share of the data set", title="The data of this run")
    of_demonstrations = _percent(counted.share_of_demonstrations, counted.rows_with_demonstration, "demonstrations")
    table.add_row("demonstrations used in SFT (distinct prompts)", str(counted.distinct_sft_prompts), of_demonstrations)
    table.add_row("distinct demonstration texts", str(counted.distinct_demonstrations), "")
    table.add_row("uses of a demonstration", str(counted.demonstrations), "")
    for uses, number in counted.uses.items():
        table.add_row(f"  used {uses} time{'s' * (uses > 1)}", str(number), "")
    of_prompts = _percent(counted.share_of_prompts, counted.rows, "prompts")
    table.add_row("prompts used in RL (distinct)", _recorded(counted.distinct_rl_prompts), of_prompts)
    table.add_row("prompts rolled out, repeats counted", _recorded(counted.rl_prompts), "")
    table.add_row("rollouts", str(counted.rollouts), "")
    table.add_row("response tokens of the demonstrations used", str(counted.response_tokens), "")
    kept = counted.kept_tokens / counted.response_tokens if counted.response_tokens else 0.0
    table.add_row("  of these in the loss", str(counted.kept_tokens), f"{kept:.2%} of the response tokens")
    return table


def _recorded(count: int | None) -> str:
    return "not recorded" if count is None else str(count)


def _percent(share: float | None, whole: int | None, of: str) -> str:
    return "-" if share is None else f"{share:.2%} of {whole} {of}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
