"""What every rank keeps of an interval, beside verl's checkpoint: ``global_step_N/mifo/`` (safetensors, no pickle).

Each rank writes its own shards of theta_start, the importance history, the mask held and the SFT phase's own optimizer.
They are read back for the same number of ranks only.
"""

from collections.abc import Iterable
from pathlib import Path

from mifo_verl.verl.shards import rank_file

FOLDER = "mifo"


def require_every_rank(folder: Path, ranks: int, roles: Iterable[str]) -> None:
    """Every rank's files are in a checkpoint's folder, as seen here. Raises OSError with those that are not."""
    engine = ("model", "optim", "extra_state")
    names = [
        f"{role}/{part}_world_size_{ranks}_rank_{rank}.pt" for role in roles for part in engine for rank in range(ranks)
    ]
    names += [str(rank_file(Path(FOLDER), rank, ranks)) for rank in range(ranks)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OSError(
            f"{len(missing)} of the ranks' {len(names)} files are missing, such as {', '.join(missing[:3])}: "
            "trainer.default_local_dir must be a folder that all nodes share"
        )
