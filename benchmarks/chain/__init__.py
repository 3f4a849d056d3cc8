"""`make bench-chain`: what a new user meets, from a fresh clone to scores."""
