"""Pure: how long a request may be held for its score, which depends on how many others wait."""

SERVICE_MS = 1_000.0
"""What a request keeps its place in the engine for, at the least: fifty tokens at 20 ms. Most take several times as long."""


def patience_ms(in_flight: int, room: int | None, deadline_ms: float, crowded_deadline_ms: float) -> float:
    """The deadline of one question, in milliseconds.

    in_flight: requests, this one included. room: how many of them run at a time; None: unknown. While there is room, every
    millisecond delays the request itself, and `deadline_ms` holds. With more in flight it has to wait for its turn anyway, about as
    many service times as there are others for each place; so much more may be spent on knowing its turn, up to
    `crowded_deadline_ms`.
    """
    if room is None or in_flight <= room:
        return deadline_ms
    return max(min(deadline_ms + (in_flight - room) / room * SERVICE_MS, crowded_deadline_ms), deadline_ms)
