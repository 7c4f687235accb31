"""Experiment trackers: TensorBoard, Weights & Biases and MLflow are fed from the files of a cell.

A process beside the training (`beside`) reads what the cell has written (`records`) and sends it to a run of
each tracker (`trackers`), as far as no resume takes it back (`sending`). So the training computes, measures
and waits as it would without, and what is sent cannot differ from the cell's own files. `bench track` sends
in the same way what is stored already.
"""
