"""SALT lab: does this idea really help? Ablations for dense object detectors."""

__version__ = "0.1.0"
