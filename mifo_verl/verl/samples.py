"""Rollouts that a person can read: a few of every step, for samples.jsonl, the report and the trackers' tables."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from mifo_verl.loop.events import Event, RolloutSeen, UpdateMade
from mifo_verl.loop.loop import Loop
from mifo_verl.verl.demonstrations import correctness
from mifo_verl.verl.replay import key_order

logger = logging.getLogger(__name__)

TABLE = "mifo/samples"
COLUMNS = ("step", "kind", "prompt_id", "prompt", "text", "answer", "verdict", "kept_tokens")
_MOST_CHARS = 4000
Row = tuple[Any, ...]


def seen(batch: KVBatchMeta, loop: Loop, tokenizer: Any, number: int) -> list[RolloutSeen]:
    """``sampled``; what is only shown ends no run."""
    try:
        return sampled(batch, loop, tokenizer, number)
    except Exception:
        logger.exception("no rollouts to read in this step")
        return []


def sampled(batch: KVBatchMeta, loop: Loop, tokenizer: Any, number: int) -> list[RolloutSeen]:
    """The first rollout of ``number`` questions of a step, from the one answered worst to the one answered best."""
    groups = {uid: group for uid, group in loop.groups.items() if group.num_rollouts}
    ranked = sorted(groups, key=lambda uid: groups[uid].num_correct / groups[uid].num_rollouts)
    last = max(1, number - 1)
    uids = list(dict.fromkeys(ranked[(len(ranked) - 1) * place // last] for place in range(number) if ranked))
    first: dict[str, tuple[int, int, str]] = {}
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        uid, session, index = key_order(key)
        if uid in uids and not tag.get("is_padding", False):
            first[uid] = min(first.get(uid, (session, -index, key)), (session, -index, key))
    keys = [first[uid][2] for uid in uids if uid in first]
    if not keys:
        return []
    fields = ["prompts", "responses", "reward_model", "extra_fields"]
    data: Any = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
    columns = (data["prompts"].unbind(), data["responses"].unbind(), *(_listed(data[name]) for name in fields[2:]))
    found = []
    for key, prompt, response, reward, extra in zip(keys, *columns, strict=True):
        group = groups[key_order(key)[0]]
        text, asked = (tokenizer.decode(ids.tolist(), skip_special_tokens=True) for ids in (response, prompt))
        found.append(
            RolloutSeen(
                step=loop.state.step + 1,
                interval=loop.state.interval - (loop.ended is not None),
                prompt_id=group.prompt_id,
                prompt=_shortened(asked),
                text=_shortened(text),
                answer=_shortened(str(reward.get("ground_truth"))),
                correct=correctness(extra) == 1,
                method=extra.get("reward_extra_info", {}).get("method"),
                num_correct=group.num_correct,
                num_rollouts=group.num_rollouts,
            )
        )
    return found


def _listed(column: Any) -> list[Any]:
    """What is no tensor: a list already, or tensordict's own kind of one."""
    return list(column.tolist() if hasattr(column, "tolist") else column)


def _shortened(text: str) -> str:
    """Its beginning and its end, where the answer is."""
    half = _MOST_CHARS // 2
    return text if len(text) <= _MOST_CHARS else f"{text[:half]} ... {text[-half:]}"


def table_rows(events: Iterable[Event]) -> list[Row]:
    """A step's sample rollouts, and its phase's demonstrations with the tokens in the loss between « and »."""
    rows: list[Row] = []
    for event in events:
        if isinstance(event, RolloutSeen):
            verdict = "correct" if event.correct else "wrong"
            rows.append((event.step, "rollout", event.prompt_id, event.prompt, event.text, event.answer, verdict, None))
        if isinstance(event, UpdateMade) and isinstance(event.inspection, dict):
            for one in (event.inspection.get("tokens") or {}).get("examples", ()):
                text = marked(one["tokens"], one["kept"])
                rows.append(
                    (event.step, "demonstration", one["prompt_id"], one["prompt"], text, "", "", sum(one["kept"]))
                )
    return rows


def marked(tokens: Sequence[str], kept: Sequence[int]) -> str:
    """The text of the tokens, those kept between « and »."""
    text = "".join(f"«{token}»" if is_kept else token for token, is_kept in zip(tokens, kept, strict=True))
    return text.replace("»«", "")


def log_table(trackers: dict[str, Any], rows: Sequence[Row], step: int) -> None:
    """Hand a table to verl's trackers that take one: W&B's, MLflow's and TensorBoard's."""
    for name, tracker in trackers.items() if rows else ():
        if name in ("wandb", "vemlp_wandb"):
            tracker.log({TABLE: tracker.Table(columns=list(COLUMNS), data=[list(row) for row in rows])}, step=step)
        elif name == "tensorboard":
            lines = ["|" + "|".join(_cell(value) for value in row) + "|" for row in rows]
            head = ["|" + "|".join(COLUMNS) + "|", "|" + "---|" * len(COLUMNS)]
            tracker.writer.add_text(TABLE, "\n".join([*head, *lines]), step)
        elif name == "mlflow":
            import mlflow  # as verl does, only if a run logs to it

            columns = zip(*rows, strict=True)
            table = {column: list(values) for column, values in zip(COLUMNS, columns, strict=True)}
            mlflow.log_table(data=table, artifact_file="mifo_samples.json")


def _cell(value: object) -> str:
    return str("" if value is None else value).replace("|", "\\|").replace("\n", "<br>")
