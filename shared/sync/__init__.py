"""Corrections of labels: found, planned, sent to the database of record, and accounted for."""
