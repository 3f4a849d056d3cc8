"""The cases of bench_hook that pages show, as their tables name them."""

LABELS = {
    "gated": "few in flight, nothing asked",
    "unconnected": "no sidecar",
    "scored": "scored, one at a time",
    "scored_32": "scored, 32 at a time",
    "frozen": "a sidecar that has stopped answering",
}
