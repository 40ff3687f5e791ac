"""Readers of the data sets to train and to evaluate on. Each is a sequence of :class:`~lotus2_ros.data.sample.Sample`."""
