"""One trial, or one model, here and now."""
