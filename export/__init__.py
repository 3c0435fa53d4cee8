"""Turns a run of training/ into one immutable model version: ONNX graphs and their manifest.

`python -m export` is the command line. `export.convert.export_run` goes the whole way: trace
(`graphs`), refuse what cannot be served (`checks`), prove agreement with torch (`parity`), convert
(`precision`), describe (`manifest`, `measurements`) and publish atomically (`publish` on disk,
`objects` in an object store). `verify` and `compare` look at versions that are there.
"""
