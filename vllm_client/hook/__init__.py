"""The hook in an engine's server: request → what to score → sidecar → priority.

    asked        what a request tells the hook: ranker texts, its own limits, its own priority
    decision     what the hook says: a priority or "leave it alone", and why, by cause
    settings     HookSettings: PARS_HOOK_* variables
    classes      traffic classes: header or API key → a bounded delay
    breaker      pure: when to stop asking a sidecar that fails
    link         one multiplexed stream to the sidecar, reopened with back-off
    counters     causes and times: Prometheus, and a line in the log once a minute at most
    scoring      PriorityHook: gate, sample, breaker, ask within the deadline, fail open
    host         what the hook can learn from the server that it lives in
    body         pure: a request's bytes, read within a bound, and a priority written into them
    request      pure: endpoint and JSON → asked
    middleware   PriorityMiddleware for `vllm serve --middleware`, and for any ASGI server
    async_llm    PrioritizedAsyncLLM for programs that embed AsyncLLM
    plugin       the entry point for deployments that can pass no middleware

Fails open everywhere: any error, lateness or nonsense yields the neutral priority and a counter; a request is never failed,
changed in meaning, or held past the deadline.
"""
