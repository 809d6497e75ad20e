"""One model through all questions: prompts, generations (kept, and never made twice), verdicts, results."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from mifo_verl.cpu.generate import Completion, Request
from mifo_verl.loop.streams import stable_seed, validation_streams
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.evaluate.engines import Engine, load_engine
from mifo_verl.tools.evaluate.models import Model
from mifo_verl.tools.evaluate.questions import Question, QuestionSet
from mifo_verl.tools.evaluate.results import BenchmarkResult, QuestionResult, question_result
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.tools.evaluate.store import FIELDS, Generation, generation_key
from mifo_verl.tools.evaluate.templates import CHAT, messages_of, prompt_tokens
from mifo_verl.tools.keyed_lines import KeyedLines

_SCORING_THREADS = 4


def evaluate_model(model: Model, sets: Sequence[QuestionSet], settings: Settings) -> list[BenchmarkResult]:
    """The results of a model, benchmark by benchmark. The model is loaded even where nothing is left to generate: its
    tokenizer makes the prompts, which are part of a generation's key.

    Raises ValueError, before anything is generated, where a prompt and its longest response do not fit the model.
    """
    name, dtype = settings.engine_and_dtype()
    engine = load_engine(name, model.folder, dtype, settings.batch, settings.threads)
    asked_of = [requests(engine.tokenizer, questions, settings) for questions in sets]
    for asked in asked_of:
        _check_room(asked, engine.max_positions, settings)
    results: list[BenchmarkResult] = []
    for questions, asked in zip(sets, asked_of, strict=True):
        path = settings.out / "generations" / model.digest[:16] / f"{questions.name.replace('/', '_')}.jsonl"
        with KeyedLines(path, FIELDS) as store:
            answered = generations(engine, model, questions, asked, settings, store)
        results += judge(questions, answered, settings)
    return results


def generations(
    engine: Engine,
    model: Model,
    questions: QuestionSet,
    asked: Sequence[Request],
    settings: Settings,
    store: KeyedLines,
) -> list[list[Generation]]:
    """The responses to every question, of which those that the store lacks are generated."""
    sampling = {name: getattr(settings, name) for name in ("temperature", "top_p", "max_tokens", "seed")}
    sampling |= {"engine": engine.name, "dtype": engine.dtype}
    each = questions.num_samples
    places = [(place // each, place % each) for place in range(len(asked))]
    keys = []
    for request, (number, sample) in zip(asked, places, strict=True):
        question = questions.questions[number]
        keys.append(generation_key(model.digest, question.benchmark, question.id, sample, request.prompt_ids, sampling))
    needed = {place for place, key in enumerate(keys) if key not in store}
    with tqdm(total=len(asked), initial=len(asked) - len(needed), desc=f"{model.name} {questions.name}") as bar:

        def keep(place: int, completion: Completion) -> None:
            question, sample = questions.questions[places[place][0]], places[place][1]
            text = engine.tokenizer.decode(completion.token_ids, skip_special_tokens=True)  # as in verl's reward loop
            made = Generation(text, len(completion.token_ids), "length" if _is_cut(completion) else "completed")
            about = {"benchmark": question.benchmark, "question": question.id, "sample": sample, "sampling": sampling}
            store.put(keys[place], {"model": model.digest, **about, **asdict(made)})
            bar.update()

        engine.generate(asked, needed, keep)
    made = [Generation.of(store.get(key) or {}) for key in keys]
    return [made[first : first + each] for first in range(0, len(made), each)]


def requests(tokenizer: Any, questions: QuestionSet, settings: Settings) -> list[Request]:
    """The requests, question after question, each sample with a random stream of its own.

    The streams are those of validation in training: the same seed, prompt and number in the data set draw the same.
    """
    chats = [list(question.messages) or messages_of(question.text, settings.system) for question in questions.questions]
    named = [chat if settings.template == CHAT else question.text for chat, question in _pairs(chats, questions)]
    streams = validation_streams(named, [question.index for question in questions.questions])
    made = []
    for (chat, question), stream in zip(_pairs(chats, questions), streams, strict=True):
        prompt_ids = prompt_tokens(tokenizer, settings.template, question.text, chat)
        for sample in range(questions.num_samples):
            seed = stable_seed(settings.seed, stream, sample)
            made.append(Request(prompt_ids, settings.max_tokens, seed, settings.temperature, settings.top_p))
    return made


def _pairs(chats: Sequence[Any], questions: QuestionSet) -> list[tuple[Any, Question]]:
    return list(zip(chats, questions.questions, strict=True))


def _is_cut(completion: Completion) -> bool:
    return completion.stop_reason == "length"


def _check_room(asked: Sequence[Request], max_positions: int | None, settings: Settings) -> None:
    longest = max(len(request.prompt_ids) for request in asked)
    if max_positions is not None and longest + settings.max_tokens > max_positions:
        room = max_positions - longest
        cure = f"use max_tokens={room} or less" if room > 0 else "leave its benchmark away for this model"
        raise ValueError(
            f"max_tokens={settings.max_tokens} must leave room in the model's {max_positions} positions for the "
            f"longest prompt of {longest} tokens; {cure}"
        )


def judge(
    questions: QuestionSet, answered: Sequence[Sequence[Generation]], settings: Settings
) -> list[BenchmarkResult]:
    """The verdicts of the run's reward on every response, as results by benchmark, in the order of their first row."""
    scorer, ks = settings.scorer(), settings.ks(questions.num_samples)

    def score(pair: tuple[Question, Generation]) -> Verdict:
        question, made = pair
        return scorer(
            made.text, question.answer, {"data_source": question.benchmark, "extra_info": question.extra_info}
        )

    pairs = [(question, made) for question, group in zip(questions.questions, answered, strict=True) for made in group]
    with ThreadPoolExecutor(_SCORING_THREADS) as pool:
        verdicts = list(
            tqdm(pool.map(score, pairs), total=len(pairs), desc=f"checking {questions.name}", leave=False, delay=1)
        )
    by_benchmark: dict[str, list[QuestionResult]] = defaultdict(list)
    each = questions.num_samples
    for place, (question, group) in enumerate(zip(questions.questions, answered, strict=True)):
        judged = verdicts[place * each : (place + 1) * each]
        by_benchmark[question.benchmark].append(question_result(question.id, group, judged, ks))
    return [BenchmarkResult(name, tuple(results)) for name, results in by_benchmark.items()]
