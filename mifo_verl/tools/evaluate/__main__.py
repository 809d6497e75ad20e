"""``mifo evaluate`` and ``mifo compare``."""

import gc
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from mifo_verl.tools.command_line import run

if TYPE_CHECKING:
    from mifo_verl.tools.evaluate.settings import Settings

USAGE = """usage: mifo evaluate model=<folder> benchmarks=[<name or file>,...] [key=value ...]
       mifo compare <folder or results.json> <folder or results.json> ... [metric=avg]

  model=[a,b]        Hugging Face folders, runs (runs/<name>), checkpoints (.../global_step_<n>), hub names
  benchmarks=[...]   aime24 aime25 amc math500 olympiad minerva gsm8k mmlu_pro gpqa arc_c, or files (.jsonl, .jsonl.gz,
                     .parquet of verl's schema); <name>@<n> asks each question n times
  data=<folder>      where the files of the named benchmarks are; without it they come from the hub
  out=<folder>       results and generations (default evaluations); what is there is not generated again
  template=chat      none, qwen, prime, luffy, or chat: the model's own; system=<text> goes with chat
  samples=1          responses a question; k=[1,2,4] for pass@k and maj@k (default: powers of two up to samples)
  temperature=0.6 top_p=1.0 max_tokens=8192 seed=0
  limit=<n>          the first n questions of each benchmark
                     rows with a demonstration (parquet): also its cross-entropy after the prompt, in nats a token
  reward=auto        by data source; math, boxed, exact, choice, reasoning_gym, similarity or <file>.py:<function>;
                     require_think=true: no </think>, no reward
  engine=auto        vllm if it is installed, else transformers; dtype=float32|bfloat16, batch=64, threads=<cores>
  tensor_parallel=<n>, gpu_memory=0.9, max_length=<tokens>   of vLLM; the GPUs left over answer as further copies

  compare            every pair of models on every benchmark and on their average: paired differences, and what can be
                     claimed of them. metric=[avg,pass@8,maj@8]: name all that you look at, the claims hold for all"""


def evaluate(settings: "Settings") -> list[dict[str, Any]]:
    """Evaluate every model on every benchmark, and write the results."""
    from mifo_verl.tools.evaluate.models import distinct_names, find_model
    from mifo_verl.tools.evaluate.questions import load_set
    from mifo_verl.tools.evaluate.report import write_results
    from mifo_verl.tools.evaluate.results import model_table
    from mifo_verl.tools.evaluate.run import evaluate_model

    sets = [load_set(entry, settings.data, settings.samples, settings.limit) for entry in settings.benchmarks]
    names = Counter(name for entry in sets for name in {question.benchmark for question in entry.questions})
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ValueError(f"benchmarks must give {', '.join(twice)} once; two of the entries hold it")
    models = distinct_names([find_model(path, settings.engine_and_dtype()[1]) for path in settings.model])
    tables = []
    for model, path in zip(models, settings.model, strict=True):
        results = evaluate_model(model, sets, settings)
        tables.append(model_table(model.name, path, model.digest, results, settings.kept()))
        gc.collect()  # what an engine holds ends with it: the next model needs the memory
    write_results(tables, settings.out)
    return tables


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the input."""
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "compare":
        from mifo_verl.tools.evaluate.compare import compare

        return run(lambda: compare(arguments[1:]))
    from mifo_verl.tools.evaluate.settings import parse_settings

    return run(lambda: evaluate(parse_settings(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
