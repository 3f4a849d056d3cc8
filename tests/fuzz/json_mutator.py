"""Mutates JSON as JSON. Bytes changed at random are rarely JSON again, and what is not JSON is refused at the first check."""

import copy
import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "a\0b", "\ud800", "../x", "ngram.npy", "PRECISION_FP16", "NaN", "AAAA"),
    *(0, -1, 1, 2, 3, 4, 5, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**30),
    *(0.0, -0.0, 0.5, 1.5, 1e-45, 3.4e38, 3.5e38, 1e308, float("inf"), float("-inf"), float("nan")),
    *([], {}, [[]], [None], [0, 0], ["a", "b"], {"a": {}}),
)


def mutate(content: bytes, words: list[str], seed: int, largest_bytes: int) -> bytes | None:
    """Another JSON object much like this one; None when it is none or gets too large. words: keys and values that mean something."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        _change(chance.choice(_containers(tree)), words, chance)
    try:
        changed = json.dumps(tree).encode()
    except RecursionError:
        return None
    return changed if len(changed) <= largest_bytes else None


def _containers(tree: Any) -> list[Any]:
    """Every object and array in it, itself included."""
    found, queue = [], [tree]
    while queue and len(found) < 1_000:
        node = queue.pop()
        if isinstance(node, dict | list):
            found.append(node)
            queue.extend(node.values() if isinstance(node, dict) else node)
    return found


def _change(node: Any, words: list[str], chance: random.Random) -> None:
    """One change in place: put in, take out, or swap for something of another kind."""
    if isinstance(node, dict):
        place: Any = chance.choice([*node, *words])
    else:
        place = chance.randrange(len(node) + 1)
        if place == len(node) or chance.random() < 0.3:
            node.insert(place, None)
    known = isinstance(node, list) or place in node
    action = chance.randrange(4)
    if action == 0 and known:
        del node[place]
    elif action == 1 and known and isinstance(node[place], int | float):
        node[place] = node[place] * chance.choice((-1, 0.5, 2, 10)) + chance.choice((-1, 0, 1))
    elif action == 2 and known:
        node[place] = [copy.deepcopy(node[place])] if chance.random() < 0.5 else {chance.choice(words): node[place]}
    else:
        node[place] = chance.choice((chance.choice(words), copy.deepcopy(chance.choice(VALUES))))
