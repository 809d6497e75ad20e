"""The predicted memory and disk of the run, against what the machine has."""

import shutil
from pathlib import Path
from typing import Any

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.machine import visible_gpus
from mifo_verl.checks.memory_plan import PHASES, Component, MemoryPlan, ModelShape, peak, predict, server_bytes, total
from mifo_verl.checks.run import Run, paths_of
from mifo_verl.method.head import CHUNK_LOGITS
from mifo_verl.verl.critic import has_critic

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
_BYTES = {"fp32": 4, "float32": 4, "float": 4}
_ROOM = 0.9
"""A prediction above this share of what there is gets a warning."""
ASSUMED_BYTES = 80 << 30
"""A GPU's memory where none is visible, as on a login node."""


def prediction(run: Run) -> list[Component]:
    """Every component. Raises NotChecked without a model that can be built."""
    return predict(shape_of(run), plan_of(run))


def shape_of(run: Run) -> ModelShape:
    """The model's shape, its parameters counted on the meta device, which holds no weight."""
    config = run.model_config
    if run.model_folder is None:
        raise NotChecked("not checked: the model's folder comes first")
    model = _meta_model(run, dict(config))
    units = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    heads = int(config["num_attention_heads"])
    base, adapter = sum(parameter.numel() for parameter in model.parameters()), _adapter_size(run, model)
    trains_base = not adapter or run.mifo.trains_base
    return ModelShape(
        num_parameters=base + adapter,
        num_trainable=adapter + base * trains_base,
        largest_unit=max(
            sum(parameter.numel() for parameter in module.parameters())
            for module in [*units, model.get_input_embeddings()]
        ),
        num_layers=int(config["num_hidden_layers"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config.get("intermediate_size") or 4 * config["hidden_size"]),
        num_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocab_size=int(config["vocab_size"]),
        is_tied=bool(model.config.tie_word_embeddings),
    )


def _adapter_size(run: Run, model: Any) -> int:
    """Weights of a LoRA adapter: rank * (inputs + outputs) of every matrix that has one; the head has none."""
    from torch.nn import Linear

    targets = run.get("actor_rollout_ref.model.target_modules")
    named = [] if targets == "all-linear" else paths_of(targets)
    return int(run.get("actor_rollout_ref.model.lora_rank") or 0) * sum(
        module.in_features + module.out_features
        for name, module in model.named_modules()
        if isinstance(module, Linear)
        and module is not model.get_output_embeddings()
        and (not named or any(name == one or name.endswith(f".{one}") for one in named))
    )


def _meta_model(run: Run, config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.get("auto_map"):
        raise NotChecked("not counted: the model brings its own code")
    overrides = dict(run.get("actor_rollout_ref.model.override_config") or {})
    overrides.pop("attn_implementation", None)
    try:
        built = AutoConfig.from_pretrained(run.model_folder, local_files_only=True, **overrides)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(built, attn_implementation="eager")
    except Exception as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"config.json must describe a model that transformers builds ({detail}); correct it") from None


def plan_of(run: Run) -> MemoryPlan:
    """The run's part of the count."""
    actor, rollout, probe = run.config.actor_rollout_ref.actor, run.config.actor_rollout_ref.rollout, run.mifo.probe
    fsdp, tensor = actor.fsdp_config, rollout.tensor_model_parallel_size
    compute = (fsdp.get("mixed_precision") or {}).get("param_dtype", "bf16")
    sequences, on_cpu = run.get("data.train_batch_size") * rollout.n, run.get("trainer.device") == "cpu"
    return MemoryPlan(
        ranks=run.num_ranks,
        ranks_a_node=run.get("trainer.n_gpus_per_node"),
        shard_ranks=run.num_ranks if fsdp.fsdp_size in (-1, None) else min(fsdp.fsdp_size, run.num_ranks),
        compute_bytes=_BYTES.get(compute, 2),
        tokens=_micro_batch_tokens(run),
        sft_logits=None if run.mifo.compares_logits else CHUNK_LOGITS,
        is_checkpointed=bool(run.get("actor_rollout_ref.model.enable_gradient_checkpointing")),
        offloads_parameters=bool(fsdp.param_offload),
        offloads_optimizer=bool(fsdp.optimizer_offload),
        keeps_start=run.mifo.keeps_start,
        state_on_host=not on_cpu and (run.mifo.state.device == "host" or bool(fsdp.param_offload)),
        inspects=run.mifo.inspect.mask and run.has_sft_phases,
        keeps_before_sft=run.mifo.keeps_before_sft,
        of_parts=tuple(cost for part in run.mifo.parts for cost in part.costs(run.facts_without_data)),
        probes_kl=probe.kl_to_start or (run.has_sft_phases and probe.shifts),
        sft_optimizer=run.mifo.sft.optimizer if run.has_sft_phases else "none",
        has_reference=run.has_reference,
        reference_bytes=_BYTES.get(str(run.get(f"{REF}.fsdp_config.model_dtype")), 2),
        has_critic=has_critic(run.config),
        rollout_bytes=_BYTES.get(str(rollout.dtype), 2),
        rollout_ranks=1 if on_cpu else tensor,
        rollout_share=None if on_cpu else float(rollout.gpu_memory_utilization),
        rollout_sleeps=bool(rollout.free_cache_engine),
        device_bytes=min(visible_gpus() or [ASSUMED_BYTES]),
        sequences_in_flight=min(rollout.max_num_seqs, -(-sequences * tensor // run.num_ranks)),
        sequence_tokens=run.max_tokens,
        rollouts=sequences,
        sync_bytes=int(run.get(f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes") or 0) << 20,
        num_checkpoints=num_checkpoints(run),
        num_processes=_num_processes(run),
    )


def _num_processes(run: Run) -> int:
    """The processes of one node: workers, rollout servers, agent loops, reward workers, and those that are one each.

    On a CPU five more wait idle, started early because imports are slow.
    """
    workers = run.get("trainer.n_gpus_per_node")
    servers = -(-workers // run.get(f"{ROLLOUT}.tensor_model_parallel_size"))
    loops = run.get(f"{ROLLOUT}.agent.num_workers") + run.get("reward.num_workers")
    alone = 3 + run.get("transfer_queue.backend.SimpleStorage.num_data_storage_units")  # command, trainer, queue
    return int(workers + servers + loops + alone + (5 if run.get("trainer.device") == "cpu" else 0))


def _micro_batch_tokens(run: Run) -> int:
    if run.get(f"{ACTOR}.use_dynamic_bsz"):
        rows = run.get(f"{ACTOR}.ppo_mini_batch_size") * run.get(f"{ROLLOUT}.n") // run.num_ranks
        return min(int(run.get(f"{ACTOR}.ppo_max_token_len_per_gpu")), max(rows, 1) * run.max_tokens)
    rows = run.get(f"{ACTOR}.ppo_micro_batch_size_per_gpu") or run.get(f"{ACTOR}.ppo_micro_batch_size") or 1
    return int(rows) * run.max_tokens


def num_checkpoints(run: Run) -> int:
    """Checkpoints on the disk at most: while one is written, one more than is kept."""
    freq, kept = run.get("trainer.save_freq"), run.mifo.checkpoint.keep_last + run.mifo.checkpoint.keep_best
    if not isinstance(freq, int) or freq <= 0:
        return int(run.mifo.checkpoint.save_final)
    made = -(-run.num_steps // freq)
    return min(made, kept + 1)


def check_memory(run: Run, found: Findings) -> None:
    """The prediction fits the machine, where it is known."""
    components, ranks = prediction(run), run.get("trainer.n_gpus_per_node")
    device, host = peak(components, "device"), peak(components, "host")
    if run.get("trainer.device") == "cpu":
        free, total = memory_of_machine()
        _judge(run, found, device * ranks + host, free, total, "this machine's memory")
    else:
        _check_gpus(run, found, components)
    found.note(f"device {size(device)} a rank, host {size(host)} a node")


def _check_gpus(run: Run, found: Findings, components: list[Component]) -> None:
    """Training fits a GPU, and beside what it keeps there the share that vLLM is promised."""
    plan = plan_of(run)
    there = plan.device_bytes
    what = "a GPU's memory" if visible_gpus() else "a GPU's memory (assumed, none is visible here)"
    key, share = f"{ROLLOUT}.gpu_memory_utilization", plan.rollout_share or 0
    server = sum(one.num_bytes for one in components if one.name == "rollout server")
    kept = total(components, "device", "rollout") - server
    says = f"leaves {size((1 - share) * there)} of {what} to training, which keeps {size(kept)} there during rollouts"
    most = int(20 * (1 - kept / there)) / 20
    lower = f"use {most:.2f}, or " if most > 0.2 else "use "
    found.advise(kept + server <= there, key, share, says, f"{lower}mifo.state.device=host, offloading, more ranks")
    weights, sequence = server_bytes(shape_of(run), plan)
    says = f"gives a rollout server {size(share * there)} a GPU, and its weights and one sequence need more"
    cure = f"make it larger, or raise {ROLLOUT}.tensor_model_parallel_size"
    found.advise(weights + sequence <= _ROOM * share * there, key, share, says, cure)
    update = max(total(components, "device", phase) for phase in PHASES[1:])
    _judge(run, found, update, there, None, what)


def _judge(run: Run, found: Findings, needed: float, free: int, total: int | None, what: str) -> None:
    """An error where it cannot ever fit, a warning where it hardly fits now."""
    name, path = "actor_rollout_ref.model.path", run.get("actor_rollout_ref.model.path")
    cure = "a smaller model, more ranks, offloading, or fewer tokens a micro-batch (docs/trust.md)"
    says = f"needs about {size(needed)}, and {size(free)} of {what} are there"
    if total is not None and needed > total:
        found.require(False, name, path, f"a model that fits: it {says}", cure)
    else:
        found.advise(needed <= _ROOM * free, name, path, says, cure)


def check_disk(run: Run, found: Findings) -> None:
    """The checkpoints fit the disk."""
    made = num_checkpoints(run)
    if not made:
        found.note("no checkpoints: trainer.save_freq and mifo.checkpoint.save_final are off")
        return
    folder = Path(str(run.get("trainer.default_local_dir"))).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    needed, free = peak(prediction(run), "disk"), shutil.disk_usage(there).free
    rule = f"such that {made} checkpoints of {size(needed)} in all fit the {size(free)} that are free"
    cure = "lower mifo.checkpoint.keep_last and .keep_best, or set another trainer.default_local_dir"
    found.require_here(needed <= free, "trainer.save_freq", run.get("trainer.save_freq"), rule, cure)
    found.note(f"{made} checkpoints, {size(needed)}; {size(free)} free")


def memory_of_machine() -> tuple[int, int]:
    """(bytes that this machine, or this container, can still give, bytes that it has)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free, total = (int(lines[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip().isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free, total = min(free, int(limit.read_text()) - used), min(total, int(limit.read_text()))
    return max(free, 0), total


def size(num_bytes: float) -> str:
    """Bytes for a reader: ``1.2 GB`` is 1.2e9."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} B"
