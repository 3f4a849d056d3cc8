"""Measurements of the whole: ratios taken side by side in one run. Not shipped in the wheel."""
