"""What is done to one HTTP request: read it, have it decided, write the priority where the server looks for it."""

from typing import NamedTuple

from vllm_client.hook import headers as header_list
from vllm_client.hook.asked import Asked
from vllm_client.hook.body import HeldBody, Reading
from vllm_client.hook.classes import TrafficClasses
from vllm_client.hook.decision import Outcome
from vllm_client.hook.host import Host
from vllm_client.hook.placement import Place, Scope, in_body, in_header, obeyed_header, place_of
from vllm_client.hook.request import Endpoint, read_request
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings


class Finding(NamedTuple):
    """What reading a request came to."""

    asked: Asked
    arrival_ms: float
    outcome: Outcome | None
    """Why there is nothing to decide; None: the hook decides."""
    place: Place | None
    """Where a priority goes; None: the request is only counted, and goes on as it is."""


class Passage:
    """For all requests of a server; keeps nothing of any."""

    def __init__(self, hook: PriorityHook, host: Host, settings: HookSettings, classes: TrafficClasses) -> None:
        self._hook = hook
        self._host = host
        self._settings = settings
        self._classes = classes

    async def read(self, endpoint: Endpoint, scope: Scope, body: HeldBody) -> Finding | None:
        """Return what the request asks for. None: it goes on as it is and is not counted, since its client has gone. What
        was read is in `body`.
        """
        hook, headers = self._hook, scope["headers"]
        if not hook.engine_obeys and not self._settings.shadow:
            return Finding(Asked(), hook.now_ms(), Outcome.FCFS_ENGINE, None)
        place = place_of(endpoint, self._settings.priority_place, self._host.knows_header)
        if place is None:
            return Finding(Asked(), hook.now_ms(), Outcome.NO_PLACE, None)
        known = Asked(
            client_priority=obeyed_header(endpoint, headers, self._host.knows_header),
            class_delay_ms=self._classes.delay_ms(header_list.as_text(headers)) if self._classes.delays_ms else 0,
        )
        if not header_list.may_be_json(headers):
            return Finding(known, hook.now_ms(), Outcome.UNREADABLE, None)
        if header_list.is_encoded(headers):
            # Something further in may decode it, and a request without a priority would jump the queue. A header helps; a field
            # cannot be written into a body that is not read.
            return Finding(known, hook.now_ms(), Outcome.UNREADABLE, place)
        max_bytes = self._settings.max_body_bytes
        # Of a body that is declared too large, one piece is enough to see how it begins.
        reading = await body.read(max_bytes if (header_list.body_bytes(headers) or 0) <= max_bytes else 0)
        arrival_ms = hook.now_ms()
        if reading is Reading.GONE:
            return None
        if reading is Reading.TOO_LARGE:
            return Finding(known, arrival_ms, Outcome.TOO_LARGE, place)
        asked = read_request(
            endpoint,
            body.joined(),
            max_prompts=self._settings.max_prompts,
            header_priority=known.client_priority,
            class_delay_ms=known.class_delay_ms,
        )
        if asked is None:
            return Finding(known, arrival_ms, Outcome.UNREADABLE, None)
        return Finding(asked, arrival_ms, None, place)

    async def conclude(self, finding: Finding, backlog_ms: float, scope: Scope, body: HeldBody) -> Scope:
        """Return the scope to go on with, the same one when the request stays as it is."""
        if finding.outcome is None:
            priority = (await self._hook.decide(finding.asked, finding.arrival_ms, backlog_ms)).priority
        else:
            priority = self._hook.neutral(finding.asked, finding.arrival_ms, finding.outcome).priority
        if priority is None or finding.place is None:
            return scope
        if finding.place == "header":
            return in_header(scope, priority)
        return in_body(scope, body, priority, complete=finding.outcome is None)
