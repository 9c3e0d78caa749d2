"""The bench: what a hop costs, against a real Envoy with the same configuration in the same minute.

How this works: a leg (legs.py) is a mesh in YAML and one call. Its proxies run as one process each per engine, the asyncio data plane
or a real Envoy, on addresses of 127.0.0.0/8 (flat.py, engines.py), all of an engine on one core; a client (load.py) and an origin
(origin.py), a process each, have the other core. Rounds (rounds.py) interleave the engines, so that a slow minute of the machine is
slow for both; what counts is the ratio within a round. Everything measured ends up in one `Report` (report.py) that prints as a table,
as JSON and as a plot.

What it cannot tell: how a figure would look on another machine. Only ratios of one run are worth comparing, and small ones of those not.
"""
