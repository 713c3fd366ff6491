"""Evaluation of criteria over data of any size: `fastloss.evaluate` and `fastloss.Accumulator`.

    evaluator.py      evaluate(): one pass over the data
    criterion_set.py  one criterion, a list or a dict of them
    inputs.py         the arrays or batches that are passed
    chunks.py         readers that cut arrays into chunks of whole blocks, and read ahead
    sources/          the rows of one array, by format
    accumulators.py   running sums of the losses, which merge across processes
    comparison.py     a baseline: the paired difference of two predictions
    checkpoint.py     the state file, from which an interrupted evaluation resumes
    digests.py        checksums that show whether data and losses are still the same
    writers.py        unreduced losses
    storage.py        whether what is written is also read
    files.py          durable writes, temporary files, locks
    progress.py       the progress bar
    results.py        Evaluation, and its display
    dask.py           blocks of Dask arrays, on the user's scheduler

Nothing is imported here: an accumulator needs none of the modules that read files.
"""
