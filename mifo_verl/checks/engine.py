"""What the trainer, its engine, its rollout and its batches need of each other."""

from importlib.util import find_spec

from omegaconf import OmegaConf
from packaging.version import Version

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run, paths_of
from mifo_verl.compose import config_folder
from mifo_verl.run.versions import version_of
from mifo_verl.verl.critic import has_critic

ACTOR, MODEL, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_rollout_ref.rollout"
REF = "actor_rollout_ref.ref"
_PACKAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
_OLDEST_VLLM = "0.18.0"
"""verl 0.9.1 refuses older ones, and says "vllm version None" where there is none."""
_GROUP_BASELINES = ("grpo", "rloo", "opo", "baseline", "gpg", "gdpo")


def check_engine(run: Run, found: Findings) -> None:
    """Our trainer, in verl's newer loop, on FSDP2."""
    key, mode = "trainer.v1.trainer_mode", run.get("trainer.v1.trainer_mode")
    rule = "mifo, or verl's own trainer would run"
    found.require(mode == "mifo", key, mode, rule, "use python -m verl.trainer.main_ppo for that")
    key, new = "trainer.use_v1", run.get("trainer.use_v1")
    found.require(new is True, key, new, "true, because verl's older trainer knows no SFT phases", "leave it out")
    key, strategy = f"{ACTOR}.strategy", run.get(f"{ACTOR}.strategy")
    rule = "fsdp2, because masks, theta_start and the budget are taken from its shards"
    found.require(strategy == "fsdp2", key, strategy, rule, f"use {key}=fsdp2")
    key, fused = f"{MODEL}.use_fused_kernels", run.get(f"{MODEL}.use_fused_kernels")
    rule = "false, because fused kernels give no logits to take the tokens' entropy from"
    fits = not (fused and run.trains_on_demonstrations)
    found.require(fits, key, fused, rule, "use method=rl_only, or switch them off")
    for key in (f"{ACTOR}.fsdp_config.offload_policy", f"{MODEL}.enable_activation_offload"):
        rule = "false, because it was never tried with masks and a second loss"
        found.require(not run.get(key), key, run.get(key), rule, f"use {ACTOR}.fsdp_config.param_offload=true")
    surplus = run.mifo.sft.surplus
    fits = surplus != "keep" or run.mifo.schedule.buffer_limit is not None
    rule = "use, unless the schedule waits for a full buffer, which says what surplus is"
    found.require(fits, "mifo.sft.surplus", surplus, rule, "leave it out, or choose such a mifo/schedule")


def check_parallel(run: Run, found: Findings) -> None:
    """Sequence and tensor parallelism."""
    key, ranks = f"{ACTOR}.ulysses_sequence_parallel_size", run.num_ranks
    size = run.get(key)
    removed = size <= 1 or run.get(f"{MODEL}.use_remove_padding") is True
    found.require(removed, key, size, f"1 where {MODEL}.use_remove_padding=False", "change one of them")
    found.require(ranks % max(size, 1) == 0, key, size, f"a divisor of the {ranks} ranks", "change it")
    attention = run.get(f"{MODEL}.override_config.attn_implementation") or "flash_attention_2"  # verl's default
    rule = f"1 with attn_implementation={attention}: only flash attention sees the whole sequence"
    found.require(size <= 1 or attention.startswith("flash"), key, size, rule, "use flash_attention_2, or leave it out")
    heads, kv_heads = (run.model_config.get(f"num_{name}_heads") for name in ("attention", "key_value"))
    if isinstance(heads, int) and size > 1:
        kv_heads = kv_heads or heads
        rule = f"a divisor of {heads} attention heads, and a divisor or a multiple of {kv_heads} key-value heads"
        fits = heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
        found.require(fits, key, size, rule, "make it smaller")
    key, size = f"{ROLLOUT}.tensor_model_parallel_size", run.get(f"{ROLLOUT}.tensor_model_parallel_size")
    split = found.require(ranks % size == 0, key, size, f"a divisor of the {ranks} ranks", "make it smaller")
    serves_all = run.get(f"{ROLLOUT}.name") == "transformers"
    if split and serves_all:
        rule = f"the {ranks} ranks (trainer.nnodes x trainer.n_gpus_per_node), which one server of transformers serves"
        found.require(size == ranks, key, size, rule, f"write {key}={ranks}")
    if split and isinstance(heads, int) and not serves_all:
        rule = f"a divisor of the model's {heads} attention heads"
        found.require(heads % size == 0, key, size, rule, "make it smaller")


def check_adapter(run: Run, found: Findings) -> None:
    """A LoRA adapter is one that is folded into the weights, for the rollouts as for the export."""
    rank = run.get(f"{MODEL}.lora_rank") or 0
    key, of_megatron = f"{MODEL}.lora.rank", run.get(f"{MODEL}.lora.rank")
    found.require(not of_megatron, key, of_megatron, "0, because it is Megatron's", f"use {MODEL}.lora_rank")
    key, folder = f"{MODEL}.lora_adapter_path", run.get(f"{MODEL}.lora_adapter_path")
    rule = f"left out where {MODEL}.lora_rank=0, with which verl reads no adapter"
    found.require(bool(rank) or folder is None, key, folder, rule, f"set {MODEL}.lora_rank to the adapter's")
    if not rank:
        return
    key, merges = f"{MODEL}.lora.merge", run.get(f"{MODEL}.lora.merge")
    rule = "true with LoRA, because rollouts and exports take the weights with the adapter in them"
    found.require(merges is True, key, merges, rule, f"use {key}=true")
    key, targets = f"{MODEL}.target_modules", run.get(f"{MODEL}.target_modules")
    on_head = any("lm_head" in name or "embed" in name for name in paths_of(targets))
    rule = "without lm_head and embed_tokens: models may tie them, and only one of the two would have the adapter"
    found.require(not on_head, key, targets, rule, "use all-linear, which leaves them out")
    key, parameters = f"{MODEL}.target_parameters", run.get(f"{MODEL}.target_parameters")
    rule = "left out, because an adapter on bare parameters is not folded"
    found.require(parameters is None, key, parameters, rule, "remove it")
    key, alone = f"{ACTOR}.checkpoint.save_lora_only", run.get(f"{ACTOR}.checkpoint.save_lora_only")
    rule = "false, because a checkpoint without the base weights is neither resumed nor exported"
    found.require(not alone, key, alone, rule, "leave it out")
    key = f"{ACTOR}.fsdp_config.mixed_precision.param_dtype"
    fits = str(run.get(key)) not in ("fp16", "float16") or not run.mifo.trains_base
    rule = "bf16 or fp32 where base weights train beside an adapter: each is clipped by its own norm, and not scaled"
    found.require(fits, key, run.get(key), rule, f"use {key}=bf16")


def check_rollout(run: Run, found: Findings) -> None:
    """The rollout server is installed and fits the device."""
    key, name, device = f"{ROLLOUT}.name", run.get(f"{ROLLOUT}.name"), run.get("trainer.device")
    package = _PACKAGES.get(name)
    cure = "pip install -e '.[gpu]', or hardware=cpu for the rollout without it"
    there = package is None or find_spec(package) is not None
    rule = f"installed, and there is no package {package} here"
    if found.require_here(there, key, name, rule, cure) and name == "vllm":
        installed = version_of("vllm")
        rule = f"vLLM from {_OLDEST_VLLM} on, as verl finds it by the name vllm, and {installed or 'none'} is installed"
        fits = installed is not None and Version(installed) >= Version(_OLDEST_VLLM)
        if found.require_here(fits, key, name, rule, cure):
            on_cpu = str(installed).endswith("+cpu")
            rule = f"vLLM for trainer.device={device}, and {installed} is installed"
            cure = "make vllm on a CPU, pip install -e '.[gpu]' else"
            found.require_here(on_cpu == (device == "cpu"), key, name, rule, cure)
    key = f"{MODEL}.override_config.attn_implementation"
    fits = device != "cpu" or run.get(key) in ("sdpa", "eager")
    found.require(fits, key, run.get(key), "sdpa or eager on a CPU", "use sdpa, as hardware=cpu does")
    fits, rule = (
        device != "cuda" or name != "transformers",
        f"cpu where {ROLLOUT}.name=transformers, which serves on CPUs",
    )
    found.require(fits, "trainer.device", device, rule, "use hardware=gpu for the settings of both")


def check_batches(run: Run, found: Findings) -> None:
    """The batch splits into mini-batches, and these over the ranks."""
    key, batch = f"{ACTOR}.ppo_mini_batch_size", run.get("data.train_batch_size")
    mini, num_rollouts, ranks = run.get(key), run.get(f"{ROLLOUT}.n"), run.num_ranks
    rule = f"a divisor of data.train_batch_size={batch}"
    found.require(batch % mini == 0, key, mini, rule, "change one of them")
    rule = f"such that mini-batch x rollout.n = {mini * num_rollouts} splits evenly over {ranks} ranks"
    cure = "change the mini-batch, actor_rollout_ref.rollout.n or trainer.n_gpus_per_node"
    found.require(mini * num_rollouts % ranks == 0, key, mini, rule, cure)
    estimator = run.get("algorithm.adv_estimator")
    fits = num_rollouts >= 2 or not any(word in estimator for word in _GROUP_BASELINES)
    rule = "" if fits else f"at least 2 for {_algorithm(run)}, whose baseline is the group"
    found.require(fits, f"{ROLLOUT}.n", num_rollouts, rule, "the paper's value is 8")
    found.note(f"{batch} prompts x {num_rollouts} rollouts, {batch // mini} updates a step, {ranks} ranks")


def _algorithm(run: Run) -> str:
    """The file of rl/ whose settings the run has, and its estimator; the estimator alone where it has those of none."""
    estimator = f"algorithm.adv_estimator={run.get('algorithm.adv_estimator')}"
    for file in sorted(config_folder().glob("rl/*.yaml")):
        if OmegaConf.merge(run.config, OmegaConf.load(file)) == run.config:
            return f"rl={file.stem} ({estimator})"
    return estimator


def check_micro_batches(run: Run, found: Findings) -> None:
    """Micro-batches are given, and hold the longest sequence."""
    roles = [(ACTOR, "ppo_", "use_dynamic_bsz"), (ROLLOUT, "log_prob_", "log_prob_use_dynamic_bsz")]
    roles += [(REF, "log_prob_", "log_prob_use_dynamic_bsz")] if run.has_reference else []
    roles += [("critic", "ppo_", "use_dynamic_bsz")] if has_critic(run.config) else []
    for role, prefix, dynamic in roles:
        if run.get(f"{role}.{dynamic}"):
            for key in (f"{role}.{prefix}micro_batch_size{per_gpu}" for per_gpu in ("", "_per_gpu")):
                rule, cure = (
                    f"left out where {role}.{dynamic}=True packs rows by their tokens",
                    "switch one of them off",
                )
                found.require(run.get(key) is None, key, run.get(key), rule, cure)
            _check_budget(run, found, role, f"{role}.{prefix}max_token_len_per_gpu")
        else:
            _check_fixed(run, found, role, f"{role}.{prefix}micro_batch_size")


def _check_budget(run: Run, found: Findings, role: str, key: str) -> None:
    """A micro-batch of a token budget."""
    parallel = run.get(f"{role}.ulysses_sequence_parallel_size") or 1
    budget, of_actor = run.get(key), f"{ACTOR}.ppo_max_token_len_per_gpu"
    if role != ACTOR and found.has_error(of_actor) and budget == run.get(of_actor):
        return  # it follows the actor's
    rule = f"such that a sequence of data.max_prompt_length + data.max_response_length = {run.max_tokens} tokens fits"
    found.require(run.max_tokens <= budget * parallel, key, budget, rule, "make it larger, or the lengths smaller")


def _check_fixed(run: Run, found: Findings, role: str, key: str) -> None:
    """A micro-batch of a number of rows."""
    old, new = run.get(key), run.get(f"{key}_per_gpu")
    found.require(not (old and new), key, old, f"left out where {key}_per_gpu={new} is set", "it is deprecated")
    rule = "set, which it must be set to where the batch is not dynamic"
    cure = f"write {key}_per_gpu=<rows>, or {role}.{'log_prob_' if 'log_prob' in key else ''}use_dynamic_bsz=true"
    found.require(bool(old or new), f"{key}_per_gpu", new, rule, cure)
    if role in (ACTOR, "critic") and new:
        rows = run.get(f"{role}.ppo_mini_batch_size") * run.get(f"{ROLLOUT}.n") // run.num_ranks
        rule = f"a divisor of a rank's {rows} rows of a mini-batch"
        found.require(rows % new == 0, f"{key}_per_gpu", new, rule, "make it smaller")
