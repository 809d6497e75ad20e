"""One model through all questions: prompts, generations (kept, and never made twice), verdicts, results."""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from itertools import islice
from typing import Any

from tqdm import tqdm

from mifo_verl.cpu.generate import Completion, Request
from mifo_verl.data.sft_batch import build_example
from mifo_verl.loop.streams import stable_seed, validation_streams
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.evaluate.engines import Engine, load_engine
from mifo_verl.tools.evaluate.models import Model
from mifo_verl.tools.evaluate.questions import Question, QuestionSet
from mifo_verl.tools.evaluate.results import Generation, Results, StopReason, question_result
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.tools.evaluate.templates import CHAT, messages_of, prompt_tokens
from mifo_verl.tools.keyed_lines import KeyedLines
from mifo_verl.types import Rejection

_SCORING_THREADS = 4
_FIELDS = tuple(field.name for field in fields(Generation))


def evaluate_model(model: Model, sets: Sequence[QuestionSet], settings: Settings) -> Results:
    """The results of a model, benchmark by benchmark. The model is loaded even if nothing is left to generate: its
    tokenizer makes the prompts, which are part of a generation's key.

    Raises ValueError, before anything is generated, if a prompt and its longest response do not fit the model.
    """
    engine = load_engine(model.folder, settings)
    asked_of = [requests(engine.tokenizer, questions, settings) for questions in sets]
    for asked in asked_of:
        _check_room(asked, engine.max_positions, settings)
    results: Results = {}
    for questions, asked in zip(sets, asked_of, strict=True):
        path = settings.out / "generations" / model.digest[:16] / f"{questions.name.replace('/', '_')}.jsonl"
        with KeyedLines(path, _FIELDS) as store:
            answered = generations(engine, model, questions, asked, settings, store)
        results |= with_cross_entropy(engine, questions, asked, judge(questions, answered, settings))
    return results


def with_cross_entropy(engine: Engine, questions: QuestionSet, asked: Sequence[Request], results: Results) -> Results:
    """The results, with the log-likelihood of every question's demonstration after the prompt that it was asked with.

    The demonstration is what SFT would train on: encoded as there, with its end token, and not verified again.
    """
    tokenizer, found = engine.tokenizer, defaultdict[tuple[str, str], dict[str, Any]](dict)
    for one, request in zip(questions.questions, asked[:: questions.num_samples], strict=True):
        built = build_example(
            prompt_ids=request.prompt_ids,
            demonstration=one.demonstration,
            encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
            decode=tokenizer.decode,
            end_token_id=tokenizer.eos_token_id,
            is_correct=lambda *_: True,
            max_response_tokens=(engine.max_positions or sys.maxsize) - len(request.prompt_ids),
        )
        if not isinstance(built, Rejection):
            nats = engine.log_likelihood(built.prompt_ids, built.response_ids)
            found[one.benchmark, one.id] |= {"log_likelihood": nats, "demonstration_tokens": len(built.response_ids)}
    return {name: [replace(one, **found[name, one.id]) for one in own] for name, own in results.items()}


def requests(tokenizer: Any, questions: QuestionSet, settings: Settings) -> list[Request]:
    """The requests, question after question, each sample with a random stream of its own.

    The streams are those of validation in training: the same seed, prompt and number in the data set draw the same.
    """
    asked = [(one, list(one.messages) or messages_of(one.text, settings.system)) for one in questions.questions]
    named: list[Any] = [chat if settings.template == CHAT else one.text for one, chat in asked]
    streams = validation_streams(named, [one.index for one, _ in asked])
    made = []
    for (one, chat), stream in zip(asked, streams, strict=True):
        prompt_ids = prompt_tokens(tokenizer, settings.template, one.text, chat)
        for sample in range(questions.num_samples):
            seed = stable_seed(settings.seed, stream, sample)
            made.append(Request(prompt_ids, settings.max_tokens, seed, settings.temperature, settings.top_p))
    return made


def _check_room(asked: Sequence[Request], max_positions: int | None, settings: Settings) -> None:
    longest = max(len(request.prompt_ids) for request in asked)
    if max_positions is not None and longest + settings.max_tokens > max_positions:
        room = max_positions - longest
        cure = f"use max_tokens={room} or less" if room > 0 else "leave its benchmark away for this model"
        raise ValueError(
            f"max_tokens={settings.max_tokens} must leave room in the model's {max_positions} positions for the "
            f"longest prompt of {longest} tokens; {cure}"
        )


def generation_key(
    model_digest: str,
    benchmark: str,
    question_id: str,
    sample: int,
    prompt_ids: Sequence[int],
    sampling: Mapping[str, Any],
) -> str:
    """The name under which a generation is kept, 32 hex digits: what it depends on and nothing else.

    ``sampling`` holds the settings that change the text: engine, dtype, temperature, top_p, max_tokens, seed. The
    template and the question's text are in ``prompt_ids``.
    """
    parts = [model_digest, benchmark, question_id, sample, list(prompt_ids), dict(sorted(sampling.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


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
    of = [(one, sample) for one in questions.questions for sample in range(each)]
    keys = [
        generation_key(model.digest, one.benchmark, one.id, sample, request.prompt_ids, sampling)
        for request, (one, sample) in zip(asked, of, strict=True)
    ]
    needed = {place for place, key in enumerate(keys) if key not in store}
    with tqdm(total=len(asked), initial=len(asked) - len(needed), desc=f"{model.name} {questions.name}") as bar:

        def keep(place: int, completion: Completion) -> None:
            one, sample = of[place]
            text = engine.tokenizer.decode(completion.token_ids, skip_special_tokens=True)  # as in verl's reward loop
            reason: StopReason = "length" if completion.stop_reason == "length" else "completed"
            about = {"benchmark": one.benchmark, "question": one.id, "sample": sample, "sampling": sampling}
            made = asdict(Generation(text, len(completion.token_ids), reason))
            store.put(keys[place], {"model": model.digest, **about, **made})
            bar.update()

        engine.generate(asked, needed, keep)
    made = [Generation(*(store[key][name] for name in _FIELDS)) for key in keys]
    return [made[first : first + each] for first in range(0, len(made), each)]


def judge(questions: QuestionSet, answered: Sequence[Sequence[Generation]], settings: Settings) -> Results:
    """The verdicts of the run's reward on every response, as results by benchmark, in the order of their first row."""
    scorer, ks = settings.scorer(), settings.ks(questions.num_samples)

    def score(pair: tuple[Question, Generation]) -> Verdict:
        one, made = pair
        return scorer(made.text, one.answer, {"data_source": one.benchmark, "extra_info": one.extra_info})

    groups = list(zip(questions.questions, answered, strict=True))
    pairs = [(one, made) for one, group in groups for made in group]
    with ThreadPoolExecutor(_SCORING_THREADS) as pool:
        scored = pool.map(score, pairs)
        verdicts = iter(list(tqdm(scored, total=len(pairs), desc=f"checking {questions.name}", leave=False, delay=1)))
    results: Results = defaultdict(list)
    for one, group in groups:
        results[one.benchmark].append(question_result(one.id, group, list(islice(verdicts, len(group))), ks))
    return results
