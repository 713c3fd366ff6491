"""Benchmarks against other libraries and against the limits of the machine.

- ``python -m benchmarks``: every cell in every library, and the roofline of the machine
- ``.sporadic_calls``: calls with pauses between them, as in a service
- ``.neighbours``: calls beside other processes and the threads of other libraries
- ``.scaling``: several threads against one
- ``.many_cores``: a model of calls on more processors than there are
- ``.startup``: imports
- ``.sklearn_metrics``: the metrics against scikit-learn's
- ``.large``: evaluation of data larger than memory against reading alone
- ``.dask_blocks``: blocks of a Dask array against one array
- ``.report``: the documents, from the JSON output of the others

Modules:

- ``cells.py``: the table of losses, data and sizes, and the least work of each
- ``with_<library>.py``: the losses in one library, imported only in that library's process
- ``worker.py``: such a process; ``peers.py``: its handle, and the comparison of results
- ``load.py``: programs that burn a core, and CPU quotas; ``pools.py``: libraries with threads;
  ``callers.py``: several callers in one process
- ``measure.py``: rounds, ratios and means; ``commits.py``: builds of other commits, as peers
- ``roofline.py``, ``roofline.c``, ``roofline_math.h``: the limits of the machine
- ``format.py``, ``chart.py``: text, tables and the chart; ``cli.py``: command-line options
"""
