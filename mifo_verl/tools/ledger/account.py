"""The account of a run's data: how many demonstrations, prompts and tokens, and which share of the data set."""

from collections import Counter
from dataclasses import dataclass

from mifo_verl.tools.ledger.dataset import DataSet
from mifo_verl.tools.ledger.read import RunFiles


@dataclass(frozen=True)
class Account:
    """Counts of one run; a share is None where the data set was not at hand."""

    demonstrations: int
    """Uses of a demonstration: the lines of the ledger."""
    distinct_demonstrations: int
    distinct_sft_prompts: int
    uses: dict[int, int]
    """Uses of a demonstration -> how many demonstrations were used so often."""
    response_tokens: int
    kept_tokens: int
    """Tokens in the loss."""
    rollouts: int
    rl_prompts: int | None
    """Prompts that got rollouts, each as often as it was drawn; None where the run kept no ``prompts.jsonl``."""
    distinct_rl_prompts: int | None
    rows: int | None
    rows_with_demonstration: int | None

    @property
    def share_of_demonstrations(self) -> float | None:
        """Distinct prompts used in SFT among the rows with a demonstration."""
        return _share(self.distinct_sft_prompts, self.rows_with_demonstration)

    @property
    def share_of_prompts(self) -> float | None:
        """Distinct prompts used in RL among the rows of the data set."""
        return _share(self.distinct_rl_prompts, self.rows)


def account(run: RunFiles, data: DataSet | None) -> Account:
    """The account of what the records say; whether they are right is for the audit."""
    by_demonstration = Counter(line["demonstration_sha256"] for line in run.ledger)
    drawn = None if run.prompts is None else [prompt[0] for line in run.prompts for prompt in line["prompts"]]
    return Account(
        demonstrations=len(run.ledger),
        distinct_demonstrations=len(by_demonstration),
        distinct_sft_prompts=len({line["prompt_id"] for line in run.ledger}),
        uses=dict(sorted(Counter(by_demonstration.values()).items())),
        response_tokens=sum(line["response_tokens"] for line in run.ledger),
        kept_tokens=sum(line["kept_tokens"] for line in run.ledger),
        rollouts=sum(line["rollouts"] for line in run.rl),
        rl_prompts=None if drawn is None else len(drawn),
        distinct_rl_prompts=None if drawn is None else len(set(drawn)),
        rows=None if data is None else data.num_rows,
        rows_with_demonstration=None if data is None else data.num_demonstrations,
    )


def _share(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else part / whole
