"""The waiting jobs of an engine, in the order of its discipline."""

import heapq
from typing import Protocol

from benchmarks.simulator.disciplines import Discipline, Key
from benchmarks.simulator.job import Job


class Waiting(Protocol):
    def __len__(self) -> int: ...

    def push(self, job: Job, now: int) -> None: ...

    def first(self, now: int) -> Job:
        """Who is next. There must be somebody."""

    def take(self, job: Job) -> None:
        """Remove the one that was just first."""


def waiting_for(discipline: Discipline) -> Waiting:
    return MovingOrder(discipline) if discipline.moves else FixedOrder(discipline)


class FixedOrder:
    """For disciplines whose order changes with what runs alone: a heap."""

    def __init__(self, discipline: Discipline) -> None:
        self._discipline = discipline
        self._heap: list[tuple[Key, int, Job]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, job: Job, now: int) -> None:
        heapq.heappush(self._heap, (self._discipline.key(job, job.made_tokens, now), job.index, job))

    def first(self, now: int) -> Job:
        return self._heap[0][2]

    def take(self, job: Job) -> None:
        taken = heapq.heappop(self._heap)[2]
        assert taken is job, "bug in ours: only the first may be taken"


class MovingOrder:
    """For disciplines whose order changes with time: looked through whenever there is a place."""

    def __init__(self, discipline: Discipline) -> None:
        self._discipline = discipline
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def push(self, job: Job, now: int) -> None:
        self._jobs.append(job)

    def first(self, now: int) -> Job:
        return min(self._jobs, key=lambda job: (self._discipline.key(job, job.made_tokens, now), job.index))

    def take(self, job: Job) -> None:
        self._jobs.remove(job)
