"""The model and the decisions: values in, a value and its reason out; no clock, disk, network or Temporal."""
