"""A sample of the training rows under the run's own tokenizer and reward: lengths, demonstrations that verify."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow.parquet as pq

from mifo_verl.checks.data import add_bad_rows
from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.reward import NODE, Score, is_right, reward_of
from mifo_verl.checks.run import OPTIONS, Run
from mifo_verl.data.bad_rows import NUM_SHOWN, RowScan
from mifo_verl.data.demonstrations import TEACHER as COLUMN
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.report import BadRows, FileReport
from mifo_verl.data.sft_batch import continuation, tokens_sha256
from mifo_verl.method.token_facts import TEACHER

SECONDS = 2.5
"""Time for the tokenizer, and again for the reward; a sample that takes longer is cut, and its size reported."""
_SHOWN_TOKENS = 30
_TEACHER_ROWS = 32
_TRAIN, _PROMPT, _RESPONSE = "data.train_files", "data.max_prompt_length", "data.max_response_length"


def check_lengths(run: Run, found: Findings) -> None:
    """Prompts and demonstrations of the sample against the run's lengths."""
    prompts, responses, deadline = [], [], time.monotonic() + SECONDS
    for scan, report in zip(run.scans(_TRAIN), run.reports, strict=False):
        here = [(row, *_lengths(run, whole)) for row, whole in _good_sample(scan) if time.monotonic() < deadline]
        report.sample.prompt_tokens = max((prompt for _, prompt, _ in here), default=0)
        report.sample.demonstration_tokens = max((response for _, _, response in here), default=0)
        report.sample.too_long = [row for row, _, response in here if response > run.get(_RESPONSE)]
        prompts += [prompt for _, prompt, _ in here]
        responses += [response for _, _, response in here if response]
        _warn_of_long(run, found, report)
    _judge_prompts(run, found, prompts)
    limit = run.get(_RESPONSE)
    if responses and run.trains_on_demonstrations:
        rule = f"room for a demonstration: all {len(responses)} of a sample are longer"
        found.require(min(responses) <= limit, _RESPONSE, limit, rule, f"write {_RESPONSE}={max(responses)}")
    longest = f"prompt {max(prompts, default=0)}, demonstration {max(responses, default=0)} tokens"
    found.note(f"longest of {len(prompts)} rows: {longest}")


def _lengths(run: Run, row: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt, and of the demonstration with its end token; 0 without one."""
    return len(run.render(row["prompt"], tokenize=True)), len(_response_ids(run, row))


def _response_ids(run: Run, row: dict[str, Any]) -> list[int]:
    """The demonstration's tokens, its end token among them; empty without one."""
    demonstration = demonstration_of(row)
    if demonstration is None:
        return []
    text = continuation(demonstration.text, run.render(row["prompt"], tokenize=False))
    return [*run.tokenizer.encode(text, add_special_tokens=False), run.tokenizer.eos_token_id]


def _judge_prompts(run: Run, found: Findings, prompts: list[int]) -> None:
    limit, number = run.get(_PROMPT), len(prompts)
    too_long = sum(prompt > limit for prompt in prompts)
    if too_long and run.get("data.filter_overlong_prompts"):
        rule = f"room for a prompt: all {number} of a sample are longer and would be filtered out"
        cure = f"write {_PROMPT}={max(prompts)}"
        if found.require(too_long < number, _PROMPT, limit, rule, cure):
            says = f"filters {too_long} of the {number} prompts of a sample out"
            found.advise(False, _PROMPT, limit, says, f"{cure}, or train without them")


def _warn_of_long(run: Run, found: Findings, report: FileReport) -> None:
    rows = report.sample.too_long
    if rows and run.trains_on_demonstrations:
        named = ", ".join(f"row {row}" for row in rows[:NUM_SHOWN]) + (" ..." if len(rows) > NUM_SHOWN else "")
        found.warn(
            f"{report.setting}={report.path}: {len(rows)} x long_demonstration ({named}) of a sample are longer than "
            f"{_RESPONSE}={run.get(_RESPONSE)} tokens",
            f"such a demonstration is never trained on, and counted (its prompt is); {_RESPONSE}="
            f"{report.sample.demonstration_tokens} takes them all",
        )


def check_pair(run: Run, found: Findings) -> None:
    """One prompt with its demonstration as it is trained on: its first tokens, tags and tokens that come twice."""
    rows = [row for scan in run.scans(_TRAIN) for _, row in _good_sample(scan) if demonstration_of(row)]
    if not rows:
        raise NotChecked("not needed: no row of a sample has a demonstration")
    row, tokenizer, name = rows[0], run.tokenizer, "chat_template"
    ids = [*run.render(row["prompt"], tokenize=True), *_response_ids(run, row)]
    run.pair = [tokenizer.decode([token]) for token in ids[:_SHOWN_TOKENS] if token is not None]
    _check_tags(run, found, rows)
    bos, first = tokenizer.bos_token_id, tokenizer.encode("a")[:1]
    doubled = bos is not None and any(a == b == bos for a, b in pairwise(ids))
    rule = f"writes {tokenizer.bos_token} twice in a row"
    found.advise(not doubled, name, "the tokenizer's", rule, "take it out of the template")
    rule = f"begins without {tokenizer.bos_token}, which the tokenizer puts before any other text"
    found.advise(first != [bos] or ids[:1] == first, name, "the tokenizer's", rule, "begin it with {{ bos_token }}")
    behind = run.render_answered(row["prompt"])[1].strip()
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    end = next((token for token in added if behind.startswith(token)), "")
    rule = f"ends an answer with {behind!r}, and a demonstration ends with the end token {tokenizer.eos_token}"
    cure = f"write eos_token={end} into tokenizer_config.json" if end else "write {{ eos_token }} behind the answer"
    found.advise(behind.startswith(str(tokenizer.eos_token)), name, "the tokenizer's", rule, cure)
    found.note(f"a training pair begins {' '.join(map(repr, run.pair))}")


def _check_tags(run: Run, found: Findings, rows: list[dict[str, Any]]) -> None:
    """Every answer of the sample opens and closes <think> once, or never, the template's part of it included."""

    def odd(**options: bool) -> Iterator[tuple[int, int]]:
        prompt = run.render(rows[0]["prompt"], tokenize=False, **options)
        opened = prompt.rpartition((rows[0]["prompt"][-1]["content"] or "").strip())[2]
        for demonstration in filter(None, map(demonstration_of, rows)):
            pair = opened + continuation(demonstration.text, opened)
            tags = pair.count("<think>"), pair.count("</think>")
            if tags not in ((0, 0), (1, 1)):
                yield tags

    wrong = list(odd())
    if not wrong:
        return
    cure = "correct the demonstrations, or take the tags out of the template"
    for thinks in (True, False) if "enable_thinking" in str(run.tokenizer.chat_template) else ():
        if len(list(odd(enable_thinking=thinks))) < len(wrong):
            cure = f"write ++{OPTIONS}.enable_thinking={str(thinks).lower()}"
    rule = f"and {len(wrong)} of {len(rows)} demonstrations do not go together: {wrong[0][0]} opening tags <think> and "
    rule += f"{wrong[0][1]} closing ones in a training pair, and not one of each, or none"
    found.advise(False, "chat_template", "the tokenizer's", rule, cure)


def check_answers(run: Run, found: Findings) -> None:
    """Answers of the sample that the run's own reward can read: any other would be graded by its letters alone."""
    if found.has_failed("reward"):
        raise NotChecked("not checked: the reward comes first")
    is_readable = getattr(reward_of(run), "is_readable", None)
    if is_readable is None:
        raise NotChecked("not needed: the reward says nothing of the answers that it reads")
    deadline, number = time.monotonic() + SECONDS, 0
    for (_, scan), report in zip(run.readable, run.reports, strict=True):
        first = []
        for row, whole in _good_sample(scan):
            answer = str(whole["reward_model"]["ground_truth"])
            if time.monotonic() < deadline:
                number += 1
                if not is_readable(answer):
                    first.append({"row": row, "text": f"ground_truth={answer[:80]}"})
        if first:
            rule = f"answers that the run's reward can read, and {len(first)} of a sample cannot be read"
            report.bad.append(BadRows("unreadable_answer", rule, len(first), first[:NUM_SHOWN]))
            add_bad_rows(run, found, report, report.bad[-1])
    found.note(f"{number} answers of a sample can be read")


def check_demonstrations(run: Run, found: Findings) -> None:
    """Demonstrations of the sample under the run's own reward: one that contradicts the answer is a bad row."""
    if not run.trains_on_demonstrations:
        raise NotChecked("not needed: no SFT phase")
    if found.has_failed("reward"):
        raise NotChecked("not checked: the reward comes first")
    score, deadline = reward_of(run), time.monotonic() + SECONDS
    for scan, report in zip(run.scans(_TRAIN), run.reports, strict=False):
        _verify(score, scan, report, deadline)
        if report.sample.wrong:
            report.bad.append(_wrong(scan, report, run.get(f"{NODE}.reward_kwargs.require_think") is True))
            add_bad_rows(run, found, report, report.bad[-1])
    total = sum(report.sample.demonstrations for report in run.reports)
    verified = sum(report.sample.verified for report in run.reports)
    rule = f"data whose demonstrations the run's own reward finds right: it found none of {total} right"
    cure = "write the answers in the form that the reward reads"
    found.require(not total or verified > 0, _TRAIN, run.get(_TRAIN), rule, cure)
    found.note(f"{verified} of {total} demonstrations of a sample verify")


def check_teacher(run: Run, found: Findings) -> None:
    """The teacher's log-probabilities, if a part needs them: there, and of this run's own tokens."""
    if TEACHER not in run.mifo.sft_facts:
        raise NotChecked("not needed: no part compares with the teacher")
    cure = "make the column with mifo data teacher_log_probs, or choose another mifo/sft_loss"
    number = 0
    for scan in run.scans(_TRAIN):
        file = pq.ParquetFile(scan.path)
        rule = "data with the column target_log_probs, log p of each demonstration by the model that wrote it"
        if not found.require(COLUMN in file.schema_arrow.names, _TRAIN, scan.path, rule, cure):
            continue
        batch = next(file.iter_batches(_TEACHER_ROWS, columns=["prompt", "target", "reward_model", COLUMN]))
        own = [(row, ids) for row in batch.to_pylist() if (ids := _response_ids(run, row))]
        others = [row for row, ids in own if (row[COLUMN] or {}).get("tokens_sha256") != tokens_sha256(ids)]
        number += len(own)
        rule = f"data whose {COLUMN} are of this run's tokens, and {len(others)} of {len(own)} of a sample are not"
        found.require(not others, _TRAIN, scan.path, rule, f"{cure} (another tokenizer, template or text was used)")
    found.note(f"{number} demonstrations of a sample have the teacher's log-probabilities")


def check_format(run: Run, found: Findings) -> None:
    """Tags that the reward requires, and that nobody asks the model for."""
    name = f"{NODE}.reward_kwargs.require_think"
    if run.get(name) is not True:
        raise NotChecked("not needed: the reward requires no tags")
    rows = [row for scan in run.scans(_TRAIN) for _, row in _good_sample(scan)[:NUM_SHOWN]]
    asked = [str(run.tokenizer.chat_template), *(run.render(row["prompt"], tokenize=False) for row in rows)]
    found.advise(
        any("think>" in text for text in asked),
        name,
        True,
        "takes no answer for right that does not follow </think>, which neither the chat template nor the prompts of a "
        "sample speak of",
        "ask for <think> ... </think> in a system prompt, or leave it out where the model writes them unasked",
    )


def _verify(score: Score, scan: RowScan, report: FileReport, deadline: float) -> None:
    """Fill in the file's sample. Raises ValueError, naming the row, where the reward fails on it."""
    for number, row in _good_sample(scan):
        demonstration = demonstration_of(row)
        report.sample.rows += 1
        if demonstration is None or time.monotonic() > deadline:
            continue
        try:
            right = is_right(score(row, demonstration.text, demonstration.answer))
        except Exception as error:
            detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
            where = f"row {number} of {report.path}"
            raise ValueError(
                f"{NODE} must score every demonstration, and raised {detail} on {where}; correct it"
            ) from None
        report.sample.demonstrations += 1
        if right:
            report.sample.verified += 1
        else:
            report.sample.wrong.append(number)


def _wrong(scan: RowScan, report: FileReport, thinks: bool) -> BadRows:
    """Wrong demonstrations as a reason of their own; ``thinks``: the reward requires think tags."""
    wrong, number = report.sample.wrong, report.sample.demonstrations
    rule = (
        "demonstrations that lead to reward_model.ground_truth by the run's own reward, "
        f"and {len(wrong)} of {number} of a sample do not"
    )
    texts = [scan.sample[row]["target"][0]["content"] for row in wrong]
    if thinks and not any("</think>" in text for text in texts):
        setting = f"{NODE}.reward_kwargs.require_think"
        rule += f" ({setting}=true reads what follows </think>, which they lack: set it to false)"
    first = []
    for row in wrong[:NUM_SHOWN]:
        whole = scan.sample[row]
        truth, ending = whole["reward_model"]["ground_truth"], whole["target"][0]["content"][-80:]
        first.append({"row": row, "text": f"ground_truth={truth}, target=...{ending!r}"})
    return BadRows("wrong_demonstration", rule, len(wrong), first)


def _good_sample(scan: RowScan) -> list[tuple[int, dict[str, Any]]]:
    return [(number, row) for number, row in sorted(scan.sample.items()) if number not in scan.bad]
