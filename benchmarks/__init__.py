"""Speed side by side with other libraries.

``python -m benchmarks`` compares every cell, ``python -m benchmarks.cadence`` calls that come now
and then.

- ``cells.py``: the table of what is computed, and its data
- ``with_<library>.py``: the same in one library; imported only in that library's process
- ``worker.py``: such a process; ``peers.py``: its handle, and the comparison of results
- ``__main__.py``: turns, table and JSON; ``cadence.py``: calls that come now and then
"""
