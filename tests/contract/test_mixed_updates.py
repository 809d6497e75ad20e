"""A step of RL with demonstrations in its updates: what is staged, what is masked, and that it is as before behind it."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from mifo_verl.loop.inputs import Parts, Rollout
from mifo_verl.loop.loop import Loop
from mifo_verl.loop.state import LoopState
from mifo_verl.method.gate import Gate, Hpt, MaxAccuracy, Now
from mifo_verl.method.mixing import Chord, Constant, Mixing, NoMixing
from mifo_verl.method.schedule import Never
from mifo_verl.types import SftExample
from mifo_verl.verl import mixed
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.mixed import MASKED, mark_correct, mixed_updates
from mifo_verl.verl.rl_loss import CORRECT
from mifo_verl.verl.staging import RL_WEIGHT, SFT_WEIGHT, Taken

QUESTIONS, ROLLOUTS = 4, 2
CONFIG = SimpleNamespace(
    seed=0,
    actor_rollout_ref=SimpleNamespace(
        actor=SimpleNamespace(ppo_mini_batch_size=2, ppo_epochs=1), rollout=SimpleNamespace(n=ROLLOUTS)
    ),
)


def jagged(rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


class Queue:
    """verl's TransferQueue: rows of columns by key."""

    def __init__(self, keys):
        # the number of a rollout is its advantage, and the length of its response less 1
        self.rows = {
            key: {"response_mask": [1] * (n + 1), "loss_mask": [1] * (n + 1), "advantages": [float(n)] * (n + 1)}
            for n, key in enumerate(keys)
        }

    def kv_batch_get(self, keys, partition_id, select_fields):
        columns = {name: jagged([self.rows[key][name] for key in keys]) for name in select_fields}
        return TensorDict(columns, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        for name, column in fields.items():
            for key, row in zip(keys, column.unbind(), strict=True):
                self.rows[key][name] = row.tolist()
        held = list(self.rows[keys[0]])
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[{} for _ in keys], fields=held)


class Ranks:
    """Two ranks, each with a half of what is staged; half of each response is kept."""

    def __init__(self):
        self.staged, self._dispatch_info = [], {"actor": [0, 1]}

    def stage_sft(self, batch):
        self.staged.append(batch)

    def take_staged(self):
        found = []
        for rank in range(2):
            parts = [tu.chunk_tensordict(batch, 2)[rank] for batch in self.staged]
            rows = [[(row, 2, 0.0) for row in part["row"].tolist() if row >= 0] for part in parts]
            found.append([Taken(1.0 + 2 * rank, {"mifo_rows": of_part}) for of_part in rows])
        return found


def step_of(gate: Gate, mixing: Mixing, monkeypatch):
    """Four questions with two rollouts: none, one and both are right, and none is in the last too."""
    loop = Loop(
        Parts(gate, Never(), ROLLOUTS, 0, 2, "even", 1, None, 4, 1, mixing=mixing),
        LoopState(),
        lambda row, prompt_ids: SftExample(row["id"], tuple(prompt_ids), (5, 6, 7, 8), "ab"),
    )
    loop.begin_step()
    uids = loop.draw((f"p{number}", {"id": f"p{number}"}) for number in range(QUESTIONS))
    acc = [[0, 0], [0, 1], [1, 1], [0, 0]]
    rollouts = [Rollout(uid, n, 0, acc[place][n]) for place, uid in enumerate(uids) for n in range(ROLLOUTS)]
    loop.count(rollouts, {uid: [1, 2] for uid in uids})
    keys = [f"{uid}_{n}_0" for uid in uids for n in range(ROLLOUTS)]
    queue, ranks = Queue(keys), Ranks()
    monkeypatch.setattr(mixed, "tq", queue)
    actor = Actor(ranks, SimpleNamespace(use_dynamic_bsz=True), pad_token_id=0)
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in keys])
    return loop, queue, ranks, actor, batch


def test_hpt_masks_the_rollouts_of_its_questions_during_the_update_alone(monkeypatch):
    loop, queue, ranks, actor, batch = step_of(Hpt(0), Constant(1, 1, "question"), monkeypatch)
    before = {key: dict(row) for key, row in queue.rows.items()}
    gated = {key for key in batch.keys if key[:11] in ("t0000000000", "t0000000003")}
    assert len(gated) == 4
    with mixed_updates(actor, batch, loop, CONFIG):
        for key, row in queue.rows.items():
            for name in MASKED:
                assert row[name] == ([0] * len(before[key][name]) if key in gated else before[key][name])
    assert queue.rows == before
    # two updates of two questions: a demonstration each, divided by the two questions of an update
    assert [tu.get(part, "global_batch_size") for part in ranks.staged] == [2, 2]
    assert [tu.get(part, SFT_WEIGHT) for part in ranks.staged] == [1.0, 1.0] and batch.extra_info[RL_WEIGHT] == 1.0
    assert sorted(entry.example.prompt_id for entry, _ in loop.trained.uses) == ["p0", "p3"]
    assert [kept for _, kept in loop.trained.uses] == [2, 2] and loop.trained.loss == 2.0  # of ranks 1 and 3


def test_chord_stages_every_demonstration_beside_the_rollouts_with_mu(monkeypatch):
    loop, queue, ranks, actor, batch = step_of(Now(), Chord(peak=0.25, valley=0.25), monkeypatch)
    before = {key: dict(row) for key, row in queue.rows.items()}
    with mixed_updates(actor, batch, loop, CONFIG):
        assert queue.rows == before
    assert batch.extra_info[RL_WEIGHT] == 0.75 and [tu.get(part, SFT_WEIGHT) for part in ranks.staged] == [0.25, 0.25]
    assert [tu.get(part, "global_batch_size") for part in ranks.staged] == [2, 2]
    assert sorted(entry.example.prompt_id for entry, _ in loop.trained.uses) == ["p0", "p1", "p2", "p3"]


def test_every_rollout_is_marked_by_its_answer(monkeypatch):
    loop, queue, _, _, batch = step_of(Now(), Constant(), monkeypatch)
    batch.fields = list(MASKED)  # as verl's last call for this batch has left it: the workers get these and no others
    mark_correct(batch, loop)
    assert batch.fields == [*MASKED, CORRECT]
    assert [queue.rows[key][CORRECT] for key in batch.keys] == [0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("gate", "mixing"),
    [(MaxAccuracy(), NoMixing()), (Now(), Chord(peak=0, valley=0)), (Hpt(-1), Constant(1, 1, "question"))],
)
def test_a_neutral_step_asks_the_ranks_nothing_and_says_nothing_to_them(gate, mixing, monkeypatch):
    loop, _, ranks, actor, batch = step_of(gate, mixing, monkeypatch)
    with mixed_updates(actor, batch, loop, CONFIG):
        pass
    assert ranks.staged == [] and RL_WEIGHT not in batch.extra_info and loop.trained is None and loop.rl_lines == []


def test_without_a_demonstration_the_weight_of_rl_holds(monkeypatch):
    loop, _, ranks, actor, batch = step_of(Now(), Chord(peak=0.25, valley=0.25), monkeypatch)
    batch = KVBatchMeta(partition_id="train", keys=[f"pad0_{n}_0" for n in range(4)], tags=[{}] * 4)
    with mixed_updates(actor, batch, loop, CONFIG):
        pass
    assert ranks.staged == [] and batch.extra_info[RL_WEIGHT] == 0.75 and loop.trained is None
