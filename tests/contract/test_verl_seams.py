"""The seams of verl 0.9.1 that mifo_verl hangs on. A new verl fails here first, and the name says which seam moved."""

import inspect
from importlib.metadata import entry_points, version

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
