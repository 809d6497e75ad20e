"""Fill a file's demonstrations: ``mifo demonstrations in=<parquet> out=<parquet> endpoint=<url>
model=<name>``; without arguments, every setting."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mifo_verl.data.parquet import MESSAGES, check_columns, write_with
from mifo_verl.errors import require
from mifo_verl.rewards.kinds import AUTO, scorer
from mifo_verl.tools.command_line import read, run
from mifo_verl.tools.demonstrations.client import Endpoint
from mifo_verl.tools.demonstrations.make import ANSWER_FIELDS, SELF_DISTILL, Made, Maker, count_reasons
from mifo_verl.tools.keyed_lines import KeyedLines

USAGE = """usage: mifo demonstrations in=<parquet> out=<parquet> endpoint=<url> model=<name> [key=value]

  in=<parquet>       rows of verl's schema; endpoint=http://localhost:8000/v1, the key in OPENAI_API_KEY
  rows=missing       the rows without a demonstration that verifies; rows=all asks for every row
  reward=auto        the run's reward: by data source, a kind, or <file>.py:<function>; require_think=true as in it
  template=<file>    rewrite demonstrations that verify in the words of this model, the policy itself: a text with
                     {question} and {reference}; template=self_distill is a good one; what does not verify stays as it is
  tries=4            answers a question at most; the first that verifies is kept
  temperature=0.6 top_p=0.95 max_tokens=8192 seed=0
  concurrency=16 timeout=600 retries=5     requests at a time, seconds for one answer, tries after a failure
  cache=<file>       answers, never paid for twice (default: <out>.answers.jsonl)"""

TARGET, SOURCE, REFERENCE = "target", "target_source", "reference_sha256"


@dataclass(frozen=True)
class Settings:
    """The settings as typed; ``Endpoint``, ``Maker`` and ``scorer`` check them."""

    source: Path
    out: Path
    endpoint: str
    model: str
    rows: str = "missing"
    reward: str = AUTO
    require_think: bool = False
    tries: int = 4
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 8192
    seed: int = 0
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 5
    cache: Path | None = None
    template: str | None = None


def fill(settings: Settings) -> list[Made]:
    """Write the file with its demonstrations and their sources; returns what became of each row."""
    require(settings.rows in ("missing", "all"), "rows", settings.rows, "missing or all", "correct it")
    check_columns(settings.source, "in")
    table = pq.read_table(settings.source)
    endpoint = Endpoint(
        settings.endpoint, settings.model, settings.timeout, settings.retries, concurrency=settings.concurrency
    )
    sampling = {name: getattr(settings, name) for name in ("temperature", "top_p", "max_tokens")}
    score = scorer(settings.reward, settings.require_think, setting="reward")
    answers = settings.cache or settings.out.with_name(settings.out.name + ".answers.jsonl")
    with KeyedLines(answers, ANSWER_FIELDS) as cache, tqdm(total=table.num_rows, desc="demonstrations") as bar:
        template, everyone = _template(settings.template), settings.rows == "all"
        maker = Maker(endpoint, cache, score, sampling, settings.tries, settings.seed, everyone, template)
        made = asyncio.run(maker.make(table.to_pylist(), lambda _: bar.update()))
    _write(table, made, settings.out)
    counts = ", ".join(f"{number} {reason}" for reason, number in count_reasons(made).items())
    print(f"{settings.out}: {table.num_rows} rows: {counts}")
    return made


def _template(given: str | None) -> str | None:
    if given in (None, "self_distill"):
        return given and SELF_DISTILL
    require(Path(str(given)).is_file(), "template", given, "self_distill or a file that exists", "correct it")
    return Path(str(given)).read_text()


def _write(table: pa.Table, made: list[Made], out: Path) -> None:
    """The table with the columns ``target`` and ``target_source`` set, all others as they are."""
    targets = [None if one.text is None else [{"role": "assistant", "content": one.text}] for one in made]
    columns = {TARGET: pa.array(targets, MESSAGES), SOURCE: pa.array([one.source for one in made], pa.string())}
    if any(one.reference_sha256 for one in made):
        columns[REFERENCE] = pa.array([one.reference_sha256 for one in made], pa.string())
    write_with(table, columns, out)


def parse(arguments: list[str]) -> Settings:
    """The settings of ``key=value`` arguments. Raises ValueError on an unknown, missing or malformed one."""
    return read(Settings, arguments, {"source": "in"})


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    return run(lambda: fill(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
