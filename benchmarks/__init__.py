"""Speed side by side with other libraries.

``python -m benchmarks`` compares every cell and measures the machine's limits, ``.cadence`` calls
that come now and then, ``.scaling`` several threads with one, ``.startup`` imports; ``.report``
makes the documents of what they found. ``.sklearn_metrics`` has the metrics beside scikit-learn's,
``.large`` evaluations of sets larger than memory beside reading them, ``.blocks`` Dask's blocks.

- ``cells.py``: the table of what is computed, its data, and the work that it needs at least
- ``with_<library>.py``: the same in one library; imported only in that library's process
- ``worker.py``: such a process; ``peers.py``: its handle, and the comparison of results
- ``measure.py``: turns, ratios and means; ``limits.py``, ``limits.c``: what the machine allows
- ``text.py``, ``chart.py``, ``report.py``: tables, picture, documents; ``command.py``: options
"""
