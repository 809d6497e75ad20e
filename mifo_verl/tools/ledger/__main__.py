"""Print and verify the data ledger of a run: ``mifo ledger <run> [data=<file>]``.

Exit code 0 if everything agrees, 1 if a line is missing, doubled, altered or of another data set, 2 if there is
nothing to verify, or nothing to verify it with: no run, a config that cannot be used, a data file that is none.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mifo_verl.tools.command_line import exit_code, pairs
from mifo_verl.tools.ledger import account as data_used
from mifo_verl.tools.ledger.account import Account
from mifo_verl.tools.ledger.audit import audit, audit_hashes, prompt_ids, settled, unproved
from mifo_verl.tools.run_files import read_run

USAGE = "usage: mifo ledger <run> [data=<file>[,<file>]]   the data that a run used, verified"
_SHOWN = 20


def main(arguments: list[str]) -> int:
    """Print the account and the audit; returns the exit code."""
    runs = [argument for argument in arguments if "=" not in argument]
    asked = bool({"-h", "--help"} & set(arguments))
    if asked or len(runs) != 1:
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return exit_code(lambda: _report(Path(runs[0]), [argument for argument in arguments if "=" in argument]))


def _report(folder: Path, options: list[str]) -> int:
    given = pairs(options, ("data",)).get("data", "").split(",")
    named, run = data_used.named_files(filter(None, given)), read_run(folder)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    faults, data = audit(run), None
    try:
        files = named or data_used.find_files(run.config, run.folder)
        data = data_used.count(files)
        faults += audit_hashes(run, data_used.hashes(files, prompt_ids(run)))
    except (ValueError, OSError) as error:
        faults.append(f"the hashes are not checked: {error}")
    whole = settled(run)
    Console().print(_table(data_used.account(whole, data)))
    if run.summary is None:
        console.print("no summary.json: the run goes on, or was killed")
    for words in unproved(run):
        console.print(words)
    for fault in faults[:_SHOWN]:
        console.print(fault, style="red")
    if len(faults) > _SHOWN:
        console.print(f"and {len(faults) - _SHOWN} more faults", style="red")
    rl = "" if whole.prompts is None else f", the prompts of {len(whole.prompts)} RL steps"
    uses = f"{len(whole.ledger)} uses in {len(whole.sft)} SFT updates{rl}"
    console.print(f"NOT verified: {len(faults)} faults" if faults else f"verified: {uses}, no fault")
    return 1 if faults else 0


def _table(counted: Account) -> Table:
    def of(share: float | None, whole: int | None, what: str) -> str:
        return "-" if share is None else f"{share:.2%} of {whole} {what}"

    of_sft = of(counted.share_of_demonstrations, counted.rows_with_demonstration, "demonstrations")
    kept = counted.kept_tokens / counted.response_tokens if counted.response_tokens else 0.0
    rows: list[tuple[str, int | None, str]] = [
        ("demonstrations used (distinct prompts)", counted.distinct_sft_prompts, of_sft),
        ("distinct demonstration texts", counted.distinct_demonstrations, ""),
        ("uses of a demonstration", counted.demonstrations, ""),
        *([("  as a rollout, or its beginning", counted.members, "")] if counted.members else []),
        *((f"  used {uses} time{'s' * (uses > 1)}", number, "") for uses, number in counted.uses.items()),
        (
            "prompts used in RL (distinct)",
            counted.distinct_rl_prompts,
            of(counted.share_of_prompts, counted.rows, "prompts"),
        ),
        ("prompts rolled out, repeats counted", counted.rl_prompts, ""),
        ("rollouts", counted.rollouts, ""),
        ("response tokens of the demonstrations used", counted.response_tokens, ""),
        ("  of these in the loss, or given to a rollout", counted.kept_tokens, f"{kept:.2%} of the response tokens"),
    ]
    table = Table("data", "count", "share of the data set", title="The data of this run")
    for what, count, share in rows:
        table.add_row(what, "not recorded" if count is None else str(count), share)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
