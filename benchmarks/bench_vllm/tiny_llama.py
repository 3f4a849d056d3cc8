"""A model folder that vLLM serves: a real tokenizer, a chat template, the configuration of a two-layer Llama, no weights.

`--load-format dummy` makes the weights, the same ones every time. It answers nonsense, at some 500 tokens a second and request.
"""

import json
import sysconfig
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_TOKENS = 2048
MAX_MODEL_TOKENS = 32_768
"""Tokens of one request, prompt and response: a response can be so long that no test sees its end."""

END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": MAX_MODEL_TOKENS,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY_TOKENS,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}


def make_model(folder: Path) -> Path:
    """Write the model folder, 150 kB, and return it."""
    folder.mkdir(parents=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": MAX_MODEL_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    generation_config = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": False}
    contents = {"config": CONFIG, "tokenizer_config": tokenizer_config, "generation_config": generation_config}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def _tokenizer() -> Tokenizer:
    """Byte-level BPE, learnt from the standard library's sources, which every machine has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    sources = sorted(Path(sysconfig.get_path("stdlib"), "asyncio").glob("*.py"))
    tokenizer.train([str(path) for path in sources], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY_TOKENS
    return tokenizer
