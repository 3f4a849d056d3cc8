"""`make soak`: everything at once for half an hour, and every answer checked.

mix, bundles       which calls come, and what the sidecar is told to load
sidecar, calls     the two processes; doomed: a caller that dies
check, tally       is an answer right, and what became of every call
verdict            the promises that were broken
"""
