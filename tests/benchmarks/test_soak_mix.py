"""soak's calls: the same for a seed, and everything among them."""

from benchmarks.soak.mix import Mix, Planned, deadline_class, pool


def test_the_mix_is_the_same_for_a_seed_and_has_everything() -> None:
    prompts = pool(0, 32)

    def calls(seed: int) -> list[Planned]:
        mix = Mix(prompts, seed)
        return [mix.next() for _ in range(1500)]

    mixed = calls(1)
    assert mixed == calls(1) != calls(2)
    assert {each.what for each in mixed} == {
        *("score", "score, encoder", "score, n-gram", "score, 256 prompts", "compare", "stream"),
        *("get bundle", "health", "watch", "wrong"),
    }
    scored = [each for each in mixed if each.prompts]
    names = {"hopeless", "tight", "generous", "none"}
    assert {deadline_class(each) for each in scored} == names | {f"{name}, encoder only" for name in names}
    assert {len(each.prompts) for each in scored if each.what == "score"} >= {1, 2, 32}
    assert {code for each in mixed if each.what == "wrong" for code in each.allowed} >= {
        "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED",
    }
    assert any(each.leaves for each in mixed)
    assert all("CANCELLED" in each.allowed for each in mixed if each.cancel_after_s is not None)
