"""A checkpoint of ours as a Hugging Face folder, by verl's own model merger in a process of its own.

verl's merger rounds to bfloat16. A run on a CPU trains and validates in float32: for such an evaluation the merger is
asked to leave the weights as they are, so that the table shows the model that the curve showed. And it writes a LoRA
adapter beside the weights, where nobody who loads the folder would find it: here it is folded into them, in float32
and as for the rollout server, and rounded after that.
``python -m mifo_verl.verl.merge <dtype> merge --backend fsdp --local_dir <actor> --target_dir <folder>`` is verl's
command line with both.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = "merged_from"
"""In the merged folder: the shards that it was made of, by name, size and time."""
ADAPTER = "lora_train_meta.json"
"""In a checkpoint's actor folder: rank and alpha of the adapter, as verl writes them."""


def merged_folder(checkpoint: Path, dtype: str) -> Path:
    """``<checkpoint>/huggingface_<dtype>`` with weights, config and tokenizer, made where it is missing or stale.

    ``checkpoint`` is a folder global_step_<n>; ``dtype`` is float32 or bfloat16. Raises ValueError where the checkpoint
    is incomplete or the merger fails.
    """
    actor = checkpoint / "actor"
    shards = sorted(actor.glob("model_world_size_*_rank_*.pt"))
    described = all((actor / name).is_file() for name in ("fsdp_config.json", "huggingface/config.json"))
    if not shards or not described:
        raise ValueError(
            f"model={checkpoint} must hold actor/model_world_size_<W>_rank_<R>.pt, actor/fsdp_config.json and "
            "actor/huggingface/config.json; save it with trainer.save_freq=<steps>"
        )
    source = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in shards}
    folder = checkpoint / f"huggingface_{dtype}"
    if (folder / SOURCE).is_file() and json.loads((folder / SOURCE).read_text()) == source:
        return folder
    unfinished = checkpoint / f".huggingface_{dtype}.{os.getpid()}"
    try:
        _merge(actor, unfinished, dtype)
        say_dtype(unfinished / "config.json", dtype)
        (unfinished / SOURCE).write_text(json.dumps(source) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _merge(actor: Path, folder: Path, dtype: str) -> None:
    is_verls = dtype == "bfloat16" and not (actor / ADAPTER).exists()
    module = ["verl.model_merger"] if is_verls else ["mifo_verl.verl.merge", dtype]
    command = [sys.executable, "-m", *module, "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(folder)]
    print(f"converting {actor} to {dtype}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VERL_PLATFORM": "cpu"})
    if done.returncode or not (folder / "config.json").is_file():
        raise ValueError(f"model={actor} could not be merged by {module[0]}: {done.stderr.strip()[-500:]}")


def say_dtype(config: Path, dtype: str) -> None:
    """Let ``config.json`` say the dtype of the weights: verl's merger writes bfloat16, whatever they are."""
    said = json.loads(config.read_text())
    said.pop("torch_dtype", None)
    config.write_text(json.dumps(said | {"dtype": dtype}, indent=2) + "\n")


def _main(dtype: str) -> None:
    """verl's command line; the call that rounds every shard gives float32 instead, and an adapter is folded in."""
    import torch
    from verl.model_merger.__main__ import main
    from verl.model_merger.base_model_merger import BaseModelMerger

    from mifo_verl.verl.adapter import folded, is_adapter

    def to_float32(tensor: Any) -> Any:
        return tensor.float()

    def fold_adapter(merger: Any, state: dict[str, Any]) -> None:
        if any(map(is_adapter, state)):
            meta = json.loads((Path(merger.config.local_dir) / ADAPTER).read_text())
            whole = {n: w.to(getattr(torch, dtype)) for n, w in folded(state, meta["lora_alpha"] / meta["r"])}
            state.clear()
            state.update(whole)

    torch.Tensor.bfloat16 = to_float32  # type: ignore[method-assign, assignment]  # this process does nothing else
    BaseModelMerger.save_lora_adapter = fold_adapter
    main()


if __name__ == "__main__":
    _main(sys.argv.pop(1))
