"""Readers of the data sets to train and to evaluate on: sequences of :class:`~lotus2_ros.data.sample.Sample`."""
