"""The start model of the addition task: a Qwen2 model of 0.9M parameters that adds two digits well and three badly.

A start between nothing and everything: RL has room on levels 2 and 3, and levels 4 and 5 need demonstrations. The
result is shipped in ``addition_start/``; ``mifo data start_model out=<folder>`` trains it again.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken, pre_tokenizers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from mifo_verl.errors import require
from mifo_verl.rewards.boxed import is_correct
from mifo_verl.tools.prepare.addition import LEVELS, column_addition, draw_pairs, question, rows

START_MODEL = Path(__file__).parents[2] / "data" / "addition_start"
"""The model as shipped."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WHOLE_TOKENS = ("<think>", "</think>", "user", "assistant", "system", "\\boxed{")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_BATCH, _LEARNING_RATE, _WARMUP_STEPS, _SCHEDULE_STEPS = 64, 3e-3, 40, 700


def build_tokenizer() -> PreTrainedTokenizerBase:
    """256 bytes and nine whole tokens, no merges; ``<|im_end|>`` ends a message, ``<|endoftext|>`` pads.

    Byte-level, as transformers builds a Qwen2 tokenizer for every ``qwen2`` model, whatever its files say: another
    vocabulary would lose the newline on reload. Only the first three are special: a decoded response keeps its tags.
    """
    vocab = {token: index for index, token in enumerate([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], eos_token="<|im_end|>", padding_side="left")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL], special_tokens=True)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _WHOLE_TOKENS])
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def build_model(
    tokenizer: PreTrainedTokenizerBase, seed: int = 0, hidden: int = 128, layers: int = 4
) -> Qwen2ForCausalLM:
    """A fresh float32 model. Its vocabulary is the tokenizer's, not rounded up: vLLM would mask the tail."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=3 * hidden,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def train(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    num_steps: int,
    batches: Iterator[Sequence[tuple[str, str]]],
    is_done: Callable[[int], bool] = lambda _: False,
) -> None:
    """SFT in place on batches of (question, answer); about 0.3 s a step of 64. It ends early if ``is_done(step)``.

    The learning rate falls to a tenth along a cosine of 700 steps; the start model stops early on it, which leaves room
    for RL. The same batches and thread count give the same weights on one machine; another may round differently.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for step in tqdm(range(num_steps), desc="training", unit="step"):
        if is_done(step):
            return
        model.train()
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / _SCHEDULE_STEPS, 1)))
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * min(1, (step + 1) / _WARMUP_STEPS) * (0.1 + 0.9 * cosine)
        loss = _loss(model, [_encode(tokenizer, *pair) for pair in next(batches)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def sums(seed: int, levels: Sequence[int] = (1, 2, 3)) -> Iterator[list[tuple[str, str]]]:
    """Batches of 64 fresh training sums and their experts without end, levels drawn alike."""
    random = Random(f"start/{seed}")
    drawn = {level: draw_pairs(level, "train", random) for level in levels}
    while True:
        pairs = [next(drawn[level]) for level in random.choices(levels, k=_BATCH)]
        yield [(question(*pair), column_addition(*pair)) for pair in pairs]


@torch.inference_mode()
def accuracy_by_source(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], temperature: float, seed: int = 0
) -> dict[str, float]:
    """The share of rows answered correctly by one sample each, by data source; temperature 0 is greedy."""
    torch.manual_seed(seed)
    model.eval()
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    correct: dict[str, list[bool]] = {}
    for start in range(0, len(rows), 250):
        chunk = rows[start : start + 250]
        prompts = [
            tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in chunk
        ]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        output = model.generate(**batch, max_new_tokens=80, **(sampling or {"do_sample": False}))
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(chunk, texts, strict=True):
            correct.setdefault(row["data_source"], []).append(is_correct(text, row["reward_model"]["ground_truth"]))
    return {source: sum(answers) / len(answers) for source, answers in correct.items()}


def make_start_model(out: str, steps: str = "400", seed: str = "0") -> None:
    """Train and save the start model; tells its accuracy on 200 validation sums a level (level 1: all there are)."""
    for name, value in (("steps", steps), ("seed", seed)):
        require(value.isdecimal(), name, value, "a whole number, at least 0", f"write {name}=100")
    torch.set_num_threads(1)  # tensors this small gain nothing from a second core
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, int(seed))
    train(model, tokenizer, int(steps), sums(int(seed)))
    save(model, tokenizer, Path(out))
    made = rows(dict.fromkeys(LEVELS, 200), "validation", 0)
    saved = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    for name, temperature in (("temperature 1", 1.0), ("greedy", 0.0)):
        accuracy = accuracy_by_source(saved, AutoTokenizer.from_pretrained(out), made, temperature)
        print(f"{out}: {name}: " + ", ".join(f"{source} {share:.3f}" for source, share in accuracy.items()))


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write bfloat16 weights, config and tokenizer; ``AutoTokenizer`` and ``AutoModelForCausalLM`` read the folder.

    The model is bfloat16 afterwards.
    """
    model.to(dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    # padding and truncation are how the tokenizer was last called, not what it is
    settings = json.loads(path.read_text()) | {"padding": None, "truncation": None}
    path.write_text(json.dumps(settings, ensure_ascii=False, separators=(",", ":")) + "\n")


def _encode(tokenizer: PreTrainedTokenizerBase, asked: str, answer: str) -> tuple[list[int], list[int]]:
    messages = [{"role": "user", "content": asked}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    response = tokenizer.encode(answer, add_special_tokens=False)
    return tokenizer.encode(prompt, add_special_tokens=False), [*response, tokenizer.eos_token_id]


def _loss(model: Qwen2ForCausalLM, batch: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Cross-entropy of the response tokens, mean over the batch's tokens; right-padded."""
    length = max(len(prompt) + len(response) for prompt, response in batch)
    tokens, labels = torch.zeros(len(batch), length, dtype=torch.long), torch.full((len(batch), length), -100)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        tokens[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    # causal attention with right padding: the padding behind a sequence changes nothing before it, so no mask is needed
    logits = model(input_ids=tokens).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
