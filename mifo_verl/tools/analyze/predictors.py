"""Which number of a model, taken before RL, foretells its accuracy after RL: ``mifo analyze predictors``.

Quagmires in SFT-RL Post-Training (arXiv 2510.01624): accuracy after SFT misleads; the loss on held-out demonstrations
and pass@k at large k rank start models better by where RL takes them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from scipy.stats import pearsonr, spearmanr

from mifo_verl.errors import require
from mifo_verl.tools.command_line import require_writable
from mifo_verl.tools.evaluate.__main__ import evaluate
from mifo_verl.tools.evaluate.settings import parse_settings
from mifo_verl.tools.report.run import load_all
from mifo_verl.tools.sweep.numbers import ACCURACY, numbers_of
from mifo_verl.tools.sweep.store import is_finished, read_sweep
from mifo_verl.tools.tables import print_frame

LOSS = "cross_entropy"
FEWEST = 3
"""Start models: of two, every rank correlation is 1 or -1."""


def rank_correlations(numbers: Mapping[str, Sequence[float]], after: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Of every number: Spearman's rho with what came after, its two-sided p-value, R^2 of a line, and the models n.

    The first three are None where all models have the same value. Equal values share their mean rank.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, values in numbers.items():
        found[name] = {"spearman": None, "p": None, "r2": None, "n": len(values)}
        if len(set(values)) > 1 and len(set(after)) > 1:
            rho, p = spearmanr(values, after)
            found[name] |= {"spearman": float(rho), "p": float(p), "r2": float(pearsonr(values, after)[0]) ** 2}
    return found


def numbers_before(table: Mapping[str, Any]) -> dict[str, float]:
    """What an evaluation says of a model: means over its benchmarks of accuracy, pass@k and cross-entropy."""
    means = {name: value["mean"] for name, value in table["average"].items() if not name.startswith("maj@")}
    losses = [one[LOSS] for one in table["benchmarks"].values() if one[LOSS] is not None]
    return means | ({LOSS: fmean(losses)} if losses else {})


def predictors(arguments: Sequence[str]) -> None:
    """``predictors <sweep folder> benchmarks=[...] [setting=value ...]``. Raises ValueError on mistakes.

    Evaluates the start model of every finished run, once, and writes ``predictors.json`` into ``out``.
    """
    folders = [Path(one) for one in arguments if "=" not in one]
    require(len(folders) == 1, "folders", len(folders), "the folder of one sweep", "see --help")
    after = accuracy_after(folders[0])
    rule = f"finished runs from at least {FEWEST} start models; sweep actor_rollout_ref.model.path, then ask again"
    if len(after) < FEWEST:
        raise ValueError(f"{folders[0]} must hold {rule} ({len(after)} there)")
    settings = replace(parse_settings(["model=given", *(one for one in arguments if "=" in one)]), model=tuple(after))
    require_writable("out", settings.out / "predictors.json", makes_folders=True)
    before = [numbers_before(table) for table in evaluate(settings)]
    shared = [name for name in before[0] if all(name in one for one in before)]
    ends = [fmean(values) for values in after.values()]
    found = rank_correlations({name: [one[name] for one in before] for name in shared}, ends)
    models = [
        {"start": start, **{name: one[name] for name in shared}, "after_rl": end, "runs": len(after[start])}
        for start, one, end in zip(after, before, ends, strict=True)
    ]
    (settings.out / "predictors.json").write_text(
        json.dumps({"models": models, "correlations": found}, indent=1) + "\n"
    )
    print_frame(pd.DataFrame(models).map(_cell), "before RL, and the accuracy after it (mean over the runs)")
    rows = [{"before RL": name} | {key: _cell(value) for key, value in one.items()} for name, one in found.items()]
    print_frame(pd.DataFrame(rows), "rank correlation with the accuracy after RL")
    print(f"the same in {settings.out / 'predictors.json'}")


def accuracy_after(sweep: Path) -> dict[str, list[float]]:
    """The accuracies at the end of a sweep's finished runs, by the model that each started from, as it is written."""
    folders = [sweep / run.name for run in read_sweep(sweep).runs if is_finished(sweep / run.name)]
    found: dict[str, list[float]] = defaultdict(list)
    for run in load_all(folders) if folders else []:
        if (end := numbers_of(run).get(ACCURACY)) is not None:
            found[str(run.config["actor_rollout_ref"]["model"]["path"])].append(end)
    return dict(found)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
