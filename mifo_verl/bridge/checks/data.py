"""The data: bad rows by reason, lengths and demonstrations on a sample, under the run's own tokenizer and reward."""

import time
from typing import Any

from mifo_verl.bridge.checks.findings import Findings, NotChecked
from mifo_verl.bridge.checks.reward import is_right, reward_of
from mifo_verl.bridge.checks.run import Run
from mifo_verl.data.bad_rows import Reason, RowScan, excerpt
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.report import NUM_SHOWN, BadRows, FileReport, report_of

VERIFY_SECONDS = 2.5
"""Time for the reward on demonstrations; a sample that takes longer is cut, and its size reported."""
_MOST_TOKENISED = 500
CURE = "correct them, or data.on_bad_row=skip to train without them"


def check_files(run: Run, found: Findings) -> None:
    """The files are there, parquet, and have the columns."""
    key = run.get("data.prompt_key")
    found.require(key == "prompt", "data.prompt_key", key, "prompt, by which a demonstration's prompt is known", "rename the column to prompt")
    for setting in ("data.train_files", "data.val_files"):
        try:
            scans = run.scans(setting)
        except (ValueError, OSError) as error:
            found.error(str(error))
            continue
        rows = sum(scan.num_rows for scan in scans)
        found.require(rows > 0, setting, run.get(setting), "a file with rows", "prepare it again")
        found.note(f"{setting}: {rows} rows")


def check_rows(run: Run, found: Findings) -> None:
    """Bad rows by reason: errors, or warnings where they are skipped."""
    find_long_prompts(run)
    for scan, report in zip(all_scans(run), run.reports, strict=True):
        for bad in report.bad:
            _add(run, found, report, bad)
        if scan.num_rows and not scan.good_rows() and run.get("data.on_bad_row") == "skip":
            found.error(f"{report.setting}={report.path} must have a row that is not bad; correct the file")
    if not found.has_error("data.train_files", "data.val_files"):
        found.note(", ".join(f"{file.num_good_rows} good rows" for file in run.reports))


def all_scans(run: Run) -> list[RowScan]:
    """The scans in the order of ``run.reports``."""
    return [scan for setting in ("data.train_files", "data.val_files") for scan in run.scans(setting)]


def find_long_prompts(run: Run) -> None:
    """Mark the rows whose prompt is longer than the run's, where verl does not filter them itself.

    A prompt of no more bytes than tokens allowed cannot be too long; of the others, the longest 500 are tokenised.
    """
    limit = run.get("data.max_prompt_length")
    if run.get("data.filter_overlong_prompts"):
        return
    for place, scan in enumerate(all_scans(run)):
        long = [row for row in scan.good_rows() if scan.prompt_bytes[row] > limit]
        for row in sorted(long, key=lambda row: -scan.prompt_bytes[row])[:_MOST_TOKENISED]:
            messages = [dict(zip(("role", "content"), part.split("\0"), strict=True)) for part in str(scan.keys[row]).split("\1")]
            tokens = len(run.render(messages, tokenize=True))
            if tokens > limit:
                scan.bad[row] = Reason.TOO_LONG
                scan.texts[row] = f"{tokens} tokens, data.max_prompt_length={limit}: {excerpt(messages[-1]['content'])}"
        run.reports[place] = report_of(scan, run.reports[place].setting)


def check_lengths(run: Run, found: Findings) -> None:
    """Prompts and demonstrations of the sample against the run's lengths."""
    prompt_limit, response_limit = run.get("data.max_prompt_length"), run.get("data.max_response_length")
    prompts, too_long, demonstrations, long_demonstrations = 0, 0, 0, 0
    for scan, report in zip(run.scans("data.train_files"), run.reports, strict=False):
        for number, row in _good_sample(scan):
            tokens = len(run.render(row["prompt"], tokenize=True))
            report.sample.prompt_tokens = max(report.sample.prompt_tokens, tokens)
            prompts, too_long = prompts + 1, too_long + (tokens > prompt_limit)
            demonstration = demonstration_of(row)
            if demonstration is None:
                continue
            tokens = len(run.tokenizer.encode(demonstration.text, add_special_tokens=False)) + 1
            report.sample.demonstration_tokens = max(report.sample.demonstration_tokens, tokens)
            demonstrations += 1
            if tokens > response_limit:
                report.sample.too_long.append(number)
        long_demonstrations += len(report.sample.too_long)
        _warn_of_sample(found, report, report.sample.too_long, "long_demonstration", f"longer than data.max_response_length={response_limit} tokens")
    filtered = too_long and run.get("data.filter_overlong_prompts")
    if prompts:
        share = f"longer than {too_long} of the {prompts} prompts of a sample"
        found.require(too_long < prompts, "data.max_prompt_length", prompt_limit, f"no less than every prompt: it is exceeded by all {prompts} of a sample", "make it larger")
        found.advise(not filtered, "data.max_prompt_length", prompt_limit, f"filters {too_long} of the {prompts} prompts of a sample out", "make it larger, or leave them out")
    if demonstrations and run.trains_on_demonstrations:
        rule = f"room for a demonstration: all {demonstrations} of a sample are longer"
        found.require(long_demonstrations < demonstrations, "data.max_response_length", response_limit, rule, "make it larger")
    found.note(_longest(run))


def check_demonstrations(run: Run, found: Findings) -> None:
    """Demonstrations of the sample under the run's own reward: one that contradicts the answer is a bad row."""
    if not run.trains_on_demonstrations:
        raise NotChecked("not needed: no SFT phase")
    score = reward_of(run)
    deadline = time.monotonic() + VERIFY_SECONDS
    for scan, report in zip(run.scans("data.train_files"), run.reports, strict=False):
        sample = report.sample
        for number, row in _good_sample(scan):
            demonstration = demonstration_of(row)
            sample.rows += 1
            if demonstration is None or time.monotonic() > deadline:
                continue
            sample.demonstrations += 1
            right = is_right(score(row, demonstration.text, demonstration.answer))
            sample.verified += right
            if not right:
                sample.wrong.append(number)
        _report_wrong(run, found, scan, report)
    total = sum(report.sample.demonstrations for report in run.reports)
    verified = sum(report.sample.verified for report in run.reports)
    rule = f"data whose demonstrations the run's own reward finds right: it found none of {total} right"
    found.require(not total or verified > 0, "data.train_files", run.get("data.train_files"), rule, "see docs/check.md; is the answer in the form that the reward reads?")
    found.note(f"{verified} of {total} demonstrations of a sample verify")


def check_overlap(run: Run, found: Findings) -> None:
    """Validation prompts that are trained on."""
    trained = {key for scan in run.scans("data.train_files") for key in scan.keys if key is not None}
    keys = [key for scan in run.scans("data.val_files") for key in scan.keys if key is not None]
    shared = sum(key in trained for key in keys)
    message = f"has {shared} of its {len(keys)} prompts in data.train_files, the same texts: accuracies say less"
    found.advise(not shared, "data.val_files", run.get("data.val_files"), message, "validate on other prompts")


def _good_sample(scan: RowScan) -> list[tuple[int, dict[str, Any]]]:
    return [(number, row) for number, row in sorted(scan.sample.items()) if number not in scan.bad]


def _add(run: Run, found: Findings, report: FileReport, bad: BadRows) -> None:
    """One finding for a reason of a file. The rows are named, and the first is shown."""
    rows = ", ".join(f"row {shown['row']}" for shown in bad.first) + (" ..." if bad.num_rows > len(bad.first) else "")
    text = f"{report.setting}={report.path}: {bad.num_rows} x {bad.reason} ({rows}) must have {bad.rule}"
    if bad.first[0]["text"]:
        text += f" [{bad.first[0]['text'].replace('; ', ', ')}]"
    if run.get("data.on_bad_row") == "skip":
        found.warn(text, "skipped, as data.on_bad_row=skip says")
    else:
        found.error(f"{text}; {CURE}")


def _report_wrong(run: Run, found: Findings, scan: RowScan, report: FileReport) -> None:
    """Wrong demonstrations as a reason of their own."""
    wrong = report.sample.wrong
    if not wrong:
        return
    rule = f"demonstrations that lead to reward_model.ground_truth by the run's own reward, and {len(wrong)} of {report.sample.demonstrations} of a sample do not"
    first = [{"row": row, "text": f"ground_truth={scan.sample[row]['reward_model']['ground_truth']}, target=...{str(scan.sample[row]['target'][0]['content'])[-80:]!r}"} for row in wrong[:NUM_SHOWN]]
    bad = BadRows("wrong_demonstration", rule, len(wrong), first)
    report.bad.append(bad)
    _add(run, found, report, bad)


def _warn_of_sample(found: Findings, report: FileReport, rows: list[int], reason: str, what: str) -> None:
    if rows:
        named = ", ".join(f"row {row}" for row in rows[:NUM_SHOWN]) + (" ..." if len(rows) > NUM_SHOWN else "")
        message = f"{report.setting}={report.path}: {len(rows)} x {reason} ({named}) of a sample, {what}"
        found.warn(message, "such a demonstration is never trained on, and counted; its prompt is")


def _longest(run: Run) -> str:
    samples = [report.sample for report in run.reports]
    prompt, response = max(s.prompt_tokens for s in samples), max(s.demonstration_tokens for s in samples)
    return f"longest of a sample: prompt {prompt}, demonstration {response} tokens"
