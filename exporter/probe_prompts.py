"""Prompts that an exported ranker is compared on: short, long, cut, non-Latin, emoji, code, nearly empty."""

_TEXTS = (
    "",
    " ",
    ".",
    "?",
    "Hi",
    "Thanks!",
    "2+2",
    "What is the capital of France?",
    "Translate 'good morning' into Spanish.",
    "List three primary colours.",
    "Is 97 a prime number? Answer yes or no.",
    "Summarise the plot of Hamlet in one sentence.",
    "Name the chemical symbol for gold.",
    "Explain step by step how a transformer language model generates text, with examples.",
    "Write a 2,000-word short story about a lighthouse keeper who finds a message in a bottle.",
    "Give me a detailed four-week training plan for a beginner who wants to run ten kilometres.",
    "Compare the causes of the First and the Second World War in an essay with an introduction and a conclusion.",
    "Implement a least-recently-used cache in Python with type hints, tests and a complexity analysis.",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n\nWhat does fib(10) return?",
    "SELECT name, COUNT(*) FROM orders GROUP BY name HAVING COUNT(*) > 3; -- explain this query",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 1 << 4); }  // output?',
    '{"role": "user", "content": "Return this object as YAML."}',
    "https://example.org/a/very/long/path?with=query&and=more#fragment",
    "¿Cuáles son las ventajas y desventajas de la energía solar?",
    "Erkläre den Unterschied zwischen Dativ und Akkusativ mit zehn Beispielsätzen.",
    "请用中文写一篇关于人工智能未来发展的文章。",
    "日本の四季について短く説明してください。",
    "اكتب قصة قصيرة عن طفل يحب النجوم.",
    "Напиши подробный план статьи об истории космонавтики.",
    "भारत की राजधानी क्या है?",
    "한국어로 자기소개를 해 주세요.",
    "🙂🙃🚀 describe these emoji, one word each",
    "👩‍👩‍👧‍👦" * 10,
    "naïve café résumé coöperate",
    "tab\tseparated\nline\r\nbreaks\x00and\x07controls",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
)

PROBE_PROMPTS: tuple[str, ...] = (
    *_TEXTS,
    # Long ones: neighbours joined, so that lengths fill the range up to the model's limit.
    *(" ".join(_TEXTS[start : start + 6]) for start in range(7, 31, 3)),
    *(" ".join(_TEXTS[start : start + 15]) for start in range(7, 21, 4)),
    # Cut ones: beyond the token limit of any encoder, and beyond the character limit.
    "Repeat after me: the quick brown fox jumps over the lazy dog. " * 60,
    "长" * 3000,
    "word " * 5000,
)

GOLDEN_PROMPTS: tuple[str, ...] = (
    "What is the capital of France?",
    "",
    "Write a 2,000-word short story about a lighthouse keeper who finds a message in a bottle.",
    "请用中文写一篇关于人工智能未来发展的文章。",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n\nWhat does fib(10) return?",
    "🙂🙃🚀 describe these emoji, one word each",
    "Repeat after me: the quick brown fox jumps over the lazy dog. " * 60,
)
"""A handful, scored again at every start of a sidecar: enough to notice a wrong tokenizer, graph or kernel."""
