"""Benchmarks: the writer and its peers at the same work, in the same run, on the same machine.

`python -m dwh_tests.benchmarks` (`make bench`) measures each contender in fresh processes, taking turns, and
prints a table with the ratios to reach. Seconds mean nothing on another machine; ratios within one run do.
"""
