"""The benchmarks that are known by name: their rows, their files, and where the hub keeps them."""

from dataclasses import dataclass

from mifo_verl.errors import nearest


@dataclass(frozen=True)
class Benchmark:
    """A published set of questions. ``num_rows`` is its size as published: a file of another size is another set."""

    name: str
    num_rows: int
    hub: tuple[str, str | None, str]
    """The hub's repository, configuration and split."""
    aliases: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("aime24", 30, ("HuggingFaceH4/aime_2024", None, "train"), ("aime2024",)),
    Benchmark("aime25", 30, ("math-ai/aime25", None, "test"), ("aime2025",)),
    Benchmark("amc", 40, ("math-ai/amc23", None, "test"), ("amc23",)),
    Benchmark("math500", 500, ("HuggingFaceH4/MATH-500", None, "test"), ("math-500", "math_500")),
    Benchmark(
        "olympiad", 674, ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"), ("olympiadbench", "olympiad_bench")
    ),
    Benchmark("minerva", 272, ("math-ai/minervamath", None, "test"), ("minerva_math",)),
    Benchmark("gsm8k", 1319, ("openai/gsm8k", "main", "test"), ("gsm8k_test",)),
    Benchmark("mmlu_pro", 12032, ("TIGER-Lab/MMLU-Pro", None, "test"), ("mmlu-pro",)),
    Benchmark("gpqa", 198, ("Idavidrein/gpqa", "gpqa_diamond", "train"), ("gpqa_diamond",)),
    Benchmark("arc_c", 1172, ("allenai/ai2_arc", "ARC-Challenge", "test"), ("arc_challenge", "arc-c")),
)


def known_benchmark(name: str) -> Benchmark:
    """The benchmark of a name or alias. Raises ValueError, with the nearest name, where there is none."""
    for benchmark in BENCHMARKS:
        if name.lower() in (benchmark.name, *benchmark.aliases):
            return benchmark
    names = [benchmark.name for benchmark in BENCHMARKS]
    raise ValueError(
        f"benchmarks={name} must be one of {', '.join(names)}{nearest(name, names)}, or a file that exists "
        "(.parquet, .jsonl, .jsonl.gz, .json, .csv); correct it"
    )


def check_row_count(benchmark: Benchmark, num_rows: int, source: str) -> None:
    """Raise ValueError where a benchmark is not of its published size."""
    if num_rows != benchmark.num_rows:
        raise ValueError(
            f"benchmarks={benchmark.name}: {source} has {num_rows} rows and must have {benchmark.num_rows}; get the "
            f"whole set, or give the file's own path to evaluate it under its own name (limit=<rows> takes the first)"
        )
