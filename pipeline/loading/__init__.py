"""From a patch store to shuffled batches, and to what a network takes.

The order of samples is one pure function (epoch_plan.py). Imports images and storage.
"""
