"""Detectors as ONNX files: the graph, what is left of a head's post-processing in it, the selection after it, writing and checking."""
