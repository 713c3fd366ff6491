"""Evaluation of criteria over data of any size.

    evaluator.py      evaluate(): one pass over the data
    accumulators.py   running sums of the losses, mergeable across processes
    chunks.py         readers that cut arrays into blocks of rows, and read ahead
    sources.py        the rows of one array, by format
    writers.py        the unreduced losses
    dask.py           the same on a Dask scheduler

Nothing is imported here, so that an accumulator does not load what reads files.
"""
