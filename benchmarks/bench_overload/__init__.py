"""`make bench-overload`: more calls than the encoder can answer, and what is answered in time all the same."""
