"""The data's files and rows: bad rows by reason, and validation prompts that are trained on."""

from contextlib import suppress

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.run import FILES, Run
from mifo_verl.data.bad_rows import Reason, excerpt
from mifo_verl.data.report import BadRows, FileReport, report_of

PROMPT = "data.max_prompt_length"
_MOST_TOKENISED = 500


def check_files(run: Run, found: Findings) -> None:
    """The files are there, parquet, and have the columns."""
    key = run.get("data.prompt_key")
    rule = "prompt, by which a demonstration's prompt is known"
    found.require(key == "prompt", "data.prompt_key", key, rule, "rename the column to prompt")
    for setting in FILES:
        try:
            scans = run.read(setting)
        except (ValueError, OSError) as error:
            found.error(str(error))
            continue
        rows = sum(scan.num_rows for scan in scans)
        found.require(rows > 0, setting, run.get(setting), "a file with rows", "prepare it again")
        found.note(f"{setting}: {rows} rows")


def check_rows(run: Run, found: Findings) -> None:
    """Bad rows by reason: errors, or warnings where they are skipped."""
    longest = 0
    with suppress(NotChecked, ValueError):  # no tokenizer, or a template that refuses: the rest is said all the same
        longest = find_long_prompts(run)
    for report in run.reports:
        for bad in report.bad:
            is_long = bad.reason == Reason.LONG_PROMPT.value
            add_bad_rows(run, found, report, bad, f"write {PROMPT}={longest}" if is_long else "correct them")
    if not found.has_error(*FILES):
        found.note(", ".join(f"{file.num_good_rows} good rows" for file in run.reports))


def find_long_prompts(run: Run) -> int:
    """Mark the rows whose prompt is too long, where verl filters none; returns the tokens of the longest, 0 if none is.

    A text has no more tokens than bytes, and a template adds no more than all tokens of the shortest prompt. Of the
    prompts that may be longer by that, the longest 500 are tokenised.
    """
    limit, longest = run.get(PROMPT), 0
    for place, (setting, scan) in enumerate(() if run.get("data.filter_overlong_prompts") else run.readable):
        good = sorted(scan.good_rows(), key=scan.prompt_bytes.__getitem__)
        room = limit - len(run.render(scan.messages(good[0]), tokenize=True)) if good else limit
        for row in [row for row in good if scan.prompt_bytes[row] > room][-_MOST_TOKENISED:]:
            messages = scan.messages(row)
            tokens = len(run.render(messages, tokenize=True))
            if tokens > limit:
                scan.bad[row] = Reason.LONG_PROMPT
                longest = max(longest, tokens)
                scan.texts[row] = f"{tokens} tokens against {limit}: {excerpt(messages[-1]['content'])}"
        run.reports[place] = report_of(scan, setting)
    return longest


def check_overlap(run: Run, found: Findings) -> None:
    """Validation prompts that are trained on."""
    trained = {key for scan in run.scans("data.train_files") for key in scan.keys if key is not None}
    keys = [key for scan in run.scans("data.val_files") for key in scan.keys if key is not None]
    shared = sum(key in trained for key in keys)
    message = f"has {shared} of its {len(keys)} prompts in data.train_files, the same texts: accuracies say less"
    found.advise(not shared, "data.val_files", run.get("data.val_files"), message, "validate on other prompts")


def add_bad_rows(run: Run, found: Findings, report: FileReport, bad: BadRows, cure: str = "correct them") -> None:
    """One finding for a reason of a file: its rows, the first of them shown, and a cure; skipped if rows are left."""
    rows = ", ".join(f"row {shown['row']}" for shown in bad.first) + (" ..." if bad.num_rows > len(bad.first) else "")
    text = f"{report.setting}={report.path}: {bad.num_rows} x {bad.reason} ({rows}) must have {bad.rule}"
    if bad.first[0]["text"]:
        text += f" [{bad.first[0]['text'].replace('; ', ', ')}]"
    if not report.num_good_rows:
        found.error(f"{text}, and no row is good; {cure}")
    elif run.get("data.on_bad_row") == "skip":
        found.warn(text, "skipped, as data.on_bad_row=skip says")
    else:
        found.error(f"{text}; {cure}, or data.on_bad_row=skip to train without them")
