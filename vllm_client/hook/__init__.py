"""The hook in an engine's server: request → what to score → sidecar → priority.

    asked         what a request tells the hook: ranker texts, its own limits, its own priority
    decision      what the hook says: a priority or "leave it alone", and why, by cause
    settings      HookSettings: PARS_HOOK_* variables
    classes       traffic classes: header or API key → a bounded delay
    breaker       pure: when to stop asking a sidecar that fails
    link          one multiplexed stream to the sidecar, reopened with back-off
    counters      causes and times: Prometheus, and a line in the log once a minute at most
    faults        how the hook tells of its own bugs
    ordering      pure: request and scores → the settings' policy → priority
    scoring       PriorityHook: gate, sample, breaker, ask within the deadline, fail open
    host          what the hook can learn from the server that it lives in

Attached to HTTP, for `vllm serve --middleware` and for any ASGI server:

    headers       pure: the headers of a request
    values        pure: single values of a JSON body, taken as the server would take them
    request       pure: endpoint and JSON → asked
    body          a request's bytes, read within a bound, and a priority written into them
    placement     where a priority goes, and putting it there
    passage       one request: read, have it decided, place the priority
    lifespan      starting and stopping with the server
    middleware    PriorityMiddleware

Attached to the engine:

    engine_call   a call of the engine's → asked; what the engine tells of itself
    chat_markers  pure: the last user message out of a rendered conversation
    async_llm     PrioritizedAsyncLLM for programs that embed AsyncLLM
    add_request   AsyncLLM.add_request, wrapped
    plugin        the entry point for deployments that can pass no middleware

Fails open everywhere: any error, lateness or nonsense yields the neutral priority and a counter; a request is never failed,
changed in meaning, or held past the deadline.
"""
