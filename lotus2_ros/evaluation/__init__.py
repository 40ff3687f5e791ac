"""Measuring a model: metrics, the sets they are measured on, records, reports."""
