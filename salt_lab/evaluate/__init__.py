"""What detections are worth: arrays in, named numbers out."""
