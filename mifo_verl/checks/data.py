"""The data's files and rows: bad rows by reason, and validation prompts that are trained on."""

from contextlib import suppress

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.run import FILES, Run
from mifo_verl.data.bad_rows import Reason, excerpt
from mifo_verl.data.report import BadRows, FileReport, report_of

CURE = "correct them, or data.on_bad_row=skip to train without them"
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
    with suppress(NotChecked):  # no tokenizer: the rest is said all the same
        find_long_prompts(run)
    for report in run.reports:
        for bad in report.bad:
            add_bad_rows(run, found, report, bad)
        if report.num_rows and not report.num_good_rows and run.get("data.on_bad_row") == "skip":
            found.error(f"{report.setting}={report.path} must have a row that is not bad; correct the file")
    if not found.has_error(*FILES):
        found.note(", ".join(f"{file.num_good_rows} good rows" for file in run.reports))


def find_long_prompts(run: Run) -> None:
    """Mark the rows whose prompt is longer than the run's, where verl does not filter them itself.

    A prompt of no more bytes than tokens allowed cannot be too long; of the others, the longest 500 are tokenised.
    """
    limit = run.get("data.max_prompt_length")
    for place, (setting, scan) in enumerate(() if run.get("data.filter_overlong_prompts") else run.readable):
        long = [row for row in scan.good_rows() if scan.prompt_bytes[row] > limit]
        for row in sorted(long, key=scan.prompt_bytes.__getitem__)[-_MOST_TOKENISED:]:
            messages = scan.messages(row)
            tokens = len(run.render(messages, tokenize=True))
            if tokens > limit:
                scan.bad[row] = Reason.TOO_LONG
                scan.texts[row] = f"{tokens} tokens against {limit}: {excerpt(messages[-1]['content'])}"
        run.reports[place] = report_of(scan, setting)


def check_overlap(run: Run, found: Findings) -> None:
    """Validation prompts that are trained on."""
    trained = {key for scan in run.scans("data.train_files") for key in scan.keys if key is not None}
    keys = [key for scan in run.scans("data.val_files") for key in scan.keys if key is not None]
    shared = sum(key in trained for key in keys)
    message = f"has {shared} of its {len(keys)} prompts in data.train_files, the same texts: accuracies say less"
    found.advise(not shared, "data.val_files", run.get("data.val_files"), message, "validate on other prompts")


def add_bad_rows(run: Run, found: Findings, report: FileReport, bad: BadRows) -> None:
    """One finding for a reason of a file. The rows are named, and the first is shown."""
    rows = ", ".join(f"row {shown['row']}" for shown in bad.first) + (" ..." if bad.num_rows > len(bad.first) else "")
    text = f"{report.setting}={report.path}: {bad.num_rows} x {bad.reason} ({rows}) must have {bad.rule}"
    if bad.first[0]["text"]:
        text += f" [{bad.first[0]['text'].replace('; ', ', ')}]"
    if run.get("data.on_bad_row") == "skip":
        found.warn(text, "skipped, as data.on_bad_row=skip says")
    else:
        found.error(f"{text}; {CURE}")
