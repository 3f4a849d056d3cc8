"""Every fuzz target by its name, which is also its folder under corpus/. A target takes bytes and raises when a promise is broken."""

from collections.abc import Callable

import fuzz_bundle
import fuzz_request

TARGETS: dict[str, Callable[[bytes], None]] = {**fuzz_bundle.TARGETS, **fuzz_request.TARGETS}
