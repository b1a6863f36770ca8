"""
Other people's test suites, on our asyncio loop.

Two suites hold the loop to what asyncio's users rely on: CPython's own ``test.test_asyncio``, as
the running interpreter brings it, and uvloop's, fetched from the package index when it is asked
for.  Nothing of either is kept here.  Each is run with every loop factory replaced (`factories`),
one process per module (`child`, watched by `running`), on three loops: asyncio's, uvloop and ours.
What a peer passes and ours does not must be explained in ``explained.toml``, else the run fails
(`judging`).

``make peers`` runs all of it; ``python -m tests.peers --help`` tells how to run parts.
"""
