"""log p of every demonstration's tokens by the model that wrote it: the column ``target_log_probs`` (PEAR).

A row's value is {teacher, tokens_sha256, values}; a run refuses it if the digest is not that of its own response
tokens, so that another tokenizer, template or text is never taken for the same one.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mifo_verl.data.demonstrations import TEACHER as COLUMN
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.parquet import check_columns, write_with
from mifo_verl.data.sft_batch import build_example, tokens_sha256
from mifo_verl.errors import require
from mifo_verl.tools.demonstrations.client import Endpoint, Unanswered
from mifo_verl.tools.keyed_lines import KeyedLines
from mifo_verl.types import SftExample

_TYPE = pa.struct([("teacher", pa.string()), ("tokens_sha256", pa.string()), ("values", pa.list_(pa.float32()))])
_CHUNK = 1024


def make(train: str, out: str, tokenizer: str, teacher: str, endpoint: str = "", template: str = "{}") -> None:
    """Write the file with the column: by a local model ``teacher``, or by the one of that name at an endpoint.

    ``tokenizer`` is the folder of the policy, ``template`` the run's data.apply_chat_template_kwargs as JSON. What is
    computed is kept beside the file until that is written.
    """
    from transformers import AutoTokenizer

    check_columns(train, "train")
    own: Any = AutoTokenizer.from_pretrained(tokenizer)
    try:
        kwargs = dict(json.loads(template))
    except (ValueError, TypeError):
        require(False, "template", template, "JSON of a mapping", """write template='{"enable_thinking": true}'""")
    table = pq.read_table(train)
    examples = [_example(own, row, kwargs) for row in table.to_pylist()]
    known = [one for one in examples if one is not None]
    answers = Path(out).with_name(Path(out).name + ".log_probs.jsonl")
    with KeyedLines(answers, ("values",)) as cache:
        by_key = {_key(teacher, one): one for one in known if _key(teacher, one) not in cache}
        if endpoint:
            source = Endpoint(endpoint, teacher)
            asyncio.run(_ask(source, own, by_key, cache))
        else:
            source = None
            score = _local(teacher, own) if by_key else None
            for key, one in tqdm(by_key.items(), desc="teacher"):
                assert score is not None
                cache.put(key, {"values": score(one)})
        name = source.source if source else teacher
        column = [None if one is None else _value(name, one, cache.get(_key(teacher, one))) for one in examples]
    write_with(table, {COLUMN: pa.array(column, _TYPE)}, Path(out))
    print(f"{out}: {table.num_rows} rows, {len(known)} demonstrations with log-probabilities of {name}")


def _example(tokenizer: Any, row: dict[str, Any], kwargs: dict[str, Any]) -> SftExample | None:
    """The row's demonstration in the tokens that a run trains on; verified there, not here."""
    demonstration = demonstration_of(row)
    if demonstration is None:
        return None
    options = {**kwargs, "add_generation_prompt": True, "tokenize": True, "return_dict": False}
    built = build_example(
        prompt_ids=tokenizer.apply_chat_template(row["prompt"], **options),
        demonstration=demonstration,
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
        decode=tokenizer.decode,
        end_token_id=tokenizer.eos_token_id,
        is_correct=lambda *_: True,
        max_response_tokens=1 << 62,
    )
    return built if isinstance(built, SftExample) else None


def _key(teacher: str, example: SftExample) -> str:
    ids = [*example.prompt_ids, -1, *example.response_ids]
    return hashlib.sha256(f"{teacher} {tokens_sha256(ids)}".encode()).hexdigest()


def _value(teacher: str, example: SftExample, line: Mapping[str, Any] | None) -> dict[str, Any]:
    assert line is not None and len(line["values"]) == len(example.response_ids)
    return {"teacher": teacher, "tokens_sha256": tokens_sha256(example.response_ids), "values": line["values"]}


def _local(folder: str, own: Any) -> Callable[[SftExample], list[float]]:
    """Scores one example after another by a model of this machine. Raises ValueError if its tokenizer is another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device, dtype = ("cuda", "auto") if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        theirs: Any = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"teacher={folder} must be a model's folder that loads ({why}); or give endpoint=") from None

    @torch.no_grad()
    def score(example: SftExample) -> list[float]:
        ids, start = [*example.prompt_ids, *example.response_ids], len(example.prompt_ids)
        text = own.decode(example.response_ids[:-1])
        same = own.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        same = same and theirs.encode(text, add_special_tokens=False) == own.encode(text, add_special_tokens=False)
        cure = "take a teacher of the policy's own family"
        require(same, "teacher", folder, "a model with the policy's own tokenizer", cure)
        logits = model(torch.tensor([ids], device=device)).logits[0, start - 1 : -1]
        token_T = torch.tensor(example.response_ids, device=device)
        chunks = zip(logits.split(_CHUNK), token_T.split(_CHUNK), strict=True)
        found = [chunk.float().log_softmax(-1).gather(-1, token[:, None])[:, 0] for chunk, token in chunks]
        return [float(value) for value in torch.cat(found)]

    return score


async def _ask(endpoint: Endpoint, own: Any, by_key: dict[str, SftExample], cache: KeyedLines) -> None:
    bar = tqdm(total=len(by_key), desc="teacher")

    async def one(client: Any, key: str) -> None:
        prompt_ids, response_ids = by_key[key].prompt_ids, by_key[key].response_ids
        ids = [*prompt_ids, *response_ids]
        cache.put(key, {"values": (await endpoint.log_probs(client, ids, own.decode(ids)))[len(prompt_ids) - 1 :]})
        bar.update()

    try:
        await endpoint.each(by_key, one)
    except Unanswered as found:
        why = f"(it says {found}); what was scored is kept, so start again when it is up"
        raise ValueError(
            f"endpoint={endpoint.url} must give the prompt_logprobs of token ids, as vLLM does {why}"
        ) from None
