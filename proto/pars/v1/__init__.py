"""Generated from `ranker.proto` and `bundle.proto` by `make proto`. Edit those, never these."""
