"""The seams of verl 0.9.1 that mifo_verl hangs on. A new verl fails here first, and the name says which seam moved."""

import inspect
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_versions_are_the_ones_that_this_was_written_for():
    assert (version("verl"), version("TransferQueue")) == ("0.9.1", "0.1.11")


def test_verl_loads_the_plug_in_by_its_entry_point():
    assert {entry.name: entry.value for entry in entry_points(group="verl.plugins")}["mifo_verl"] == "mifo_verl.plugin"
    source = inspect.getsource(__import__("verl"))
    assert 'entry_points(group="verl.plugins")' in source


def test_the_cpu_platform_has_every_method_that_verl_asks_for():
    from verl.plugin.platform import PlatformRegistry, get_platform

    from mifo_verl.cpu.platform import PlatformCPU

    assert PlatformRegistry.get("cpu") is PlatformCPU and not PlatformCPU.__abstractmethods__
    platform = get_platform()
    assert (platform.device_name, platform.communication_backend_name()) == ("cpu", "gloo")
    assert platform.current_device() == torch.device("cpu") and not platform.is_ipc_supported()
    free, total = platform.device_module.mem_get_info()
    assert 0 < free <= total and platform.device_module.max_memory_allocated() > 0


TRAINER_HOOKS = {
    "step": ["metrics", "timing_raw"],
    "_setup": [],
    "_init_resource_pool_mgr": [],
    "_build_replay_buffer": [],
    "_init_dataloader": [],
    "_fetch_one_gen_batch": [],
    "_next_train_batch": ["num_prompts"],
    "_validate": [],
    "_update_actor": ["batch", "metrics"],
    "_compute_ref_log_prob": ["batch", "metrics"],
    "_compute_values": ["batch", "metrics"],
    "_compute_old_log_prob": ["batch", "metrics"],
    "_compute_metrics": ["batch", "metrics", "timing_raw", "global_steps", "epoch"],
    "_update_critic": ["batch", "metrics"],
    "_load_checkpoint": [],
    "_log_rollout_data": ["batch", "timing_raw", "rollout_data_dir"],
    "on_init_end": [],
    "on_step_begin": [],
    "on_train_begin": [],
    "on_step_end": [],
    "fit": ["agent_loop_manager"],
    "_init_dump_executor": [],
    "_shutdown_dump_executor": [],
}


@pytest.mark.parametrize("hook", TRAINER_HOOKS)
def test_the_trainer_has_the_hook(hook):
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    assert parameters(getattr(PPOTrainerSync, hook)) == TRAINER_HOOKS[hook]


def test_a_step_is_trained_then_synced_then_validated_then_recorded():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer.fit)
    order = [
        "self.step(metrics",
        "self._save_checkpoint()",
        "self.on_step_end()",
        "= self._validate()",
        "self._compute_metrics(",
    ]
    places = [source.rindex(part) for part in order]
    assert places == sorted(places)


def test_the_trainer_mode_is_compared_with_the_word_sync():
    from verl.trainer.ppo.v1 import trainer_base

    assert 'self.trainer_mode == "sync"' in inspect.getsource(trainer_base)


def test_our_trainer_is_registered_under_mifo():
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    from mifo_verl.verl.trainer import MifoTrainer

    assert get_trainer_cls("mifo") is MifoTrainer


def test_the_replay_buffer_selects_evicts_and_materialises_in_methods_of_its_own():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert parameters(ReplayBuffer._terminal_eviction_reasons) == ["global_steps", "partition_id"]
    assert parameters(ReplayBuffer._evict_terminal_groups) == ["global_steps", "partition_id", "eviction_reasons"]
    assert parameters(ReplayBuffer._clear_groups) == ["partition_id", "uids"]
    assert parameters(ReplayBuffer._select_prompt_uids) == ["partition_id", "sampleable_keys", "batch_size"]
    expected = ["partition_id", "selected_prompt_uids", "partition_snapshot"]
    assert parameters(ReplayBuffer._materialize_batch) == expected


def test_the_worker_takes_our_training_worker_and_any_loss_function():
    from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

    assert ActorRolloutRefWorker.actor_worker_cls is TrainingWorker is ActorRolloutRefWorker.ref_worker_cls
    assert parameters(TrainingWorker.set_loss_fn) == ["loss_fn"]
    assert "self.actor_worker_cls(config=" in inspect.getsource(ActorRolloutRefWorker.init_model)


def test_the_engine_is_ours_on_the_cpu_and_on_nvidia_gpus():
    from verl.workers.engine import EngineRegistry

    from mifo_verl.verl.engine import MifoCriticEngine, MifoEngine

    for model_type, ours in (("language_model", MifoEngine), ("value_model", MifoCriticEngine)):
        engines = EngineRegistry._engines[model_type]["fsdp2"]
        assert engines["cpu"] is ours and engines[("cuda", "nvidia")] is ours
        assert EngineRegistry.get_engine_cls(model_type, "fsdp2") is ours


def test_the_engine_hooks_have_the_signatures_that_we_override():
    from verl.workers.config.optimizer import FSDPOptimizerConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert parameters(FSDPEngineWithLMHead.optimizer_step) == []
    assert parameters(FSDPEngineWithLMHead.forward_step) == ["micro_batch", "loss_function", "forward_only"]
    assert parameters(FSDPEngineWithLMHead._build_optimizer) == ["module"]
    expected = ["output", "output_args", "micro_batch", "logits_processor_func"]
    assert parameters(FSDPEngineWithLMHead.prepare_model_outputs) == expected
    assert parameters(FSDPEngineWithLMHead.prepare_model_inputs) == ["micro_batch"]
    inputs = inspect.getsource(FSDPEngineWithLMHead.prepare_model_inputs)
    assert inputs.count('output_args["input_ids_rmpad_rolled"] = ') == 2  # the labels of the head, packed and padded
    assert "clip_grad" in FSDPOptimizerConfig._mutable_fields
    assert "self.optimizer_config.clip_grad" in inspect.getsource(FSDPEngineWithLMHead.optimizer_step)


def test_model_outputs_are_shifted_so_that_each_response_token_has_its_own_log_prob():
    from verl.workers.utils.padding import no_padding_2_padding

    jagged = lambda rows: torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)  # noqa: E731
    # output at position i predicts token i + 1: prompt of 2 and response of 3; prompt of 1 and response of 1
    outputs = jagged([[10.0, 11.0, 12.0, 13.0, 14.0], [20.0, 21.0]])
    data = TensorDict({"prompts": jagged([[1, 2], [3]]), "responses": jagged([[4, 5, 6], [7]])}, batch_size=2)
    assert no_padding_2_padding(outputs, data).tolist() == [[11.0, 12.0, 13.0], [20.0, 0.0, 0.0]]


def test_rollouts_are_found_by_name():
    from verl.workers.rollout.base import get_rollout_class
    from verl.workers.rollout.replica import get_rollout_replica_class

    from mifo_verl.cpu import rollout

    rollout.register()
    assert get_rollout_class("transformers") is rollout.TransformersRollout
    assert get_rollout_replica_class("transformers") is rollout.TransformersReplica


def test_the_task_runner_can_be_subclassed_and_the_agent_loop_manager_chosen_by_name():
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    runner = TaskRunnerV1.__ray_metadata__.modified_class
    assert parameters(runner.run)[:1] == ["config"] and parameters(run_ppo) == ["config", "task_runner_class"]
    assert "agent_loop_manager_class" in inspect.getsource(runner.init_agent_loop_manager)


def test_padding_rows_are_tagged():
    from verl.trainer.ppo import padding_utils

    assert "is_padding=True" in inspect.getsource(padding_utils)


def test_a_rank_waits_for_the_others_once_behind_its_writes_and_once_more_only_for_a_whole_model():
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    source = inspect.getsource(FSDPCheckpointManager.save_checkpoint)
    before, *behind = source.split("torch.distributed.barrier()")
    assert "torch.save(" not in before and "torch.save(" in behind[0] and len(behind) == 3
    assert "should_save_hf_model" in behind[1]


def test_the_actors_that_the_watchdog_asks_are_where_it_looks():
    from verl.experimental.agent_loop.agent_loop import AgentLoopManager
    from verl.experimental.reward_loop.reward_loop import RewardLoopManager
    from verl.single_controller.ray.base import RayWorkerGroup

    assert isinstance(RayWorkerGroup.workers, property)
    assert "self.reward_loop_workers = []" in inspect.getsource(RewardLoopManager)
    assert "self.agent_loop_workers = []" in inspect.getsource(AgentLoopManager)
    from ray.actor import ActorHandle
    from transfer_queue import interface
    from transfer_queue.storage.bootstrap import simple_storage_bootstrap

    assert 'ray.get_actor("TransferQueueController", namespace="transfer_queue")' in inspect.getsource(interface)
    assert '"name": f"TransferQueueStorageUnit#{storage_unit_rank}"' in inspect.getsource(simple_storage_bootstrap)
    assert "__ray_call__" in inspect.getsource(inspect.getmodule(ActorHandle))


def test_an_update_zeroes_gradients_before_its_passes_and_steps_once_behind_them():
    from verl.workers.engine.base import BaseEngine
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    source = inspect.getsource(BaseEngine.train_batch)
    order = ["self.optimizer_zero_grad()", "self.forward_backward_batch(data", "self.optimizer_step()"]
    assert [source.count(part) for part in order] == [1, 1, 1]
    assert sorted(order, key=source.index) == order
    assert parameters(FSDPEngineWithLMHead.forward_backward_batch) == ["data", "loss_function", "forward_only"]
    assert "self.forward_step(micro_batch" in inspect.getsource(FSDPEngineWithLMHead.forward_backward_batch)


def test_a_staged_batch_is_completed_with_what_a_training_worker_completes_a_batch_with():
    from verl.workers.engine_workers import TrainingWorker

    from mifo_verl.verl.staging import COMPLETED

    source = inspect.getsource(TrainingWorker.train_batch)
    injected = source[source.index("default_keys = dict(") : source.index("for key, val in default_keys")]
    assert [line.split("=")[0].strip() for line in injected.splitlines() if "=" in line][1:] == list(COMPLETED)


def test_the_ranks_get_the_fields_that_a_batch_names_and_a_put_names_all_that_there_are():
    from transfer_queue import interface
    from verl.utils import transferqueue_utils

    source = inspect.getsource(transferqueue_utils.async_kv_batch_meta2batch_meta)
    assert "batch_meta = batch_meta.select_fields(fields)" in source and "fields = meta.fields" in source
    source = inspect.getsource(interface.async_kv_batch_put)
    assert "fields_to_return = batch_meta.field_names" in source and "fields=fields_to_return" in source


def test_extra_info_of_a_batch_arrives_on_the_ranks_as_data_without_tensors():
    from verl.utils import transferqueue_utils

    source = inspect.getsource(transferqueue_utils._async_meta_to_realdata)
    assert (
        "meta.extra_info" in source and "tu.assign_non_tensor_data(tensor_dict=tensordict, key=key, val=val)" in source
    )


def test_the_rl_loss_is_a_partial_that_its_worker_sets_while_the_model_is_built():
    from verl.workers.engine_workers import ActorRolloutRefWorker

    assert "self.loss_fn = partial(ppo_loss, config=actor_config)" in inspect.getsource(
        ActorRolloutRefWorker.init_model
    )


def test_sequences_masked_out_leave_the_sum_and_keep_the_constants():
    from verl.trainer.ppo.core_algos import agg_loss

    loss, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[1, 1], [0, 0]])
    constants = {"dp_size": 1, "batch_num_tokens": 4, "global_batch_size": 2, "loss_scale_factor": 8}
    values = {
        mode: agg_loss(loss, mask, mode, **constants).item()
        for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean")
    }
    assert values == pytest.approx(
        {"token-mean": 0.75, "seq-mean-token-sum": 1.5, "seq-mean-token-sum-norm": 0.1875, "seq-mean-token-mean": 0.75}
    )


def _advantages(mask_of_demonstration: list[int]) -> list[list[float]]:
    import numpy as np
    from verl import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    score = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mask = torch.tensor([[1, 1, 1], mask_of_demonstration])
    tensors = {"token_level_rewards": score, "response_mask": mask, "token_level_scores": score}
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": np.array(["q", "q"], dtype=object)})
    data = compute_advantage_for_multi_trajectories(data, ["q_0_0", "q_1_0"], "grpo", norm_adv_by_std_in_grpo=False)
    return data.batch["advantages"].tolist()


def test_given_tokens_have_an_advantage_only_while_their_response_mask_is_1():
    assert _advantages([1, 1, 1]) == [[-0.5] * 3, [0.5] * 3]
    assert _advantages([0, 0, 0]) == [[-0.5] * 3, [0.0] * 3]


def test_a_rollouts_columns_are_what_its_agent_loop_was_called_with():
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    source = inspect.getsource(worker._agent_loop_postprocess)
    assert "field = output.as_dict()" in source and "field.update(kwargs)" in source
    assert '_agent_loop_postprocess(output, trajectory["validate"], **kwargs)' in inspect.getsource(
        worker._run_agent_loop
    )


def test_a_single_turn_asks_the_server_that_it_has_and_copies_what_it_says():
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

    from mifo_verl.verl.agent_loop import AGENT_NAME, PrefixAgentLoop

    source = inspect.getsource(SingleTurnAgentLoop.run)
    assert "await self.server_manager.generate(" in source and "extra_fields=output.extra_fields" in source
    target = f"{PrefixAgentLoop.__module__}.{PrefixAgentLoop.__qualname__}"
    assert _agent_loop_registry[AGENT_NAME] == {"_target_": target}


def test_a_whole_number_a_row_passes_padding_unchanged():
    from verl.trainer.ppo.padding_utils import construct_minimal_padding_template

    names = ("prompts", "responses", "input_ids", "position_ids", "loss_mask", "response_mask", "rm_scores")
    row, _ = construct_minimal_padding_template({name: torch.ones(4) for name in names} | {"mifo_prefix": 3}, {}, 0)
    assert row["mifo_prefix"] == 3 and row["response_mask"].tolist() == [0]


def test_verls_setup_sets_the_attributes_that_the_stages_of_a_start_hang_on_in_their_order():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from mifo_verl.verl.watched import STARTS

    source = inspect.getsource(PPOTrainer._setup)
    names = ["critic_wg", "actor_rollout_wg", "reward_loop_manager", "teacher_model_manager"]
    places = [source.index(f"self.{name} =") for name in names] + [source.index("self.checkpoint_manager:")]
    assert places == sorted(places) and set(STARTS) == {*names, "checkpoint_manager", "resource_pool_manager"}
    assert source.index("self._init_resource_pool_mgr()") < places[0]


def test_where_a_start_went_adds_up_and_a_first_validation_is_told_apart():
    from mifo_verl.run.watchdog import Stages
    from mifo_verl.verl.watched import start_seconds

    stages = Stages()
    stages.seconds.update({"start-up: actor and reference": 30.0, "validation": 5.0, "rollout": 15.0})
    said = []
    assert start_seconds(stages, 60.0, lambda *event: said.append(event)) == {
        "start_up": 40.0,
        "first_validation": 20.0,
    }
    (event,) = said
    assert event == (
        "started",
        "the first step begins after 60.0 s: checks and Ray 10.0, actor and reference 30.0, validation 5.0, rollout 15.0",
    )


def test_the_engine_builds_its_adapter_and_sends_it_merged_where_ours_steps_in():
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    assert parameters(FSDPEngine._build_lora_module) == parameters(FSDPEngine._build_optimizer) == ["module"]
    assert parameters(FSDPEngine._merged_lora_per_tensor_param) == []
    assert "return self._merged_lora_per_tensor_param(), None" in inspect.getsource(FSDPEngine.get_per_tensor_param)
    built = inspect.getsource(FSDPEngine._build_model_optimizer)
    assert built.index("self._build_lora_module(module)") < built.index("self._build_fsdp_module(module)")
    # and vLLM, which is not installed here, takes the weights of a model without one
    server = Path(inspect.getfile(__import__("verl"))).parent / "workers/rollout/vllm_rollout/vllm_async_server.py"
    merged = 'if self.model_config.lora.get("merge", False):\n            lora_rank = 0\n'
    assert merged in server.read_text()


def test_verl_decides_by_the_rank_of_the_adapter_whether_the_actor_is_its_own_reference():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._setup)
    assert source.index("self._init_resource_pool_mgr()") < source.index("self.ref_in_actor = lora_rank > 0")
    assert "if self.ref_in_actor:\n            self.ref_policy_wg = self.actor_rollout_wg" in source
