"""Fits variational autoencoders, evaluates them and draws their pictures.

`python -m training` is the command line. A fitted model lives in a run directory, which
`training.checkpoint` writes and reads. Nothing here knows what happens downstream.
"""
