"""Strict freezing under FSDP2: frozen weights and moments stay bit-identical; by the gradient alone they drift."""

import os
import tempfile

import torch
import torch.distributed as dist
from measure import Row, copy_seconds, median_seconds, peak_bytes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mifo_verl.method.held_still import HeldStill, mask_gradients_
from mifo_verl.method.top_share import select_top_share


class Ranks:
    """The processes of a group as the shards of ``select_top_share``."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()

    def sum(self, counts: Tensor) -> Tensor:
        counts = counts.clone()
        dist.all_reduce(counts)
        return counts

    def gather(self, counts: Tensor) -> Tensor:
        rows = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, counts.contiguous())
        return torch.stack(rows)


def made_model(width: int, layers: int, device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(layers)]
    model = nn.Sequential(*blocks, nn.Linear(width, 7)).to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    return fully_shard(model, mesh=mesh, mp_policy=precision)


def same_bits(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


def strict_freezing(width: int, layers: int, kind: str, device: torch.device) -> Row:
    model = made_model(width, layers, device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, **{kind: True})
    generator = torch.Generator(device).manual_seed(dist.get_rank())

    def flat(tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.to_local().view(-1) for tensor in tensors]

    def coordinates() -> list[Tensor]:
        moments = [optimizer.state[p][name] for name in ("exp_avg", "exp_avg_sq") for p in parameters]
        return flat([p.detach() for p in parameters]) + flat(moments)

    def step(frozen: list[Tensor] | None, held: HeldStill | None) -> None:
        optimizer.zero_grad()
        inputs = torch.randn(16, width, device=device, generator=generator)
        model(inputs).float().square().mean().backward()
        if frozen is not None:
            gradients = flat([p.grad for p in parameters])
            mask_gradients_(gradients, frozen)
            assert not any(gradient[mask].any() for gradient, mask in zip(gradients, frozen, strict=True))
            assert any(gradient.any() for gradient in gradients)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if held is not None:
            held.put_back_(coordinates())

    start = [weight.clone() for weight in flat([p.detach() for p in parameters])]
    for _ in range(3):
        step(None, None)
    change = [(end - old).abs_() for end, old in zip(coordinates(), start, strict=False)]
    selection = select_top_share(change, 0.5, Ranks())
    assert selection.num_frozen == min(selection.num_coordinates // 2, selection.num_positive)
    frozen = selection.frozen
    del start, change

    masks = list(frozen) * 3
    before = [values.clone() for values in coordinates()]
    held = HeldStill(coordinates(), masks)
    for _ in range(5):
        step(frozen, held)
    moved = 0
    for now, old, mask in zip(coordinates(), before, masks, strict=True):
        assert same_bits(now[mask], old[mask]), f"{kind}: a frozen coordinate changed"
        moved += int((now[~mask] != old[~mask]).sum())
    assert moved > 0, f"{kind}: nothing was trained"
    assert held.drift(coordinates()) == 0.0

    # the control: the gradient alone is masked, and the frozen coordinates drift
    for _ in range(2):
        step(frozen, None)
    drifted = [values[mask] for values, mask in zip(coordinates()[: len(frozen)], frozen, strict=True)]
    kept = [values[mask] for values, mask in zip(before[: len(frozen)], frozen, strict=True)]
    num_drifted = sum(int((now != old).sum()) for now, old in zip(drifted, kept, strict=True))
    num_held = sum(old.numel() for old in kept)
    assert num_drifted > 0.5 * num_held > 0, f"{kind}: only {num_drifted} of {num_held} drifted without HeldStill"
    del before, drifted, kept

    gradients = flat([p.grad for p in parameters])

    def hold() -> None:
        mask_gradients_(gradients, frozen)
        held.put_back_(coordinates())

    num_bytes = 4 * sum(gradient.numel() for gradient in gradients) * 4  # gradient, weight and two moments
    peak = peak_bytes(hold, device)
    seconds = median_seconds(hold, device)
    size = f"{selection.num_coordinates:.2e} coordinates, {dist.get_world_size()} ranks"
    return Row(f"strict freezing, {kind}", size, seconds, copy_seconds(num_bytes, device), peak)


def freezing_process(rank: int, world: int, scale: float, device_type: str, folder: str) -> None:
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device("cpu")
    if device_type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=world
    )
    try:
        width = max(32, int(4096 * scale**0.5) // 16 * 16)
        layers = 24 if scale >= 1 else 4
        kinds = ("fused", "foreach") if device_type == "cuda" else ("foreach",)
        rows = [strict_freezing(width, layers, kind, device) for kind in kinds]
        if rank == 0:
            torch.save([vars(row) for row in rows], f"{folder}/rows")
    finally:
        dist.destroy_process_group()


def check_freezing(scale: float, device: torch.device, world: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, scale, device.type, folder)
        if world == 1:
            freezing_process(0, *arguments)
        else:
            torch.multiprocessing.spawn(freezing_process, arguments, nprocs=world)
        return [Row(**row) for row in torch.load(f"{folder}/rows")]
