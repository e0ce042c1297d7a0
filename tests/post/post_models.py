"""Tiny random models over a vocabulary of words, and sentences made of it."""

import json
import random

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

LABELS = ["negative", "positive"]
MOODS = {
    "negative": ["cold", "stale", "rude", "slow", "dirty", "noisy"],
    "positive": ["warm", "fresh", "kind", "quick", "clean", "quiet"],
}
PLAIN = [
    "the", "a", "visit", "was", "it", "guest", "place", "room", "meal", "staff", "we", "they", "said", "about", "say",
    "what", "bad", "good", "poor", "great", "world", "sports",
]  # fmt: skip
WORDS = PLAIN + MOODS["negative"] + MOODS["positive"]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "bos_token": "[BOS]",
    "eos_token": "[EOS]",
    "mask_token": "[MASK]",
}


def make_tokenizer(words=WORDS, framed=False):
    """A tokenizer of whole words; `framed` puts special tokens around a text, as encoders do."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL.values(), *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if framed:
        ends = [("[BOS]", vocabulary["[BOS]"]), ("[EOS]", vocabulary["[EOS]"])]
        tokenizer.post_processor = TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def make_model(family, folder, *, layers=6, width=32, tied=True, words=WORDS, seed=3):
    """The folder of a tiny random model of a family."""
    tokenizer = make_tokenizer(words, framed=family in ("bert", "roberta"))
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    encoder = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 2 * width,
        "max_position_embeddings": 66, "initializer_range": 0.2, "tie_word_embeddings": tied, **size,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**{**encoder, "num_key_value_heads": 2}))
        elif family == "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(n_embd=width, n_layer=layers, n_head=4, n_positions=64, initializer_range=0.2, **size)
            )
        else:
            config, kind = {"bert": (BertConfig, BertForMaskedLM), "roberta": (RobertaConfig, RobertaForMaskedLM)}[
                family
            ]
            model = kind(config(**encoder))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentences(count, seed):
    """Labelled sentences: two words of the label's mood in each."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        label = LABELS[i % 2]
        first, second = draw.sample(MOODS[label], 2)
        rows.append({"text": f"the {draw.choice(['visit', 'meal', 'room'])} was {first} {second}", "mood": label})
    return rows


def public_texts(count, seed):
    """Unlabelled sentences of the same words."""
    draw = random.Random(seed)
    moods = MOODS["negative"] + MOODS["positive"]
    who, what = ["we", "they"], ["place", "staff"]
    return [
        {"text": f"{draw.choice(who)} said the {draw.choice(what)} was {' '.join(draw.sample(moods, 2))}"}
        for _ in range(count)
    ]


def write(path, rows):
    """Rows as a JSONL file; its path as text."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
